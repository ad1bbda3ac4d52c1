"""The audit log: who did what, when, to which connection, and with what outcome.

Tenants see their events without the details of some actors (app/audit/visibility.py). The log
never contains a secret. `Action.record` writes into the caller's transaction, so a change and its
event are stored together or not at all. The events of issuances and refusals belong to no change.
They are stored by group commit, in transactions of their own.
"""

from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Select, and_, func, literal, select

from app.audit import Event
from app.audit.batch_insert import PATIENCE, AuditBatch
from app.audit.visibility import hide_actors
from app.clock import CLOCKS_APART
from app.concurrency.group_commit import GroupCommit
from app.errors import NotFoundError, ValidationFailedError
from app.ids import first_id_at
from app.store.database import LONGEST, Database, Session, database_now
from app.store.keyset import Page, page
from app.store.models import ISSUED, NOT_ISSUED, NOT_ISSUED_TO, AuditEvent, Connection

FEED_SECONDS = LONGEST + CLOCKS_APART  # no transaction can add an event that is older than this
ID_AND_TIME = timedelta(seconds=5)  # maximum difference of the time in an event's id and its `at`
_WINDOW = 5_000  # maximum of events that are read for a page whose filter has no index
_FEED_HAS_ALL = "A feed has all API keys; leave out either after or api_key_id."


class EventFilter(NamedTuple):
    """A filter for audit events. None and () match every event.

    `access_key_id` matches the events in which a process first handed out this session.
    """

    tenant_id: UUID | None = None
    connection_id: UUID | None = None
    actions: tuple[str, ...] = ()
    access_key_id: str | None = None
    api_key_id: UUID | None = None  # the API key that acted
    client_address: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def unindexed(self) -> list[ColumnElement[bool]]:
        """The conditions for which there is no index. Events must be read to check them."""
        conditions = []
        if self.api_key_id is not None:
            conditions += [
                AuditEvent.actor_kind == "api_key",
                AuditEvent.actor_id == str(self.api_key_id),
            ]
        if self.client_address is not None:
            conditions.append(AuditEvent.client_address == self.client_address)
        return conditions


class AuditLog:
    """Reads the log, and stores events that are not part of a change."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.batch = AuditBatch(db)
        self._group = GroupCommit(self.batch.commit)

    def append(self, event: Event, *, patience: float = PATIENCE) -> bool:
        """Store one event if it is still valid, and return whether it was stored.

        A stored event is durable when this method returns. `patience`: how many seconds to wait.
        Raises StoreUnavailableError.
        """
        return event.id not in self._group.add(event, patience)

    def events(
        self,
        tenant_scope: UUID | None,
        event_filter: EventFilter,
        *,
        limit: int,
        after: UUID | None,
        oldest_first: bool = False,
    ) -> Page[AuditEvent]:
        """Return a page of events after the event `after`, newest first.

        `tenant_scope`: the tenant that the reading principal is confined to, if any. The principal
        then sees only this tenant's events, and not all details of their actors. Raises
        NotFoundError for a filter with another tenant.

        With a filter by API key, address or `credentials.issued`, a page may be short or empty
        although more pages follow.

        With `oldest_first`, the pages are a feed. Ids sort by creation, but transactions commit in
        another order. So the feed shows an event only when it is older, by the database's clock,
        than any open transaction can be. After that no event with a lower id can appear, and a
        consumer that continues from its last event misses none. Raises ValidationFailedError for a
        filter without an index, because an empty page would have no last event to continue from.
        """
        unindexed = event_filter.unindexed
        if oldest_first and unindexed:
            raise ValidationFailedError(after=_FEED_HAS_ALL)
        if tenant_scope is not None and event_filter.tenant_id not in {None, tenant_scope}:
            raise NotFoundError
        event_filter = event_filter._replace(tenant_id=event_filter.tenant_id or tenant_scope)
        if ISSUED in event_filter.actions and not oldest_first:
            # The index by action omits issuances, so a tenant's refusals would all be read
            unindexed.append(AuditEvent.action.in_(event_filter.actions))
            event_filter = event_filter._replace(actions=())
        with self._db.read() as db:
            low, high = _ids(db, event_filter, after, oldest_first=oldest_first)
            if _is_in_vain(db, event_filter):
                return Page([], None)
            query, either = _matching(event_filter, oldest_first=oldest_first)
            query = query.where(AuditEvent.id < high)
            last = None
            if unindexed:
                last = _end_of_window(db, query.where(AuditEvent.id > low))
            events = page(
                db,
                query.where(AuditEvent.id > (last or low), *unindexed),
                AuditEvent.id,
                limit=limit,
                after=None,
                either=either,
                oldest_first=oldest_first,
            )
            if last is not None and events.after is None:
                events = events._replace(after=UUID(int=last.int + 1))
            if tenant_scope is not None:
                hide_actors(db, events.items)
            return events


# The columns with an index that also sorts by id. The first of them that is in a filter decides
# which index a query uses.
_OWNERS: tuple[Any, ...] = (
    AuditEvent.access_key_id,
    AuditEvent.connection_id,
    AuditEvent.tenant_id,
)


def _matching(
    event_filter: EventFilter, *, oldest_first: bool
) -> tuple[Select[AuditEvent], list[ColumnElement[bool]]]:
    """Select the events in one range of an index. `EventFilter.unindexed` narrows it further.

    If the filter has several actions, return one condition for each of them as well.
    """
    query, in_order = select(AuditEvent), False
    for column in _OWNERS:
        value = getattr(event_filter, column.key)
        if value is None:
            continue
        if in_order:  # "(…) IS true" keeps the database from using this column's index
            query = query.where((column == value).is_(True))
        else:
            order = column.asc() if oldest_first else column.desc()
            query, in_order = query.where(_is_first(column, value)).order_by(order), True
    if event_filter.since is not None:
        query = query.where(AuditEvent.at >= event_filter.since)
    if event_filter.until is not None:
        query = query.where(AuditEvent.at < event_filter.until)
    either = [_has_action(event_filter, action) for action in event_filter.actions]
    if len(either) == 1:
        query = query.where(either.pop())
    return query, either


def _has_action(event_filter: EventFilter, action: str) -> ColumnElement[bool]:
    condition = AuditEvent.action == action
    if action == ISSUED or event_filter.access_key_id is not None:
        return condition
    # NOT_ISSUED and NOT_ISSUED_TO are always true here. A query must contain the condition of a
    # partial index to use that index.
    owned = event_filter.connection_id or event_filter.tenant_id
    return and_(condition, NOT_ISSUED_TO if owned else NOT_ISSUED)


def _end_of_window(db: Session, query: Select[AuditEvent]) -> UUID | None:
    """Return an id below which no event is read for one page; None if the query selects few events.

    At most _WINDOW events are read. A statement that reads a long range to its end could exceed the
    statement timeout.
    """
    ids = query.with_only_columns(AuditEvent.id).order_by(AuditEvent.id.desc())
    last = db.scalar(ids.offset(_WINDOW - 1).limit(1))
    return last and UUID(int=last.int - 1)


def _ids(
    db: Session, event_filter: EventFilter, after: UUID | None, *, oldest_first: bool
) -> tuple[UUID, UUID]:
    """Return the ids between which the events of the next page lie. Both ids are exclusive.

    There is no index by time, but an id begins with the time, and every index ends with the id.
    """
    low, high = UUID(int=0), UUID(int=2**128 - 1)
    if event_filter.since is not None:
        low = UUID(int=max(0, first_id_at(event_filter.since - ID_AND_TIME).int - 1))
    if event_filter.until is not None:
        high = first_id_at(event_filter.until + ID_AND_TIME)
    if not oldest_first:
        return low, min(after or high, high)
    # The clock is read before the events. So every transaction that could add an event older than
    # `settled` has ended when the events are read.
    settled = first_id_at(database_now(db) - timedelta(seconds=FEED_SECONDS))
    return max(after or low, low), min(high, settled)


def _is_first(column: Any, value: Any) -> Any:
    """Return the condition that the column has this value, for a query sorted by column and id.

    It is `column = ANY(ARRAY[value])`. For `column = value` the planner knows that
    the column is constant. If the owner has many events, it may then scan the index of the ids
    alone, which reads all newer events of other owners first. With the array the planner does not
    know that the column is constant, and uses the index by column and id.
    """
    return column == func.any(literal([value], ARRAY(column.type)))


def _is_in_vain(db: Session, event_filter: EventFilter) -> bool:
    """Return whether the filter combines a tenant with another tenant's connection.

    Such a filter matches nothing, but a query would read all events of the connection.
    """
    if event_filter.tenant_id is None or event_filter.connection_id is None:
        return False
    owner = db.scalar(
        select(Connection.tenant_id).where(Connection.id == event_filter.connection_id)
    )
    return owner not in {None, event_filter.tenant_id}
