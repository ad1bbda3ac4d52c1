"""Candidates: the External IDs with which a proof tries a role during a rotation.

A connection is paired with one External ID, and only proofs change which (invariant 14;
docs/architecture.md). A verified connection keeps its own until two proofs with the next one have
succeeded, two minutes apart. IAM takes a moment to propagate a change, and credentials are issued
meanwhile. Any other connection takes the first one that its role accepts.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session

from app.aws.sts import Refused, Sts, StsError
from app.ids import Grant
from app.proofs.proof import ProofCheck, ProofFinding
from app.rotation.rotations import HOURLY
from app.store.models import (
    Connection,
    ConnectionStatus,
    ExternalIdRow,
    ExternalIdState,
    Trial,
    Verdict,
    states,
)

_CONFIRMED_AFTER = timedelta(minutes=2)
_REFUSALS_APART = timedelta(minutes=1)
_RETIRED_TRIED = 3  # External IDs at most, by one proof
_ACCEPTS_RETIRED = (
    "The role accepts only an External ID of this tenant that was retired. Update the role: its"
    " trust policy must name the current one, as in the onboarding kit."
)


class Candidate(NamedTuple):
    """One External ID of the tenant, and the grant of the role with it."""

    id: UUID
    grant: Grant


class Plan(NamedTuple):
    """The External IDs with which to try a role.

    - `own`: the first that the role accepts becomes, or stays, its own.
    - `upcoming`: the one to which a verified connection is to switch.
    - `retiring`: the one that the role is to refuse.
    - `retired`: those that the role of an unverified connection may still have. It can't be
      paired with them.
    - `external_ids`: all of the tenant's, which a trust policy may name.
    - `retired_ids`: those that a trust policy should no longer name.
    """

    own: tuple[Candidate, ...]
    external_ids: frozenset[str]
    retired_ids: frozenset[str]
    upcoming: Candidate | None = None
    retiring: Candidate | None = None
    retired: tuple[Candidate, ...] = ()
    rotates: bool = False


class Answers(NamedTuple):
    """The finding with the External ID it is about, and the results of the other candidates."""

    plan: Plan
    finding: ProofFinding
    external_id_id: UUID
    upcoming: ProofFinding | None = None
    refuses_retiring: bool | None = None  # None: not asked, or no clear answer


_OF_TENANT = ExternalIdRow.tenant_id == bindparam("tenant_id")
# A statement that waits for a lock loads related rows as they were when it began. So they are read
# again.
_EXTERNAL_IDS = select(ExternalIdRow).where(_OF_TENANT).execution_options(populate_existing=True)


def plan_of(db: Session, connection: Connection) -> Plan:
    rows = db.scalars(_EXTERNAL_IDS, {"tenant_id": connection.tenant_id}).all()
    by_state = {row.state: row for row in rows}
    current, following = by_state.get(ExternalIdState.CURRENT), by_state.get(ExternalIdState.NEXT)
    paired = next(row for row in rows if row.id == connection.external_id_id)
    # An External ID that a new rotation retired is never proven again, even if its connection is
    # still verified.
    keeps_own = (
        connection.status is ConnectionStatus.VERIFIED
        and paired.state is not ExternalIdState.RETIRED
    )
    target = following or current

    def candidate(row: ExternalIdRow | None) -> Candidate | None:
        return None if row is None else Candidate(row.id, connection.grant_with(row))

    if keeps_own:
        order = [paired, target]
    else:
        is_new = (
            following
            and connection.verified_at is None
            and connection.created_at >= following.created_at
        )
        named = [following, current] if is_new else [current, following, paired]
        order = [row for row in named if row and not row.is_withdrawn]
    retired = [row for row in rows if row.state is ExternalIdState.RETIRED]
    lost = (
        [] if keeps_own else sorted(retired, key=lambda row: (row is paired, row.id), reverse=True)
    )
    return Plan(
        external_ids=frozenset(row.value for row in rows),
        retired_ids=frozenset(row.value for row in retired),
        own=tuple(found for row in dict.fromkeys(order) if (found := candidate(row))),
        upcoming=candidate(target) if keeps_own and target is not paired else None,
        retiring=candidate(by_state.get(ExternalIdState.RETIRING)),
        retired=tuple(
            Candidate(row.id, connection.grant_with(row)) for row in lost[:_RETIRED_TRIED]
        ),
        rotates=following is not None or ExternalIdState.RETIRING in by_state,
    )


def try_external_ids(sts: Sts, plan: Plan, prove: Callable[[Grant], ProofFinding]) -> Answers:
    """Make the calls. `prove` makes the proof with one External ID. Opens no transaction."""
    for candidate in plan.own:
        finding = prove(candidate.grant)
        if not finding.refused:
            break
    if finding.verdict is not Verdict.PROVEN:
        return Answers(plan, finding, candidate.id)
    upcoming = prove(plan.upcoming.grant) if plan.upcoming and plan.upcoming != candidate else None
    if upcoming is not None and upcoming.verdict is Verdict.INSECURE:
        # One accepted call that must be refused decides, whatever the other answers
        return Answers(plan, upcoming, candidate.id)
    old = plan.retiring if plan.retiring != candidate else None
    return Answers(plan, finding, candidate.id, upcoming, refuses(sts, old.grant) if old else None)


def refuses(sts: Sts, grant: Grant) -> bool | None:
    """Return whether the role refuses this External ID; None if AWS gave no clear answer."""
    try:
        sts.probe_again(grant)
    except Refused:
        return True
    except StsError:
        return None
    return False


def look_for_retired(sts: Sts, answers: Answers) -> Answers:
    """Return the answers, after trying retired External IDs if the role refused all others.

    If the role accepts a retired one, the finding says so.
    """
    retired = answers.plan.retired if answers.finding.refused else ()
    if not any(refuses(sts, one.grant) is False for one in retired):
        return answers
    own = ProofCheck(states.OWN, "failed", _ACCEPTS_RETIRED)
    checks = tuple(own if check.name == states.OWN else check for check in answers.finding.checks)
    return answers._replace(finding=answers.finding._replace(checks=checks))


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
