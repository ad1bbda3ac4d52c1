"""Lists of connections: those of a tenant, and those of all tenants, newest first."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import case, false, func, or_, select

from app.connections.urgency import ByUrgency, ListPosition, page_by_urgency
from app.identity import Principal, owned, tenant_of
from app.permissions.permission_sets import PermissionSets
from app.store.database import Database
from app.store.keyset import Page, page, with_values
from app.store.models import (
    LIVE,
    Connection,
    ConnectionStatus,
    ExternalIdOrigin,
    ExternalIdRow,
    Proof,
    live_of,
    live_ranges_of,
)
from app.store.models.external_id import IMPORTED


class ConnectionFilter(NamedTuple):
    """The filter of a list of connections. An empty field matches any connection.

    A connection must match every field. It matches `statuses` if it is in one of them.
    """

    statuses: tuple[ConnectionStatus, ...] = ()
    account_id: str | None = None
    role_arn: str | None = None  # give `account_id` too: only that has an index
    connection_id: UUID | None = None
    tenant_id: UUID | None = None  # only the vendor may leave it out
    # There is no index for these two, so one page may read all connections.
    update_available: bool | None = None
    external_id_origin: ExternalIdOrigin | None = None


@dataclass
class Listing:
    """Lists and counts connections."""

    _db: Database
    _sets: PermissionSets

    def has_update(self, connection: Connection) -> bool:
        """Return whether the role needs an update, to a newer version or another permission set."""
        name, version = connection.permission_set, connection.permission_set_version
        return connection.move_id is not None or self._sets.is_outdated(name, version)

    def list(
        self, principal: Principal, criteria: ConnectionFilter, *, limit: int, after: UUID | None
    ) -> Page[Connection]:
        """Return connections, newest first.

        Raises NotFoundError for another tenant, and ForbiddenError for a bound key if no tenant is
        given.
        """
        unindexed = criteria.update_available is not None or criteria.external_id_origin is not None
        # An account and a connection have indexes of their own
        in_parts = not (criteria.account_id or criteria.connection_id or unindexed)
        either = []
        if criteria.tenant_id is None and (in_parts or criteria.statuses):
            either = [Connection.status == status for status in criteria.statuses or LIVE]
        elif criteria.tenant_id is not None and in_parts:
            either = live_ranges_of(criteria.tenant_id)
        query = with_values(
            select(Connection).where(Connection.status != ConnectionStatus.DELETED),
            tenant_id=criteria.tenant_id,
            account_id=criteria.account_id,
            role_arn=criteria.role_arn,
            id=criteria.connection_id,
        )
        if criteria.statuses:
            query = query.where(Connection.status.in_(criteria.statuses))
        if criteria.update_available is not None:
            # `has_update` in SQL. `outdated` is NULL for an unknown permission set or version.
            current = case(self._sets.versions, value=Connection.permission_set)
            outdated = Connection.permission_set_version < current
            has_update = func.coalesce(Connection.move_id.is_not(None) | outdated, false())
            query = query.where(has_update == criteria.update_available)
        if criteria.external_id_origin is not None:
            imported = Connection.external_id_id.in_(select(ExternalIdRow.id).where(IMPORTED))
            is_wanted = criteria.external_id_origin is ExternalIdOrigin.IMPORTED
            query = query.where(imported if is_wanted else ~imported)
        with self._db.read() as db:
            if criteria.tenant_id is None:
                principal.require_vendor()
            else:
                tenant_of(db, principal, criteria.tenant_id)
            return page(db, query, Connection.id, limit=limit, after=after, either=either)

    def list_proofs(
        self,
        principal: Principal,
        tenant_id: UUID,
        connection_id: UUID,
        *,
        limit: int,
        after: UUID | None,
    ) -> Page[Proof]:
        """Return one connection's proofs, newest first. Raises NotFoundError."""
        with self._db.read() as db:
            owned(db, principal, tenant_id, connection_id)
            query = select(Proof).filter_by(connection_id=connection_id)
            return page(db, query, Proof.id, limit=limit, after=after)

    def list_by_urgency(
        self,
        principal: Principal,
        tenant_id: UUID,
        *,
        limit: int,
        start: ListPosition | None,
        among: Collection[ConnectionStatus],
    ) -> ByUrgency:
        """Return a page of one tenant's connections (`page_by_urgency`). Raises NotFoundError."""
        with self._db.read() as db:
            tenant_of(db, principal, tenant_id)
            return page_by_urgency(db, tenant_id, limit=limit, start=start, among=among)

    def list_others(
        self,
        principal: Principal,
        tenant_id: UUID,
        *,
        role_name: str,
        permission_set: str,
        limit: int,
    ) -> Sequence[Connection]:
        """Return some of one tenant's roles that are imported, or have another name or set.

        They are in order of their ARNs. Raises NotFoundError.
        """
        other = or_(
            Connection.external_id_id.in_(select(ExternalIdRow.id).where(IMPORTED)),
            ~Connection.role_arn.endswith(f"/{role_name}", autoescape=True),
            Connection.permission_set != permission_set,
            Connection.tagged_set.is_not(None),
            Connection.stack_set.is_not(None),
        )
        query = select(Connection).where(live_of(tenant_id), other)
        with self._db.read() as db:
            tenant_of(db, principal, tenant_id)
            return sorted(db.scalars(query.limit(limit)), key=attrgetter("role_arn"))

    def summary(self, principal: Principal, tenant_id: UUID) -> dict[ConnectionStatus, int]:
        """Return how many connections a tenant has in each status.

        Statuses without connections are left out. Raises NotFoundError.
        """
        counts = (
            select(Connection.status, func.count())
            .where(live_of(tenant_id))
            .group_by(Connection.status)
        )
        with self._db.read() as db:
            tenant_of(db, principal, tenant_id)
            return dict(db.execute(counts).all())
