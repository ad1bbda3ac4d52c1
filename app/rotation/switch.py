"""When a connection switches to another External ID, and when a rotation needs its next proof.

A verified connection keeps its own until two proofs with the next one have succeeded, two minutes
apart. IAM takes a moment to propagate a change, and credentials are issued meanwhile. Any other
connection takes the first one that its role accepts.
"""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.orm import Session

from app.proofs.proof import ProofFinding
from app.rotation.candidates import Answers, Candidate, Plan
from app.rotation.rotations import HOURLY
from app.store.models import Connection, ConnectionStatus, Trial, Verdict

_CONFIRMED_AFTER = timedelta(minutes=2)

_REFUSALS_APART = timedelta(minutes=1)


def store_trials(
    db: Session, connection: Connection, answers: Answers, at: datetime
) -> tuple[ProofFinding, UUID]:
    """Store the role's answers to the External IDs that are not its own.

    Return the finding that counts, and the External ID with which the connection is paired after
    it.
    """
    plan = answers.plan
    if plan.rotates and connection.status is not ConnectionStatus.VERIFIED:
        # Acceptances from before the connection stopped do not count: its repair is a change of its
        # own, which takes time to propagate.
        db.execute(
            update(Trial).where(Trial.connection_id == connection.id).values(accepted_at=None)
        )
    if plan.retiring and answers.refuses_retiring is not None:
        _note_refusal(_trial(db, connection, plan.retiring), answers.refuses_retiring, at)
    if plan.upcoming and answers.upcoming is not None:
        trial = _trial(db, connection, plan.upcoming)
        if answers.upcoming.verdict is Verdict.UNASSUMABLE:
            trial.accepted_at = None
        if answers.upcoming.verdict is Verdict.PROVEN:
            if trial.accepted_at is not None and trial.accepted_at <= at - _CONFIRMED_AFTER:
                return answers.upcoming, plan.upcoming.id
            trial.accepted_at = trial.accepted_at or at
    proven = answers.finding.verdict is Verdict.PROVEN
    return answers.finding, answers.external_id_id if proven else connection.external_id_id


# the role's answer
def _note_refusal(trial: Trial, refused: bool, at: datetime) -> None:  # noqa: FBT001
    if not refused:
        trial.refused_at = trial.refused_again_at = None
    elif trial.refused_at is None:
        trial.refused_at = at
    elif trial.refused_again_at is None and trial.refused_at <= at - _REFUSALS_APART:
        trial.refused_again_at = at


def _trial(db: Session, connection: Connection, candidate: Candidate) -> Trial:
    trial = db.get(Trial, (connection.id, candidate.id))
    if trial is None:
        trial = Trial(
            tenant_id=connection.tenant_id, connection_id=connection.id, external_id_id=candidate.id
        )
        db.add(trial)
        db.flush()
    return trial


def next_due(db: Session, connection: Connection, plan: Plan, at: datetime) -> datetime | None:
    """Return when a rotation needs this connection's next proof; None when it needs none."""
    if connection.status is not ConnectionStatus.VERIFIED:
        return None
    wanted = []
    if plan.upcoming and plan.upcoming.id != connection.external_id_id:
        trial = db.get(Trial, (connection.id, plan.upcoming.id))
        wanted.append(_after(trial.accepted_at if trial else None, _CONFIRMED_AFTER, at))
    if plan.retiring and plan.retiring.id != connection.external_id_id:
        trial = db.get(Trial, (connection.id, plan.retiring.id))
        if trial is None or trial.refused_again_at is None:
            wanted.append(_after(trial.refused_at if trial else None, _REFUSALS_APART, at))
    return min(wanted, default=None)


def _after(first: datetime | None, pause: timedelta, at: datetime) -> datetime:
    """Return when to ask a second time: within the hour, if there was no first time."""
    return at + HOURLY if first is None else max(first + pause, at + _REFUSALS_APART / 2)
