"""Candidates: the External IDs with which a proof tries a role during a rotation.

A connection is paired with one External ID, and only a proof pairs it with another (invariant 14;
docs/architecture.md). app/rotation/switch.py decides when.
"""

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from app.ids import Grant
from app.proofs.proof import ProofFinding
from app.store.models import Connection, ConnectionStatus, ExternalIdRow, ExternalIdState

_RETIRED_TRIED = 3  # maximum number of retired External IDs that one proof tries


class ExternalIdCandidate(NamedTuple):
    """An External ID of the tenant, and the grant for the role with it."""

    id: UUID
    grant: Grant


class RotationPlan(NamedTuple):
    """The External IDs with which to try a role.

    - `own`: tried first, in this order, until the role accepts one.
    - `upcoming`: the one to which a verified connection is to switch.
    - `retiring`: the retiring one, which the role is to refuse.
    - `retired`: retired ones that the role of an unverified connection may still have. The
      connection can't be paired with them.
    - `external_ids`: all External IDs of the tenant, which a trust policy may name.
    - `retired_ids`: the retired ones of these, which a trust policy should no longer name.
    - `rotates`: whether the tenant has an open or a retiring rotation.
    """

    own: tuple[ExternalIdCandidate, ...]
    external_ids: frozenset[str]
    retired_ids: frozenset[str]
    upcoming: ExternalIdCandidate | None = None
    retiring: ExternalIdCandidate | None = None
    retired: tuple[ExternalIdCandidate, ...] = ()
    rotates: bool = False


class PlanFinding(NamedTuple):
    """The finding for one External ID of a plan, and the results for the other ones.

    `external_id_id`: the id of the External ID that the finding is about.
    """

    plan: RotationPlan
    finding: ProofFinding
    external_id_id: UUID
    upcoming: ProofFinding | None = None
    refuses_retiring: bool | None = None  # None: not asked, or no clear answer


_OF_TENANT = ExternalIdRow.tenant_id == bindparam("tenant_id")
# A query that waits for a lock returns related rows as they were before the wait. So they are read
# again.
_EXTERNAL_IDS = select(ExternalIdRow).where(_OF_TENANT).execution_options(populate_existing=True)


def plan_rotation(db: Session, connection: Connection) -> RotationPlan:
    """Return the External IDs with which to try the connection's role."""
    rows = db.scalars(_EXTERNAL_IDS, {"tenant_id": connection.tenant_id}).all()
    by_state = {row.state: row for row in rows}
    current, retiring = by_state[ExternalIdState.CURRENT], by_state.get(ExternalIdState.RETIRING)
    target = by_state.get(ExternalIdState.NEXT, current)
    [paired] = [row for row in rows if row.id == connection.external_id_id]
    retired = [row for row in rows if row.state is ExternalIdState.RETIRED]
    # An External ID that a new rotation retired is never proven again, even if its connection is
    # still verified.
    keeps_own = connection.status is ConnectionStatus.VERIFIED and paired not in retired
    order, lost = [paired, target], list[ExternalIdRow]()
    if not keeps_own:
        order = [current, target, paired]
        if connection.verified_at is None and connection.created_at >= target.created_at:
            order.insert(0, target)
        order = [row for row in order if not row.is_withdrawn]
        lost = sorted(retired, key=lambda row: (row is paired, row.id), reverse=True)

    def candidate(row: ExternalIdRow) -> ExternalIdCandidate:
        return ExternalIdCandidate(row.id, connection.grant_with(row))

    return RotationPlan(
        external_ids=frozenset(row.value for row in rows),
        retired_ids=frozenset(row.value for row in retired),
        own=tuple(map(candidate, dict.fromkeys(order))),
        upcoming=candidate(target) if keeps_own and target is not paired else None,
        retiring=candidate(retiring) if retiring else None,
        retired=tuple(map(candidate, lost[:_RETIRED_TRIED])),
        rotates=target is not current or retiring is not None,
    )
