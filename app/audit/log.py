"""The audit log: who did what, when, to which connection, and with what outcome.

It never holds a secret. `Action.record` writes into the caller's transaction, so a change and its
event are stored together or not at all. Events that change nothing (issuances, refusals) are stored
alone, by group commit.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Select, and_, func, literal, select

from app.audit.events import Event
from app.audit.insert import AuditBatch
from app.audit.visibility import hide_actors
from app.concurrency.group_commit import GroupCommit
from app.errors import NotFoundError, ValidationFailedError
from app.ids import first_id_at
from app.store.database import CLOCKS_APART, LONGEST, Database, Session, database_now
from app.store.models import ISSUED, NOT_ISSUED, NOT_ISSUED_TO, AuditEvent, Connection
from app.store.pages import Page, page
from app.store.revocation_log import RevocationLog

FEED_SECONDS = LONGEST + CLOCKS_APART  # until no open transaction can add an older event
ID_AND_TIME = timedelta(seconds=5)  # upper bound of the time between an event's id and its time
PATIENCE = 1.5  # seconds to wait for a group commit
_WINDOW = 5_000  # upper bound of the events read for a page whose filter has no index


class EventFilter(NamedTuple):
    """A filter for audit events; None and () match any.

    `access_key_id`: matches the events that handed out this session for the first time.
    """

    tenant_id: UUID | None = None
    connection_id: UUID | None = None
    actions: tuple[str, ...] = ()
    access_key_id: str | None = None
    api_key_id: UUID | None = None  # the actor's
    client_address: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def has_no_index(self) -> bool:
        """Whether events must be read to match them."""
        return self.api_key_id is not None or self.client_address is not None


class AuditLog:
    """Reads the log, and stores events that belong to no other transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._batch = AuditBatch(db)
        self._group = GroupCommit(self._batch.commit)

    @property
    def history(self) -> RevocationLog:
        """The revocations up to this process's last commit."""
        return self._batch.history

    def append(self, event: Event, *, patience: float = PATIENCE) -> bool:
        """Store one event if it is still valid, and return whether it was stored.

        A stored event is durable when this returns. Raises StoreUnavailableError.
        """
        return event.id not in self._group.add(event, patience)

    def events(
        self, tenant_scope: UUID | None, wanted: EventFilter, *, limit: int, after: UUID | None
    ) -> Page[AuditEvent]:
        """Return a page of events, newest first.

        `tenant_scope`: of the principal that reads. It sees only that tenant's events, and of their
        actors what app/audit/visibility.py lists. Raises NotFoundError when it asks for another
        tenant's.

        With a filter by API key or address, a page before the last one may be short or empty.
        """
        wanted = _as_allowed(tenant_scope, wanted)
        with self._db.read(long=True) as db:
            if _is_in_vain(db, wanted):
                return Page([], None)
            before, end = _ids(wanted)
            first, last = min(after or end, end), None
            if wanted.has_no_index:
                last = _end_of_window(db, wanted, before, first)
            query = _matching(db, wanted).where(
                AuditEvent.id > (last or before), *_without_index(wanted)
            )
            found = page(db, query, AuditEvent.id, limit=limit, after=first, either=_either(wanted))
            if found.after is None:
                found = found._replace(after=last and UUID(int=last.int + 1))
            return hide_actors(db, tenant_scope, found)

    def feed(
        self, tenant_scope: UUID | None, wanted: EventFilter, *, limit: int, after: UUID
    ) -> Page[AuditEvent]:
        """Return a page of events, oldest first, from the event that follows `after`.

        Otherwise as `events`. Ids are in order of creation, but transactions commit in another
        order. An event is therefore shown once it is older, by the database's clock, than any open
        transaction can be. No event with a lower id appears later. A consumer that continues from
        its last event misses none.

        Raises ValidationFailedError for a filter without an index: an empty page would have no last
        event to continue from.
        """
        if wanted.has_no_index:
            raise ValidationFailedError(
                {"after": ["A feed has all API keys; leave out either after or api_key_id."]}
            )
        wanted = _as_allowed(tenant_scope, wanted)
        with self._db.read(long=True) as db:
            if _is_in_vain(db, wanted):
                return Page([], None)
            # The clock is read first: transactions that were open then have ended when the events
            # are read.
            settled = database_now(db) - timedelta(seconds=FEED_SECONDS)
            before, end = _ids(wanted)
            query = _matching(db, wanted, oldest_first=True).where(
                AuditEvent.id < min(end, first_id_at(settled))
            )
            first, either = max(after, before), _either(wanted)
            found = page(
                db, query, AuditEvent.id, limit=limit, after=first, either=either, oldest_first=True
            )
            return hide_actors(db, tenant_scope, found)


def _as_allowed(tenant_scope: UUID | None, wanted: EventFilter) -> EventFilter:
    """Return the filter confined to the scope of the principal that reads.

    Raises NotFoundError for another tenant's events.
    """
    if tenant_scope is not None and wanted.tenant_id not in {None, tenant_scope}:
        raise NotFoundError
    return wanted._replace(tenant_id=wanted.tenant_id or tenant_scope)


def _matching(
    db: Session, wanted: EventFilter, *, oldest_first: bool = False
) -> Select[AuditEvent]:
    """Select one range of an index, which `_either` and `_without_index` narrow further."""
    query, owner = select(AuditEvent), _owner(wanted)
    for name in ("access_key_id", "connection_id", "tenant_id"):
        column, value = getattr(AuditEvent, name), getattr(wanted, name)
        if value is not None and column is owner:
            query = query.where(_is_first(db, column, value)).order_by(
                column.asc() if oldest_first else column.desc()
            )
        elif value is not None:  # compared with true, so that no index is used for it
            query = query.where((column == value).is_(True))
    if len(wanted.actions) == 1:
        query = query.where(_has_action(wanted, wanted.actions[0]))
    if wanted.since is not None:
        query = query.where(AuditEvent.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(AuditEvent.at < wanted.until)
    return query


def _owner(wanted: EventFilter) -> Any:
    """Return the column whose index has the events in order, or None for the id alone."""
    if wanted.access_key_id is not None:
        return AuditEvent.access_key_id
    if wanted.connection_id is not None:
        return AuditEvent.connection_id
    return None if wanted.tenant_id is None else AuditEvent.tenant_id


def _has_action(wanted: EventFilter, action: str) -> ColumnElement[bool]:
    condition = AuditEvent.action == action
    if action == ISSUED or wanted.access_key_id is not None:
        return condition
    # Always true here; needed for the use of a partial index.
    return and_(condition, NOT_ISSUED if _owner(wanted) is None else NOT_ISSUED_TO)


def _either(wanted: EventFilter) -> list[ColumnElement[bool]]:
    """Return one condition for each action, if there are several."""
    return (
        [_has_action(wanted, action) for action in wanted.actions]
        if len(wanted.actions) > 1
        else []
    )


def _without_index(wanted: EventFilter) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions that no index answers."""
    if wanted.api_key_id is not None:
        yield AuditEvent.actor_kind == "api_key"
        yield AuditEvent.actor_id == str(wanted.api_key_id)
    if wanted.client_address is not None:
        yield AuditEvent.client_address == wanted.client_address


def _end_of_window(db: Session, wanted: EventFilter, before: UUID, first: UUID) -> UUID | None:
    """Return the id below the last event that is read for one page.

    Returns None if all events of the range are read. A statement that read a range to its end could
    exceed the statement timeout.
    """
    query = _matching(db, wanted).where(AuditEvent.id > before, AuditEvent.id < first)
    ids = query.with_only_columns(AuditEvent.id).order_by(AuditEvent.id.desc())
    last = db.scalar(ids.offset(_WINDOW - 1).limit(1))
    return last and UUID(int=last.int - 1)


def _ids(wanted: EventFilter) -> tuple[UUID, UUID]:
    """Return the ids between which the filter's events lie, both exclusive.

    An id begins with the time. No index is by time, but each ends with the id. A query has one
    bound at either end, because SQLite chooses the index by their number.
    """
    before, end = UUID(int=0), UUID(int=2**128 - 1)
    if wanted.since is not None:
        before = UUID(int=max(0, first_id_at(wanted.since - ID_AND_TIME).int - 1))
    if wanted.until is not None:
        end = first_id_at(wanted.until + ID_AND_TIME)
    return before, end


def _is_first(db: Session, column: Any, value: Any) -> ColumnElement[bool]:
    """Return the condition that the column has this value, for a list ordered by this column first.

    Without the array, PostgreSQL would scan the ids alone for the events of an owner that has many
    of them. It would read all events that are newer than the newest of those. PostgreSQL does not
    take an array's only element for a constant, so the ids alone are not in order to it.
    """
    if db.get_bind().dialect.name == "sqlite":
        return cast("ColumnElement[bool]", column == value)
    return cast("ColumnElement[bool]", column == func.any(literal([value], ARRAY(column.type))))


def _is_in_vain(db: Session, wanted: EventFilter) -> bool:
    """Return whether the filter names a connection of another tenant.

    Otherwise all events of that connection would be read in vain.
    """
    if wanted.tenant_id is None or wanted.connection_id is None:
        return False
    owner = db.scalar(select(Connection.tenant_id).where(Connection.id == wanted.connection_id))
    return owner not in {None, wanted.tenant_id}
