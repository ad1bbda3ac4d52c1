"""The audit log: who did what, when, to whose connection, and what came of it. Never a secret.

`record` writes into the caller's own transaction, so a change and its event are stored together or not at all.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import Database, Page, page
from app.errors import NotFoundError
from app.models import AuditEvent

Outcome = Literal["ok", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever acts: an API key, or the operator at the machine."""

    kind: Literal["api_key", "operator"]
    id: str | None
    name: str
    request_id: str | None = None


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

    def refused(
        self,
        actor: Actor,
        action: str,
        outcome: Outcome,
        *,
        tenant_id: UUID | None,
        connection_id: UUID | None,
        details: dict[str, Any],
    ) -> None:
        """A refusal or a failure, in a transaction of its own: the one that was refused has been rolled back."""
        with self._db.write() as db:
            record(
                db,
                actor,
                action,
                outcome=outcome,
                tenant_id=tenant_id,
                connection_id=connection_id,
                details=details,
            )

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
        if wanted.since is not None:
            query = query.where(AuditEvent.at >= wanted.since)
        if wanted.until is not None:
            query = query.where(AuditEvent.at < wanted.until)
        with self._db.read() as db:
            return page(db, query, AuditEvent.id, limit=limit, after=after)
