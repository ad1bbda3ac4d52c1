"""Lists of connections: a tenant's, across tenants, and those with something to mend first."""

import enum
import re
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Select, func, select

from app.access.callers import Caller
from app.access.tenancy import tenant_of
from app.store.database import Database
from app.store.models import Connection, ConnectionStatus
from app.store.pages import Page, page


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which connections to list; nothing means any. `statuses`: those in one of them."""

    statuses: tuple[ConnectionStatus, ...] = ()
    account_id: str | None = None


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


class Listing:
    """Lists and counts connections."""

    def __init__(self, db: Database) -> None:
        self._db = db

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
    return query
