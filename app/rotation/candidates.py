"""Candidates: the External IDs with which a proof tries a role during a rotation.

A connection is paired with one External ID, and only proofs change which (invariant 14;
docs/architecture.md). app/rotation/switch.py says when.
"""

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from app.ids import Grant
from app.proofs.proof import ProofFinding
from app.store.models import Connection, ConnectionStatus, ExternalIdRow, ExternalIdState

_RETIRED_TRIED = 3  # External IDs at most, by one proof


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
