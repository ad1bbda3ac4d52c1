"""The audit log: who did what, when, to whose connection, and what came of it. Never a secret.

`record` writes into the caller's own transaction, so a change and its event are stored together or not at all.
What changes nothing (an issuance, a refusal) stands alone, and shares its commit with what else does so just then.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.audit_batch import Actor, AuditBatch, Event, Outcome
from app.db import Database, Page, page
from app.errors import NotFoundError
from app.group_commit import GroupCommit
from app.models import ISSUED, NOT_ISSUED, AuditEvent

__all__ = ["Actor", "AuditLog", "Event", "Filter", "Outcome", "record"]

PATIENCE = 1.5  # seconds to wait for a commit that others share


def record(
    db: Session,
    actor: Actor,
    action: str,
    *,
    outcome: Outcome = "ok",
    tenant_id: UUID | None = None,
    connection_id: UUID | None = None,
    details: dict[str, Any] | None = None,
) -> None:
    """Append one event (`noun.verb`) to the transaction at hand."""
    db.add(
        AuditEvent(
            action=action,
            outcome=outcome,
            actor_kind=actor.kind,
            actor_id=actor.id,
            actor_name=actor.name,
            tenant_id=tenant_id,
            connection_id=connection_id,
            request_id=actor.request_id,
            client_address=actor.client_address,
            details=details or {},
        )
    )


@dataclass(frozen=True, slots=True)
class Filter:
    """What to look for; None means any."""

    tenant_id: UUID | None = None
    connection_id: UUID | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class AuditLog:
    """Reading the log, and writing what stands alone."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._group = GroupCommit(AuditBatch(db).commit)

    def append(self, event: Event, *, patience: float = PATIENCE) -> int:
        """Store one event, if it still holds: durable by the time that this returns.

        Returns the configuration's epoch: a stamped event was stored if that is its stamp. Raises
        StoreUnavailableError.
        """
        return self._group.add(event, patience)

    def events(
        self, confined_to: UUID | None, wanted: Filter, *, limit: int, after: UUID | None
    ) -> Page[AuditEvent]:
        """Newest first. `confined_to`: the tenant of a bound key, which sees that tenant's events only.

        Raises NotFoundError when such a key asks for another tenant's.
        """
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
        if wanted.since is not None:
            query = query.where(AuditEvent.at >= wanted.since)
        if wanted.until is not None:
            query = query.where(AuditEvent.at < wanted.until)
        with self._db.read() as db:
            return page(db, query, AuditEvent.id, limit=limit, after=after)
