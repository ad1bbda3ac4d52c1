"""Connections: a tenant's links to IAM roles, from the day they are given to us to the day they are deleted.

Which roles may be given at all is decided here, before any call to AWS (invariant 7). A new connection is pending
until a proof says otherwise, and so is one that is resumed.
"""

import enum
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.access.callers import Caller
from app.access.tenancy import owned, tenant_of
from app.audit import log as audit
from app.clock import now
from app.config import Config
from app.connections.proof import PATIENCE, Verification
from app.errors import (
    FULL_RETRY_SECONDS,
    ConflictError,
    RateLimitedError,
    RoleNotAllowedError,
    ValidationFailedError,
)
from app.ids import RoleArn, kit_role_name
from app.permissions import permission_sets
from app.permissions.permission_sets import PermissionSet
from app.store.database import Database
from app.store.models import Connection, ConnectionStatus, ExternalIdRow, ExternalIdState, Tenant
from app.store.pages import Page, page
from app.tenants.accounts import is_declared

# Roles under these paths belong to AWS services and to IAM Identity Center; no customer makes one for a vendor.
_MOST_SOUGHT = 50
# The request that makes a connection proves it as well. The worker leaves it alone meanwhile, and takes over when the
# request never came to its end.
_OWN_PROOF = timedelta(seconds=30)
_THERE_ALREADY = "This tenant has a connection to this role already."
_RESERVED_PATHS = ("/aws-service-role/", "/aws-reserved/")


def allowed_role(config: Config, text: str) -> RoleArn:
    """The role ARN, if Deputy may ever assume it. Raises ValidationFailedError or RoleNotAllowedError."""
    try:
        role = RoleArn.parse(text)
    except ValueError as error:
        raise ValidationFailedError({"role_arn": [str(error)]}) from error
    if role.partition != config.broker.partition:
        raise RoleNotAllowedError(
            f"This deployment serves the partition {config.broker.partition}; a role can't be assumed across partitions."
        )
    if role.account_id in config.vendor_account_ids:
        raise RoleNotAllowedError("A role in one of the vendor's own accounts is never assumed.")
    if role.path.startswith(_RESERVED_PATHS):
        raise RoleNotAllowedError("Service-linked and AWS-reserved roles are never assumed.")
    if not role.name.startswith(config.role_prefix):
        raise RoleNotAllowedError(f"The role's name must start with {config.role_prefix}")
    return role


def add_pending(
    db: Session, config: Config, tenant: Tenant, role: RoleArn, chosen: PermissionSet, *, approved: bool
) -> Connection:
    """A new row, pending and due at once. The tenant's row must be locked.

    `approved`: the vendor itself asks for it. Otherwise a set that writes needs the vendor's word, unless the account is
    declared: its role could be in an account of somebody else's, and the product would write the tenant's data there.
    Raises RateLimitedError when the tenant is full, and RoleNotAllowedError for an account that it does not declare.
    """
    tenant_id = tenant.id
    declared = is_declared(db, tenant, role.account_id, vendor=config.vendor_name)
    _ensure_room(db, tenant_id, config.max_connections)
    external_id = db.scalars(
        select(ExternalIdRow).where(
            ExternalIdRow.tenant_id == tenant_id, ExternalIdRow.state == ExternalIdState.CURRENT
        )
    ).one()
    connection = Connection(
        tenant_id=tenant_id,
        external_id_id=external_id.id,
        role_arn=role.text,
        account_id=role.account_id,
        permission_set=chosen.name,
        awaiting_approval=chosen.access == "write" and not (approved or declared),
    )
    db.add(connection)
    db.flush()
    return connection


def _ensure_room(db: Session, tenant_id: UUID, limit: int) -> None:
    """The tenant's row is locked by now, so two at once can't both take the last place."""
    live = select(func.count()).where(Connection.tenant_id == tenant_id, Connection.status != ConnectionStatus.DELETED)
    if (db.scalar(live) or 0) >= limit:
        raise RateLimitedError(
            f"A tenant may have {limit} connections; delete one first.", retry_after=FULL_RETRY_SECONDS
        )


def _ensure_few_sought(db: Session, tenant_id: UUID) -> None:
    searches = select(func.count()).where(
        Connection.tenant_id == tenant_id,
        Connection.sought,
        Connection.status == ConnectionStatus.PENDING,
        Connection.due_at.is_not(None),
    )
    if (db.scalar(searches) or 0) >= _MOST_SOUGHT:
        raise RateLimitedError(
            f"Roles are looked for in at most {_MOST_SOUGHT} accounts of a tenant at once; delete one that is pending,"
            " or give the ARN of a role that is there.",
            retry_after=FULL_RETRY_SECONDS,
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which connections to list; nothing means any. `statuses`: those in one of them."""

    statuses: tuple[ConnectionStatus, ...] = ()
    account_id: str | None = None
    role_arn: str | None = None


class Standing(enum.IntEnum):
    """Who has something to mend, and who only waits: a pending role has refused us, or was not tried to the end yet."""

    INSECURE = 0
    BROKEN = 1
    REFUSED = 2
    WAITING = 3
    CONNECTED = 4
    PAUSED = 5


@dataclass(frozen=True, slots=True)
class Place:
    """Where a list by standing goes on: after this connection, or where the standing begins.

    It holds the standing, as that may have changed since: what is proven meanwhile must not move the rest of the list.
    """

    standing: Standing
    after: UUID | None = None

    @classmethod
    def parse(cls, text: str) -> "Place | None":
        """From `str()` of one; None for anything else."""
        found = _PLACE.fullmatch(text)
        if found is None:
            return None
        return cls(Standing[found[1].upper()], UUID(found[2]) if found[2] else None)

    def __str__(self) -> str:
        return self.standing.name.lower() + (f"-{self.after.hex}" if self.after else "")


@dataclass(frozen=True, slots=True)
class ByStanding:
    """Some of a tenant's connections, and where the rest of them begins (None after the last)."""

    items: list[Connection]
    rest: Place | None


_PLACE = re.compile(f"({'|'.join(s.name.lower() for s in Standing)})(?:-([0-9a-f]{{32}}))?", re.ASCII)
_IN_STANDING = {  # status, and whether it refuses: each is one range of an index
    Standing.INSECURE: (ConnectionStatus.INSECURE, False),
    Standing.BROKEN: (ConnectionStatus.BROKEN, False),
    Standing.REFUSED: (ConnectionStatus.PENDING, True),
    Standing.WAITING: (ConnectionStatus.PENDING, False),
    Standing.CONNECTED: (ConnectionStatus.VERIFIED, False),
    Standing.PAUSED: (ConnectionStatus.SUSPENDED, False),
}


class Connections:
    """Create, list, read, suspend, resume and delete connections."""

    def __init__(
        self, db: Database, verification: Verification, config: Config, sets: dict[str, PermissionSet]
    ) -> None:
        self._db = db
        self._verification = verification
        self._config = config
        self._sets = sets

    def seek(
        self, caller: Caller, tenant_id: UUID, *, account_id: str, permission_set: str | None = None
    ) -> Connection:
        """A pending connection to the kit's role in that account, which Deputy looks for by itself from now on.

        An account without the role, and one whose role refuses us, look the same (AWS says the same of both). Raises
        as `create` does, and RateLimitedError when too many roles are looked for: or a tenant could scan accounts.
        """
        role = allowed_role(self._config, self.kit_role(tenant_id, account_id))
        chosen = permission_sets.choose(self._sets, permission_set)
        with self._new(caller) as db:
            connection_id = self._insert(db, caller, tenant_id, role, chosen, sought=True)
        return self.get(caller, tenant_id, connection_id)

    def kit_role(self, tenant_id: UUID, account_id: str) -> str:
        """The ARN of the onboarding kit's role in that account."""
        name = kit_role_name(self._config.role_prefix, tenant_id)
        return f"arn:{self._config.broker.partition}:iam::{account_id}:role/{name}"

    def create(
        self, caller: Caller, tenant_id: UUID, *, role_arn: str, permission_set: str | None = None
    ) -> Connection:
        """A new connection, proven once before it is returned (pending, if the proof did not succeed).

        Raises ValidationFailedError, RoleNotAllowedError, NotFoundError, SuspendedError, and ConflictError when the
        tenant has this role already. A deleted connection to the same role is forgotten: this is a new one.
        """
        role = allowed_role(self._config, role_arn)
        chosen = permission_sets.choose(self._sets, permission_set)
        with self._new(caller) as db:
            connection_id = self._insert(db, caller, tenant_id, role, chosen)
        return self._verification.verify(caller, tenant_id, connection_id, patience=PATIENCE)

    @contextmanager
    def _new(self, caller: Caller) -> Iterator[Session]:
        try:
            with self._db.write(caller) as db:
                yield db
        except IntegrityError as error:  # two at once: the unique (tenant, role) lets one in
            raise ConflictError(_THERE_ALREADY) from error

    def _insert(
        self,
        db: Session,
        caller: Caller,
        tenant_id: UUID,
        role: RoleArn,
        chosen: PermissionSet,
        *,
        sought: bool = False,
    ) -> UUID:
        tenant = tenant_of(db, caller, tenant_id, lock=True)
        tenant.ensure_active()
        earlier = db.scalars(
            select(Connection).where(Connection.tenant_id == tenant_id, Connection.role_arn == role.text)
        ).one_or_none()
        if earlier is not None:
            if earlier.status is not ConnectionStatus.DELETED:
                raise ConflictError(_THERE_ALREADY)
            if caller.kind != "api_key":
                raise ConflictError("This connection was removed. Ask whoever sent you the link to add it again.")
            db.delete(earlier)  # the tombstone; only this call, by the vendor, clears one (invariant 12)
            db.flush()
        connection = add_pending(db, self._config, tenant, role, chosen, approved=caller.tenant_id is None)
        if sought:
            _ensure_few_sought(db, tenant_id)
            connection.sought = True
            connection.seek(now())
        else:
            connection.due_at = now() + _OWN_PROOF
        self._record(db, caller, connection, "connection.created", {"role_arn": role.text})
        return connection.id

    def list(
        self, caller: Caller, tenant_id: UUID, wanted: Wanted, *, limit: int, after: UUID | None
    ) -> Page[Connection]:
        """One tenant's connections, newest first. Raises NotFoundError."""
        with self._db.read() as db:
            tenant_of(db, caller, tenant_id)
            query = _live(wanted).where(Connection.tenant_id == tenant_id)
            if wanted.statuses:  # there are at most some thousand to look through
                query = query.where(Connection.status.in_(wanted.statuses))
            return page(db, query, Connection.id, limit=limit, after=after)

    def list_by_standing(self, caller: Caller, tenant_id: UUID, *, limit: int, start: Place | None) -> "ByStanding":
        """One tenant's connections, those with something to mend first, then newest first. Raises NotFoundError."""
        found: list[tuple[Standing, Connection]] = []
        with self._db.read() as db:
            tenant_of(db, caller, tenant_id)
            for standing in Standing:
                if len(found) <= limit and (start is None or standing >= start.standing):
                    after = start.after if start and standing == start.standing else None
                    query = _in_standing(tenant_id, standing, after).limit(limit + 1 - len(found))
                    found += [(standing, connection) for connection in db.scalars(query).unique()]
        more, found = len(found) > limit, found[:limit]
        rest = Place(found[-1][0], found[-1][1].id) if more else None
        return ByStanding([connection for _, connection in found], rest)

    def summary(self, caller: Caller, tenant_id: UUID) -> dict[ConnectionStatus, int]:
        """How many connections a tenant has in each status; those that it has none in are left out. Raises NotFoundError."""
        counts = (
            select(Connection.status, func.count().label("n"))
            .where(Connection.tenant_id == tenant_id, Connection.status != ConnectionStatus.DELETED)
            .group_by(Connection.status)
        )
        with self._db.read(long=True) as db:
            tenant_of(db, caller, tenant_id)
            return {row.status: row.n for row in db.execute(counts)}

    def list_all(self, caller: Caller, wanted: Wanted, *, limit: int, after: UUID | None) -> Page[Connection]:
        """Across tenants, newest first. Raises ForbiddenError for a bound key."""
        caller.require_unbound()
        with self._db.read() as db:
            either = [Connection.status == status for status in wanted.statuses]
            return page(db, _live(wanted), Connection.id, limit=limit, after=after, either=either)

    def get(self, caller: Caller, tenant_id: UUID, connection_id: UUID) -> Connection:
        with self._db.read() as db:
            return owned(db, caller, tenant_id, connection_id)

    def suspend(self, caller: Caller, tenant_id: UUID, connection_id: UUID, *, reason: str) -> Connection:
        """Stops issuing at once. Raises NotFoundError, ConflictError."""
        with self._db.write(caller) as db:
            connection = owned(db, caller, tenant_id, connection_id, lock=True)
            connection.suspend(caller.suspension(reason))
            self._record(db, caller, connection, "connection.suspended", {"reason": reason})
            return connection

    def resume(self, caller: Caller, tenant_id: UUID, connection_id: UUID, *, reason: str) -> Connection:
        """Back to pending, then proven once before it is returned: much may have changed meanwhile.

        Raises NotFoundError, SuspendedError, ConflictError, and RateLimitedError when too many roles are looked for.
        """
        with self._db.write(caller) as db:
            tenant = tenant_of(db, caller, tenant_id, lock=True)  # before its connection, as everywhere
            connection = owned(db, caller, tenant_id, connection_id, lock=True)
            tenant.ensure_active()  # or it could not be proven below
            connection.ensure_may_undo(bound=caller.tenant_id is not None)
            never_proven = connection.sought and connection.verified_at is None
            if never_proven and connection.status is ConnectionStatus.SUSPENDED:
                _ensure_few_sought(db, tenant_id)  # or many would pile up beside others, to be resumed together
            connection.resume()
            connection.due_at = now() + _OWN_PROOF
            self._record(db, caller, connection, "connection.resumed", {"reason": reason})
        return self._verification.verify(caller, tenant_id, connection_id)

    def approve(self, caller: Caller, tenant_id: UUID, connection_id: UUID) -> Connection:
        """The vendor's word for a connection that may write. Raises NotFoundError, ForbiddenError, ConflictError."""
        with self._db.write(caller) as db:
            connection = owned(db, caller, tenant_id, connection_id, lock=True)
            caller.require_unbound()
            connection.approve(now())
            self._record(db, caller, connection, "connection.approved", {"status": connection.status.value})
            return connection

    def delete(self, caller: Caller, tenant_id: UUID, connection_id: UUID) -> None:
        """Issuing stops at once; the row stays as a tombstone."""
        with self._db.write(caller) as db:
            connection = owned(db, caller, tenant_id, connection_id, lock=True)
            connection.ensure_may_undo(bound=caller.tenant_id is not None)
            connection.delete(now())
            self._record(db, caller, connection, "connection.deleted", {"role_arn": connection.role_arn})

    def _record(
        self, db: Session, caller: Caller, connection: Connection, action: str, details: dict[str, str]
    ) -> None:
        audit.record(
            db,
            caller.actor,
            action,
            tenant_id=connection.tenant_id,
            connection_id=connection.id,
            details=details,
        )


def _in_standing(tenant_id: UUID, standing: Standing, after: UUID | None) -> Select[Connection]:
    """One range of one index, in its order: its cost is that of the rows that are taken."""
    status, refuses = _IN_STANDING[standing]
    query = select(Connection).where(
        Connection.tenant_id == tenant_id,
        Connection.status == status,
        Connection.refuses.is_(refuses),
    )
    if after is not None:
        query = query.where(Connection.id < after)
    return query.order_by(Connection.id.desc())


def _live(wanted: Wanted) -> Select[Connection]:
    query = select(Connection).where(Connection.status != ConnectionStatus.DELETED)
    if wanted.account_id is not None:
        query = query.where(Connection.account_id == wanted.account_id)
    if wanted.role_arn is not None:
        query = query.where(Connection.role_arn == wanted.role_arn)
    return query
