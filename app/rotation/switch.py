"""Try a tenant's External IDs with a role, and decide when its connection switches to another.

A connection is paired with one External ID, and only a proof pairs it with another (invariant 14 in
docs/architecture.md). A verified connection keeps its External ID until two proofs with the next
one have succeeded, two minutes apart. IAM takes a moment to propagate the role's change, and
issuing must not fail meanwhile. Any other connection switches to the first External ID that its
role accepts. A connection with an imported External ID switches in the same way, to the next
External ID or else to the current one.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.audit import Actor, actions
from app.aws.sts import Sts
from app.errors import NotFoundError
from app.ids import Grant
from app.proofs.calls_and_verdict import ProofCheck, ProofFinding, refuses
from app.rotation.rotations import HOURLY
from app.store.models import (
    Connection,
    ConnectionStatus,
    ExternalIdCheck,
    ExternalIdOrigin,
    ExternalIdRow,
    ExternalIdState,
    Verdict,
)
from app.store.models.proof import OWN

_RETIRED_TRIED = 3  # maximum number of retired External IDs that one proof tries
_CONFIRMED_AFTER = timedelta(minutes=2)
_REFUSALS_APART = timedelta(minutes=1)
_ACCEPTS_RETIRED = (
    "The role accepts only an External ID of this tenant that was retired. Update the role: its"
    " trust policy must name the current one, as in the onboarding kit."
)


@dataclass(frozen=True)
class RotationPlan:
    """The External IDs with which to try a connection's role, as grants for that role.

    Plans that differ only in `connection` and `offered` are equal.

    - `connection`: the connection's row before the calls.
    - `own`: tried first, in this order, until the role accepts one.
    - `offered`: the current and the next one, with which a proof can pair an unverified connection.
    - `upcoming`: the one to which a verified connection is to switch.
    - `retiring`: the retiring one, which the role is to refuse.
    - `retired`: retired ones that the role of an unverified connection may still have. The
      connection can't be paired with them.
    - `external_ids`: the tenant's External IDs with the ids of their rows, without retired imports.
    - `retired_ids`: the retired ones among them, which a trust policy should no longer name.
    - `rotates`: whether a rotation is open or retiring, or the connection's own ID was imported.
    """

    connection: Connection = field(compare=False)
    own: tuple[Grant, ...]
    external_ids: Mapping[str, UUID]
    retired_ids: frozenset[str]
    offered: tuple[Grant, ...] = field(default=(), compare=False)
    upcoming: Grant | None = None
    retiring: Grant | None = None
    retired: tuple[Grant, ...] = ()
    rotates: bool = False

    def id_of(self, grant: Grant) -> UUID:
        return self.external_ids[grant.external_id]


class PlanFinding(NamedTuple):
    """The finding for one grant of a plan, and the results for the other ones."""

    plan: RotationPlan
    finding: ProofFinding
    grant: Grant
    upcoming: ProofFinding | None = None
    refuses_retiring: bool | None = None  # None: not asked, or no clear answer


def plan_rotation(db: Session, connection: Connection) -> RotationPlan:
    """Return the External IDs with which to try the connection's role. Raises NotFoundError."""
    # A query that waits for a lock returns related rows as they were before the wait. So they are
    # read again.
    of_tenant = select(ExternalIdRow).filter_by(tenant_id=connection.tenant_id)
    rows = db.scalars(of_tenant.execution_options(populate_existing=True)).all()
    by_state = {row.state: row for row in rows}
    if ExternalIdState.CURRENT not in by_state:  # the tenant was deleted meanwhile
        raise NotFoundError
    current, retiring = by_state[ExternalIdState.CURRENT], by_state.get(ExternalIdState.RETIRING)
    target = by_state.get(ExternalIdState.NEXT, current)
    paired = db.get_one(ExternalIdRow, connection.external_id_id)
    retired = [row for row in rows if row.state is ExternalIdState.RETIRED]
    # Leave out retired imports, because the vendor's other system may still use them.
    named = [
        row
        for row in rows
        if row.state is not ExternalIdState.RETIRED or row.origin is ExternalIdOrigin.DEPUTY
    ]
    # An External ID that a new rotation retired is never proven again, even if its connection is
    # still verified.
    keeps_own = connection.status is ConnectionStatus.VERIFIED and paired not in retired
    order, lost = [paired, target], list[ExternalIdRow]()
    if paired.state is ExternalIdState.IMPORTED and not current.is_withdrawn:
        order.append(current)  # the role may have been updated before the rotation began
    if not keeps_own:
        order = [current, target, paired]
        if connection.verified_at is None and connection.created_at >= target.created_at:
            order.insert(0, target)
        order = [row for row in order if not row.is_withdrawn]
        lost = [row for row in (retiring, *retired) if row and row not in order]
        lost.sort(key=lambda row: (row is paired, row.id), reverse=True)
    grant, offered = connection.grant_with, dict.fromkeys([current, target])
    is_rotating = target is not current or retiring is not None
    return RotationPlan(
        connection=connection,
        external_ids={row.value: row.id for row in named},
        retired_ids=frozenset(row.value for row in named if row.state is ExternalIdState.RETIRED),
        own=tuple(map(grant, dict.fromkeys(order))),
        offered=tuple(grant(row) for row in offered if not row.is_withdrawn),
        upcoming=grant(target) if keeps_own and target is not paired else None,
        retiring=grant(retiring) if retiring else None,
        retired=tuple(map(grant, lost[:_RETIRED_TRIED])),
        rotates=is_rotating or paired.state is ExternalIdState.IMPORTED,
    )


def try_external_ids(
    sts: Sts, plan: RotationPlan, prove: Callable[[Grant], ProofFinding]
) -> PlanFinding:
    """Try the role with the External IDs of the plan. Opens no transaction.

    `prove` makes the proof with one External ID.
    """
    for grant in plan.own:
        finding = prove(grant)
        if not finding.refused:
            break
    if finding.verdict is not Verdict.PROVEN:
        return PlanFinding(plan, finding, grant)
    upcoming = refuses_retiring = None
    if plan.upcoming and plan.upcoming != grant:
        upcoming = prove(plan.upcoming)
        if upcoming.verdict is Verdict.INSECURE:
            # The role accepted a call that it must refuse. That alone decides the verdict.
            return PlanFinding(plan, upcoming, grant)
    if plan.retiring and plan.retiring != grant:
        refuses_retiring = refuses(sts.probe_again, plan.retiring)
    return PlanFinding(plan, finding, grant, upcoming, refuses_retiring)


def accepts_any(sts: Sts, grants: Iterable[Grant]) -> bool:
    """Return whether the role accepts one of these grants. Stops at the first that it accepts."""
    return any(refuses(sts.probe_again, grant) is False for grant in grants)


def look_for_retired(sts: Sts, tested: PlanFinding) -> PlanFinding:
    """Try the retired External IDs if the role refused all others, and return the result.

    If the role accepts a retired one, the finding says so.
    """
    if not tested.finding.refused or not accepts_any(sts, tested.plan.retired):
        return tested
    own = ProofCheck(OWN, "failed", _ACCEPTS_RETIRED)
    return tested._replace(finding=tested.finding.with_check(own))


def store_checks(
    db: Session, actor: Actor, connection: Connection, tested: PlanFinding, checked_at: datetime
) -> ProofFinding:
    """Store the role's answers to the other External IDs, and return the finding that counts.

    Pairs the connection with another External ID if the answers allow that.
    """
    plan, upcoming, finding = tested.plan, tested.upcoming, tested.finding
    accepted = tested.grant if finding.verdict is Verdict.PROVEN else None
    if plan.rotates and connection.status is not ConnectionStatus.VERIFIED:
        # Forget earlier acceptances while the connection does not issue: IAM must first propagate
        # the repair of the role.
        own = update(ExternalIdCheck).filter_by(connection_id=connection.id)
        db.execute(own.values(accepted_at=None))
    if plan.retiring and tested.refuses_retiring is not None:
        check = _check_of(db, connection, plan.id_of(plan.retiring))
        _note_answer(check, checked_at, refuses=tested.refuses_retiring)
    if plan.upcoming and upcoming is not None:
        check = _check_of(db, connection, plan.id_of(plan.upcoming))
        if upcoming.verdict is Verdict.UNASSUMABLE:
            check.accepted_at = None
        if upcoming.verdict is Verdict.PROVEN:
            check.accepted_at = check.accepted_at or checked_at
            confirmed = check.accepted_at <= checked_at - _CONFIRMED_AFTER
            # Nothing is issued with a withdrawn one, so to wait would only prolong the outage
            if confirmed or connection.external_id_row.is_withdrawn:
                finding, accepted = upcoming, plan.upcoming
    if accepted and plan.id_of(accepted) != connection.external_id_id:
        connection.pair_with(plan.id_of(accepted))
        actions.CONNECTION_SWITCHED.record_about(
            db, actor, connection, {"external_id": accepted.external_id}
        )
    return finding


def _note_answer(check: ExternalIdCheck, checked_at: datetime, *, refuses: bool) -> None:
    if not refuses:
        check.refused_at = check.refused_again_at = None
    elif check.refused_at is None:
        check.refused_at = checked_at
    elif check.refused_again_at is None and check.refused_at <= checked_at - _REFUSALS_APART:
        check.refused_again_at = checked_at


def _check_of(db: Session, connection: Connection, external_id_id: UUID) -> ExternalIdCheck:
    """Return the row of the role's answers to this External ID. Add the row if it is absent."""
    check = db.get(ExternalIdCheck, (connection.id, external_id_id))
    if check is None:
        check = ExternalIdCheck(
            tenant_id=connection.tenant_id,
            connection_id=connection.id,
            external_id_id=external_id_id,
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
    times, own_id = [], connection.external_id_id
    if plan.upcoming and (upcoming_id := plan.id_of(plan.upcoming)) != own_id:
        check = _check_of(db, connection, upcoming_id)
        # An imported External ID may be kept for months. Until the role accepts the next one,
        # routine proofs try the next one often enough, unless an emergency has withdrawn it.
        withdrawn = connection.external_id_row.is_withdrawn
        if check.accepted_at or connection.imported_id is None or withdrawn:
            times.append(_second_try(check.accepted_at, _CONFIRMED_AFTER, checked_at))
    if plan.retiring and (retiring_id := plan.id_of(plan.retiring)) != own_id:
        check = _check_of(db, connection, retiring_id)
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
