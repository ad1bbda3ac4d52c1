"""Decide when a connection switches to another External ID, and when it is proven next.

A verified connection keeps its External ID until two proofs with the next one have succeeded, two
minutes apart. IAM takes a moment to propagate the role's change, and Deputy issues credentials
meanwhile. Any other connection switches to the first External ID that its role accepts.
"""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.orm import Session

from app.proofs.proof import ProofFinding
from app.rotation.candidates import ExternalIdCandidate, PlanFinding, RotationPlan
from app.rotation.rotations import HOURLY
from app.store.models import Connection, ConnectionStatus, ExternalIdCheck, Verdict

_CONFIRMED_AFTER = timedelta(minutes=2)
_REFUSALS_APART = timedelta(minutes=1)


def store_checks(
    db: Session, connection: Connection, tested: PlanFinding, checked_at: datetime
) -> tuple[ProofFinding, UUID]:
    """Store the role's answers to the External IDs with which it is not paired.

    Returns the finding that counts, and the id of the External ID with which to pair the
    connection.
    """
    plan, upcoming = tested.plan, tested.upcoming
    if plan.rotates and connection.status is not ConnectionStatus.VERIFIED:
        # Acceptances from before the connection stopped issuing do not count: IAM must first
        # propagate the repair of the role.
        own = update(ExternalIdCheck).where(ExternalIdCheck.connection_id == connection.id)
        db.execute(own.values(accepted_at=None))
    if plan.retiring and tested.refuses_retiring is not None:
        check = _check_of(db, connection, plan.retiring)
        _note_answer(check, checked_at, refuses=tested.refuses_retiring)
    if plan.upcoming and upcoming is not None:
        check = _check_of(db, connection, plan.upcoming)
        if upcoming.verdict is Verdict.UNASSUMABLE:
            check.accepted_at = None
        if upcoming.verdict is Verdict.PROVEN:
            check.accepted_at = check.accepted_at or checked_at
            if check.accepted_at <= checked_at - _CONFIRMED_AFTER:
                return upcoming, plan.upcoming.id
    if tested.finding.verdict is Verdict.PROVEN:
        return tested.finding, tested.external_id_id
    return tested.finding, connection.external_id_id


def _note_answer(check: ExternalIdCheck, checked_at: datetime, *, refuses: bool) -> None:
    if not refuses:
        check.refused_at = check.refused_again_at = None
    elif check.refused_at is None:
        check.refused_at = checked_at
    elif check.refused_again_at is None and check.refused_at <= checked_at - _REFUSALS_APART:
        check.refused_again_at = checked_at


def _check_of(
    db: Session, connection: Connection, candidate: ExternalIdCandidate
) -> ExternalIdCheck:
    check = db.get(ExternalIdCheck, (connection.id, candidate.id))
    if check is None:
        check = ExternalIdCheck(
            tenant_id=connection.tenant_id, connection_id=connection.id, external_id_id=candidate.id
        )
        db.add(check)
        db.flush()
    return check


def next_due(
    db: Session, connection: Connection, plan: RotationPlan, checked_at: datetime
) -> datetime | None:
    """Return when a rotation needs this connection's next proof; None if it needs none."""
    if connection.status is not ConnectionStatus.VERIFIED:
        return None
    times = []
    if plan.upcoming and plan.upcoming.id != connection.external_id_id:
        check = _check_of(db, connection, plan.upcoming)
        times.append(_second_try(check.accepted_at, _CONFIRMED_AFTER, checked_at))
    if plan.retiring and plan.retiring.id != connection.external_id_id:
        check = _check_of(db, connection, plan.retiring)
        if check.refused_again_at is None:
            times.append(_second_try(check.refused_at, _REFUSALS_APART, checked_at))
    return min(times, default=None)


def _second_try(first: datetime | None, pause: timedelta, checked_at: datetime) -> datetime:
    """Return when to try a role again after its first expected answer.

    If there was no such answer (`first` is None), try again in an hour.
    """
    if first is None:
        return checked_at + HOURLY
    return max(first + pause, checked_at + _REFUSALS_APART / 2)
