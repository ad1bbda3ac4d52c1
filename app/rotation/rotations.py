"""Rotation: replace a tenant's External ID by another, without an outage.

This module starts, completes and abandons rotations. It switches no connections: only a proof pairs
a connection with the next External ID (app/proofs/verification.py). A rotation can complete when no
verified connection waits to switch. The old External ID retires when every role has refused it
(invariant 14 in docs/architecture.md).
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    and_,
    exists,
    func,
    or_,
    select,
    update,
)

from app.audit import Actor, actions
from app.audit.details import ExternalIdRetirement, RotatedIds
from app.audit.events import Action
from app.clock import now
from app.errors import ConflictError, NotFoundError
from app.identity import WORKER, Principal, SystemPrincipal, tenant_of
from app.ids import new_external_id, new_id
from app.limits import limits
from app.limits.counting_in_database import acquire_in
from app.rotation.status import RotationStatus, awaited, has_switched, latest, status_of, waiting
from app.store.database import Database, Session
from app.store.models import (
    Connection,
    ConnectionStatus,
    ExternalIdCheck,
    ExternalIdRow,
    ExternalIdState,
    Rotation,
    Trigger,
    live_of,
)
from app.store.models.external_id import IMPORTED, ROTATING

# Maximum time between two tries of the same role during a rotation
HOURLY = timedelta(hours=1)
_COMPLETES_AFTER = timedelta(days=1)  # after the rotation became ready
# Maximum of imported External IDs that one transaction retires
_RETIRED_AT_ONCE = 200
# Connections in these statuses may be repaired for so long after their last successful proof.
_REPAIRABLE = ConnectionStatus.BROKEN, ConnectionStatus.PENDING, ConnectionStatus.INSECURE
_REPAIRED_WITHIN = timedelta(days=1)
# A role that was proven, and waits for the vendor's approval. So it has no `verified_at`.
_AWAITS_APPROVAL = and_(
    Connection.status.in_([ConnectionStatus.PENDING, ConnectionStatus.SUSPENDED]),
    Connection.approval_id.is_not(None),
    Connection.role_unique_id.is_not(None),
    Connection.refusing_since.is_(None),
)
_LOST_AFTER = timedelta(days=14)  # a rotation completes by itself without such a role


@dataclass
class Rotations:
    """Starts, reads, completes and abandons rotations."""

    _db: Database

    def start(
        self, principal: Principal, tenant_id: UUID, *, reason: str, emergency: bool = False
    ) -> tuple[RotationStatus, bool]:
        """Start a rotation, or make an open one an emergency. Return it and whether it is new.

        In an emergency, Deputy issues nothing for connections that have not switched. If the vendor
        makes a bound key's rotation an emergency, the rotation becomes the vendor's. Raises
        NotFoundError. Raises ConflictError if another rotation is open or ready, unless `emergency`
        is true. Raises RateLimitedError for a bound key that starts too many rotations.
        """
        with self._db.write(principal) as db:
            tenant_of(db, principal, tenant_id, lock=True)
            rotation, bound = latest(db, tenant_id), not principal.is_vendor
            action = None
            if rotation is None or not rotation.is_open:
                if bound:  # keys that are bound to no tenant have no limit
                    acquire_in(db, limits.ROTATIONS, tenant_id)
                rotation = _begin(db, principal.actor, tenant_id, rotation)
                rotation.by_bound = bound
                action = actions.ROTATION_STARTED
            elif not emergency:
                state = status_of(db, rotation).state
                raise ConflictError(
                    f"The rotation to {rotation.new.value} is {state}; complete it, or abandon it,"
                    " before another begins."
                )
            elif not rotation.emergency or (rotation.by_bound and not bound):
                rotation.by_bound = rotation.by_bound and bound
                action = actions.ROTATION_MADE_EMERGENCY
            if action is not None:
                action.record(
                    db,
                    principal.actor,
                    {**_ids(rotation), "reason": reason, "emergency": emergency},
                    tenant_id,
                )
            if emergency and not rotation.emergency:
                _withdraw(db, rotation)
                # A role may accept the next one already, although nobody told Deputy
                _prove_awaited(db, tenant_id, ~has_switched(rotation), now())
            return status_of(db, rotation), action is actions.ROTATION_STARTED

    def get(self, principal: Principal, tenant_id: UUID) -> RotationStatus | None:
        """Return the latest rotation, open or ended; None if there never was one.

        Raises NotFoundError for an absent tenant.
        """
        with self._db.read() as db:
            tenant_of(db, principal, tenant_id)
            rotation = latest(db, tenant_id)
            return None if rotation is None else status_of(db, rotation)

    def waiting_accounts(self, principal: Principal, tenant_id: UUID, *, limit: int) -> list[str]:
        """Return the accounts of verified connections that wait to switch, in order.

        Raises NotFoundError for an absent tenant.
        """
        with self._db.read() as db:
            tenant_of(db, principal, tenant_id)
            rotation = latest(db, tenant_id)
            if rotation is None or not rotation.is_open:
                return []
            accounts = waiting(rotation).with_only_columns(Connection.account_id).distinct()
            return list(db.scalars(accounts.order_by(Connection.account_id).limit(limit)))

    def accepted(self, connections: Sequence[Connection]) -> dict[UUID, datetime]:
        """Return since when each role of one tenant accepts what is to replace its External ID.

        The keys are connection ids. A connection whose role does not accept it is left out.
        """
        if not connections:
            return {}
        with self._db.read() as db:
            target = db.scalars(_replacing(connections[0].tenant_id)).first()
            checks = (
                select(ExternalIdCheck)
                .filter_by(external_id_id=target)
                .where(ExternalIdCheck.connection_id.in_([each.id for each in connections]))
            )
            return {
                check.connection_id: check.accepted_at
                for check in db.scalars(checks)
                if check.accepted_at
            }

    def complete(self, principal: Principal, tenant_id: UUID) -> RotationStatus:
        """Make the next External ID the current one, and the old one a retiring one.

        Raises NotFoundError. Raises ConflictError if no rotation is open, or while verified
        connections wait to switch.
        """
        with self._db.write(principal) as db:
            rotation = _open_rotation(db, principal, tenant_id)
            still_waiting = status_of(db, rotation).connections.waiting
            if still_waiting:
                raise ConflictError(
                    f"Verified connections that still have the old External ID: {still_waiting}."
                    " Their roles must accept the next one, for two minutes unless this is an"
                    " emergency."
                )
            _complete(db, principal.actor, rotation)
            settle(db, principal.actor, tenant_id)
            return status_of(db, rotation)

    def abandon(self, principal: Principal, tenant_id: UUID) -> None:
        """Retire the next External ID, and keep the old one as the current one.

        Raises NotFoundError. Raises ConflictError if no rotation is open, if a connection has
        switched, or if a bound key tries to abandon the vendor's rotation.
        """
        with self._db.write(principal) as db:
            rotation = _open_rotation(db, principal, tenant_id)
            if not (principal.is_vendor or rotation.by_bound):
                raise ConflictError("The vendor began this rotation, and has to abandon it.")
            switched = select(Connection.id).where(live_of(tenant_id), has_switched(rotation))
            if db.scalar(select(switched.exists())):
                raise ConflictError(
                    "A connection has switched to the next External ID, so this rotation can only"
                    " go on."
                )
            _become(db, rotation.new, ExternalIdState.RETIRED)
            if rotation.emergency:
                _give_back(db, rotation)
            _record(db, principal.actor, rotation, actions.ROTATION_ABANDONED)


def _replacing(tenant_id: UUID) -> Select[UUID]:
    """Select the next External ID and then the current one, whichever there is."""
    of_tenant = select(ExternalIdRow.id).filter_by(tenant_id=tenant_id)
    offered = of_tenant.where(
        ExternalIdRow.state.in_([ExternalIdState.NEXT, ExternalIdState.CURRENT])
    )
    return offered.order_by(ExternalIdRow.state != ExternalIdState.NEXT)


def current_external_id_id(db: Session, tenant_id: UUID) -> UUID:
    """Return the id of the tenant's current External ID, read from its row.

    `Tenant.current` may have been loaded before the wait for the tenant's lock.
    """
    of_tenant = select(ExternalIdRow.id).filter_by(tenant_id=tenant_id)
    return db.scalars(of_tenant.filter_by(state=ExternalIdState.CURRENT)).one()


def settle(db: Session, actor: Actor, tenant_id: UUID) -> None:
    """Advance the tenant's rotation as far as its proofs allow. The tenant's row must be locked."""
    _retire_imports(db, actor, tenant_id)
    rotation = latest(db, tenant_id)
    if rotation is None:
        return
    if rotation.is_open:
        if db.scalar(select(waiting(rotation).exists())):
            rotation.ready_at = None
        elif rotation.ready_at is None:
            rotation.ready_at = now()
            _record(db, actor, rotation, actions.ROTATION_READY)
        elif rotation.ready_at <= now() - _COMPLETES_AFTER:
            _complete_by_itself(db, actor, rotation)
    retiring = rotation.old.state is ExternalIdState.RETIRING
    if retiring and not db.scalar(select(_not_refused_twice(rotation).exists())):
        _retire(db, actor, rotation)


def _complete_by_itself(db: Session, actor: Actor, rotation: Rotation) -> None:
    """Complete the rotation, unless a role that was proven lately is left behind.

    It may be suspended or await approval, or refuse Deputy because of a mistake of ours. Retiring
    its External ID would then be up to the clock alone. A role that refuses for weeks is taken for
    lost.
    """
    suspended = Connection.status == ConnectionStatus.SUSPENDED
    left_behind = select(Connection.id).where(
        live_of(rotation.tenant_id),
        Connection.external_id_id == rotation.external_id_id,
        or_(
            _AWAITS_APPROVAL,
            (Connection.verified_at > rotation.started_at - _REPAIRED_WITHIN)
            & or_(suspended, Connection.verified_at > now() - _LOST_AFTER),
        ),
    )
    if not db.scalar(select(left_behind.exists())):
        _complete(db, actor, rotation)


def settle_all(database: Database) -> None:
    """Advance every open or retiring rotation, as `settle` does. Raises StoreUnavailableError.

    When a connection is deleted, a rotation may advance without a proof, and an imported External
    ID may retire.
    """
    rotating = select(ExternalIdRow.tenant_id).where(ROTATING)
    with database.read() as db:
        tenant_ids = {*db.scalars(rotating), *db.scalars(_unpaired_imports())}
    for tenant_id in tenant_ids:
        worker = SystemPrincipal(WORKER, tenant_id)
        with suppress(NotFoundError), database.write(worker) as db:
            tenant_of(db, worker, tenant_id, lock=True)
            settle(db, WORKER, tenant_id)


def _begin(db: Session, actor: Actor, tenant_id: UUID, earlier: Rotation | None) -> Rotation:
    if earlier is not None and earlier.old.state is ExternalIdState.RETIRING:
        unseen = db.scalars(_not_refused_twice(earlier).with_only_columns(func.count())).one()
        _retire(db, actor, earlier, unseen)
        # Nothing is issued for connections that are paired with the retired External ID. So they
        # are due now: a proof can pair them with another one.
        stopped = Connection.external_id_id == earlier.external_id_id
        _prove_awaited(db, tenant_id, stopped, now())
    current = current_external_id_id(db, tenant_id)
    new = ExternalIdRow(tenant_id=tenant_id, value=new_external_id(), state=ExternalIdState.NEXT)
    db.add(new)
    db.flush()
    rotation = Rotation(
        id=new_id(),
        tenant_id=tenant_id,
        external_id_id=current,
        next_external_id_id=new.id,
        emergency=False,
    )
    if earlier is not None:  # the clock of the earlier one's process may have been ahead
        rotation.id = max(rotation.id, UUID(int=earlier.id.int + 1))
    db.add(rotation)
    db.flush()
    db.refresh(rotation)
    _try_within_the_hour(db, tenant_id)
    return rotation


def _try_within_the_hour(db: Session, tenant_id: UUID) -> None:
    soon = now() + HOURLY
    _prove_awaited(db, tenant_id, Connection.due_at > soon, soon)


def _prove_awaited(
    db: Session, tenant_id: UUID, which: ColumnElement[bool], due_at: datetime
) -> None:
    """Make the tenant's verified connections that match `which` due at `due_at`."""
    verified = update(Connection).where(awaited(tenant_id), which)
    db.execute(verified.values(due_at=due_at, due_for=Trigger.ROTATION))


def _withdraw(db: Session, rotation: Rotation) -> None:
    """Stop issuing with every External ID but the next one.

    This raises the revocation counter.
    """
    rotation.emergency = True
    others = update(ExternalIdRow).where(
        ExternalIdRow.tenant_id == rotation.tenant_id,
        ExternalIdRow.id != rotation.next_external_id_id,
        ExternalIdRow.state != ExternalIdState.RETIRED,
        ExternalIdRow.withdrawn_at.is_(None),
    )
    db.execute(others.values(withdrawn_at=now()))


def _give_back(db: Session, rotation: Rotation) -> None:
    """Issue again with the External IDs that this emergency withdrew.

    One statement withdrew them, so they have the same time. Compare for equality only: an earlier
    emergency may have withdrawn others for good, by a clock that was ahead.
    """
    of_tenant = update(ExternalIdRow).filter_by(tenant_id=rotation.tenant_id)
    together = of_tenant.filter_by(withdrawn_at=rotation.old.withdrawn_at)
    db.execute(together.values(withdrawn_at=None))


def _open_rotation(db: Session, principal: Principal, tenant_id: UUID) -> Rotation:
    """Lock the tenant, and return its open rotation.

    Raises NotFoundError without a rotation, and ConflictError if the latest one has ended.
    """
    tenant_of(db, principal, tenant_id, lock=True)
    rotation = latest(db, tenant_id)
    if rotation is None:
        raise NotFoundError
    if not rotation.is_open:
        raise ConflictError("The latest rotation has ended; start another one.")
    return rotation


def _complete(db: Session, actor: Actor, rotation: Rotation) -> None:
    # The old one changes first, because a tenant has only one current External ID.
    _become(db, rotation.old, ExternalIdState.RETIRING)
    _become(db, rotation.new, ExternalIdState.CURRENT)
    _record(db, actor, rotation, actions.ROTATION_COMPLETED)
    _try_within_the_hour(db, rotation.tenant_id)


def _retire(db: Session, actor: Actor, rotation: Rotation, unseen: int = 0) -> None:
    """Retire the old External ID. `unseen`: how many roles Deputy has not seen refuse it."""
    _become(db, rotation.old, ExternalIdState.RETIRED)
    details: ExternalIdRetirement = {
        "external_id": rotation.old.value,
        "next_external_id": rotation.new.value,
    }
    if unseen:
        details["connections_not_seen_to_refuse_it"] = unseen
        details["warning"] = "Not every role was seen to refuse it."
    actions.EXTERNAL_ID_RETIRED.record(db, actor, details, rotation.tenant_id)


def _become(db: Session, row: ExternalIdRow, state: ExternalIdState) -> None:
    row.state = state
    row.retired_at = now() if state is ExternalIdState.RETIRED else None
    db.flush()


def _unpaired_imports(**of_tenant: UUID) -> CompoundSelect[UUID, UUID]:
    """Select tenant and id of the imported External IDs that no live connection has any more.

    PostgreSQL hashes or sorts for EXCEPT. With statistics from before an import it would run NOT
    EXISTS as a comparison of each External ID with each connection.
    """
    imports = select(ExternalIdRow.tenant_id, ExternalIdRow.id).where(IMPORTED)
    paired = select(Connection.tenant_id, Connection.external_id_id).where(
        Connection.status != ConnectionStatus.DELETED
    )
    return imports.filter_by(**of_tenant).except_(paired.filter_by(**of_tenant))


def _retire_imports(db: Session, actor: Actor, tenant_id: UUID) -> None:
    """Retire the tenant's imported External IDs that no live connection has any more."""
    unpaired = _unpaired_imports(tenant_id=tenant_id).limit(_RETIRED_AT_ONCE)
    for _, external_id_id in db.execute(unpaired).all():
        row = db.get_one(ExternalIdRow, external_id_id)
        _become(db, row, ExternalIdState.RETIRED)
        current = db.get_one(ExternalIdRow, current_external_id_id(db, tenant_id))
        retirement: ExternalIdRetirement = {
            "external_id": row.value,
            "next_external_id": current.value,
        }
        actions.EXTERNAL_ID_RETIRED.record(db, actor, retirement, tenant_id)


def _not_refused_twice(rotation: Rotation) -> Select[UUID]:
    """Select the connections that may still need the old External ID.

    A connection may need it until its role has refused it twice. One that is no longer verified
    counts for a day after its last successful proof. It may be repaired, because a mistake of ours
    can break connections too.
    """
    lost = and_(
        Connection.tenant_id == rotation.tenant_id,
        Connection.status.in_(_REPAIRABLE),
        Connection.external_id_id == rotation.external_id_id,
        or_(
            Connection.verified_at > now() - _REPAIRED_WITHIN,
            _AWAITS_APPROVAL & (Connection.tried_at > now() - _REPAIRED_WITHIN),
        ),
    )
    refused_twice = exists().where(
        ExternalIdCheck.connection_id == Connection.id,
        ExternalIdCheck.external_id_id == rotation.external_id_id,
        ExternalIdCheck.refused_again_at.is_not(None),
    )
    return select(Connection.id).where(awaited(rotation.tenant_id) | lost, ~refused_twice)


def _ids(rotation: Rotation) -> RotatedIds:
    return {"external_id": rotation.old.value, "next_external_id": rotation.new.value}


def _record(db: Session, actor: Actor, rotation: Rotation, action: Action[RotatedIds]) -> None:
    action.record(db, actor, _ids(rotation), rotation.tenant_id)
