"""The audit log: who did what, when, to whose connection, and what came of it. Never a secret.

`record` writes into the caller's own transaction, so a change and its event are stored together or not at all.
What changes nothing (an issuance, a refusal) stands alone, and shares its commit with what else does so just then.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.audit.batch import AuditBatch
from app.audit.events import Action, Actor, Event, Outcome
from app.concurrency.group_commit import GroupCommit
from app.errors import NotFoundError
from app.ids import first_id_at
from app.store.database import CLOCKS_APART, LONGEST, Database, database_now
from app.store.epoch_history import EpochHistory
from app.store.models import ISSUED, NOT_ISSUED, ApiKey, AuditEvent, Connection
from app.store.pages import Page, page

_ID_AND_TIME = timedelta(seconds=5)  # an event's two are made one after the other, and never so far apart
PATIENCE = 1.5  # seconds to wait for a commit that others share


def record(
    db: Session,
    actor: Actor,
    action: Action,
    *,
    outcome: Outcome = "ok",
    tenant_id: UUID | None = None,
    connection_id: UUID | None = None,
    details: dict[str, Any] | None = None,
) -> None:
    """Append one event (`noun.verb`) to the transaction at hand."""
    store(db, Event(actor, action, details or {}, outcome=outcome, tenant_id=tenant_id, connection_id=connection_id))


def record_about(
    db: Session,
    actor: Actor,
    action: Action,
    connection: Connection,
    details: dict[str, Any] | None = None,
    *,
    outcome: Outcome = "ok",
) -> None:
    """As `record`, about this connection."""
    about = {"tenant_id": connection.tenant_id, "connection_id": connection.id}
    record(db, actor, action, outcome=outcome, details=details, **about)


def store(db: Session, event: Event) -> None:
    """Append this event to the transaction at hand, at whatever epoch."""
    db.add(AuditEvent(**event.row()))


@dataclass(frozen=True, slots=True)
class Filter:
    """What to look for; None means any."""

    tenant_id: UUID | None = None
    connection_id: UUID | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


_VENDORS_WORDS = frozenset({"reason"})  # among the details


class AuditLog:
    """Reading the log, and writing what stands alone."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._batch = AuditBatch(db)
        self._group = GroupCommit(self._batch.commit)

    @property
    def history(self) -> EpochHistory:
        """What has been taken away, as far as this process's last commit knows."""
        return self._batch.history

    def append(self, event: Event, *, patience: float = PATIENCE) -> int:
        """Store one event, if it still holds: durable by the time that this returns.

        Returns the current epoch: an event that is valid at another one was not stored. Raises StoreUnavailableError.
        """
        return self._group.add(event, patience)

    def events(self, confined_to: UUID | None, wanted: Filter, *, limit: int, after: UUID | None) -> Page[AuditEvent]:
        """Newest first. `confined_to`: the tenant of a bound key, which sees that tenant's events only, and of the
        vendor's actors neither names, addresses nor reasons.

        Raises NotFoundError when such a key asks for another tenant's.
        """
        query = _matching(confined_to, wanted)
        with self._db.read(long=True) as db:
            found = page(db, query, AuditEvent.id, limit=limit, after=after)
            return _as_seen_by(db, confined_to, found)

    def feed(self, confined_to: UUID | None, wanted: Filter, *, limit: int, after: UUID) -> Page[AuditEvent]:
        """Oldest first, from the one that follows `after`; otherwise as `events`.

        Ids are in the order in which they were made, and transactions commit in another. So an event is shown once it
        is older, by the database's clock, than any transaction that is still open can be: none that comes to light
        later has a lower id, and a consumer that reads on from the last one misses nothing.
        """
        query = _matching(confined_to, wanted)
        with self._db.read(long=True) as db:
            # The clock first: what was open by then has ended when the events are looked for.
            settled = database_now(db) - timedelta(seconds=LONGEST + CLOCKS_APART)
            query = query.where(AuditEvent.id < first_id_at(settled))
            found = page(db, query, AuditEvent.id, limit=limit, after=after, oldest_first=True)
            return _as_seen_by(db, confined_to, found)


def _matching(confined_to: UUID | None, wanted: Filter) -> Select[AuditEvent]:
    query = select(AuditEvent)
    if confined_to is not None:
        if wanted.tenant_id not in {None, confined_to}:
            raise NotFoundError
        query = query.where(AuditEvent.tenant_id == confined_to)
    for column, value in (
        (AuditEvent.tenant_id, wanted.tenant_id),
        (AuditEvent.connection_id, wanted.connection_id),
        (AuditEvent.action, wanted.action),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.action not in {None, ISSUED}:
        query = query.where(NOT_ISSUED)  # true anyhow; it lets the index answer
    # There is no index by time. All of them know the order of the ids, which begin with the time.
    if wanted.since is not None:
        first = first_id_at(wanted.since - _ID_AND_TIME)
        query = query.where(AuditEvent.id >= first, AuditEvent.at >= wanted.since)
    if wanted.until is not None:
        end = first_id_at(wanted.until + _ID_AND_TIME)
        query = query.where(AuditEvent.id < end, AuditEvent.at < wanted.until)
    return query


def _as_seen_by(db: Session, confined_to: UUID | None, found: Page[AuditEvent]) -> Page[AuditEvent]:
    """The page without the vendor's own words, for a key that is confined to one tenant."""
    if confined_to is None:
        return found
    keys = {UUID(event.actor_id) for event in found.items if event.actor_kind == "api_key" and event.actor_id}
    query = select(ApiKey.id).where(ApiKey.id.in_(keys), ApiKey.tenant_id == confined_to)
    of_tenant = {str(key_id) for key_id in db.scalars(query)}
    for event in found.items:
        db.expunge(event)  # what is changed below is for this answer alone
        if event.actor_kind == "operator" or (event.actor_kind == "api_key" and event.actor_id not in of_tenant):
            event.actor_name, event.client_address = "the vendor", None
            event.details = {name: None if name in _VENDORS_WORDS else value for name, value in event.details.items()}
    return found
