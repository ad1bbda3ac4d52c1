"""The order of a tenant's connections on the onboarding page: the most urgent first."""

import enum
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select

from app.store.database import Session
from app.store.models import Connection, ConnectionStatus


class Urgency(enum.Enum):
    """The urgency of a connection, highest first. Problems that the customer can repair come first.

    Each value is a status and a value of `Connection.refuses`. Together they are one range of an
    index.
    """

    INSECURE = ConnectionStatus.INSECURE, False
    BROKEN = ConnectionStatus.BROKEN, False
    REFUSED = ConnectionStatus.PENDING, True
    WAITING = ConnectionStatus.PENDING, False
    CONNECTED = ConnectionStatus.VERIFIED, False
    ENDED = ConnectionStatus.ENDED, False
    PAUSED = ConnectionStatus.SUSPENDED, False


@dataclass(frozen=True)
class ListPosition:
    """The position at which the next page of a list by urgency begins.

    The page begins after the connection `after`, or with the first connection of this urgency. The
    position contains the urgency, because the connection's urgency may change between two pages.
    """

    urgency: Urgency
    after: UUID | None = None

    @classmethod
    def parse(cls, text: str) -> "ListPosition | None":
        """Parse a position's text form. Returns None for any other text."""
        match = _POSITION.fullmatch(text)
        if match is None:
            return None
        return cls(Urgency[match[1].upper()], UUID(match[2]) if match[2] else None)

    def __str__(self) -> str:
        return self.urgency.name.lower() + (f"-{self.after.hex}" if self.after else "")


class ByUrgency(NamedTuple):
    """A page of a list by urgency. `rest`: where the next page begins; None on the last page."""

    items: list[Connection]
    rest: ListPosition | None


_POSITION = re.compile(f"({'|'.join(Urgency.__members__).lower()})(?:-([0-9a-f]{{32}}))?", re.ASCII)


def page_by_urgency(
    db: Session,
    tenant_id: UUID,
    *,
    limit: int,
    start: ListPosition | None,
    among: Collection[ConnectionStatus],
) -> ByUrgency:
    """Return one tenant's connections, the most urgent first, then newest first.

    `among`: the statuses that the tenant's connections have, or more. Each status costs a query.
    """
    start = start or ListPosition(Urgency.INSECURE)
    urgencies, connections = list(Urgency), list[Connection]()
    for urgency in urgencies[urgencies.index(start.urgency) :]:
        status, refuses = urgency.value
        if len(connections) <= limit and status in among:
            # This query reads one range of an index in order, and no other rows
            query = select(Connection).filter_by(
                tenant_id=tenant_id, status=status, refuses=refuses
            )
            if start.after and urgency is start.urgency:
                query = query.where(Connection.id < start.after)
            query = query.order_by(Connection.id.desc())
            connections += db.scalars(query.limit(limit + 1 - len(connections))).unique()
    rest = None
    if len(connections) > limit:
        last = connections[limit - 1]
        rest = ListPosition(Urgency((last.status, last.refuses)), last.id)
    return ByUrgency(connections[:limit], rest)
