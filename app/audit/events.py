"""Audit events and their actors. app/audit/actions.py has the actions and creates the events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from app.clock import now
from app.ids import new_id
from app.store.database import Session
from app.store.models import AuditEvent

Outcome = Literal["ok", "refused", "failed"]


class Actor(NamedTuple):
    """The actor of an event.

    It is an API key, the holder of an onboarding link, the operator at the machine, the background
    worker, or a customer's stack that registers its role. Tenants see nothing about a new kind of
    actor until app/audit/log.py lists that kind.
    """

    kind: Literal["api_key", "onboarding_link", "operator", "worker", "registration"]
    id: str | None
    name: str
    request_id: str | None = None
    client_address: str | None = None  # None if the actor acts without a request


WORKER = Actor("worker", None, "background worker")


@dataclass(frozen=True, slots=True)
class Event:
    """An audit event to be stored. `Action.event` creates it.

    An event may rely on entries in memory. `row_ids` are the rows that these entries were read
    from, and `valid_at_counter` is the revocation counter at that time. The event must not be
    stored if one of these rows was revoked since. If `valid_at_counter` is None, the event relies
    on no memory. `access_key_id`: a session's access key id, by which the event can be looked up.
    """

    actor: Actor
    action: str
    details: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome = "ok"
    tenant_id: UUID | None = None
    connection_id: UUID | None = None
    valid_at_counter: int | None = None
    row_ids: tuple[UUID | None, ...] = ()
    access_key_id: str | None = None
    id: UUID = field(default_factory=new_id)
    at: datetime = field(default_factory=now)

    def row(self) -> dict[str, Any]:
        """Return the values of the event's row in audit_events, by column."""
        return {
            "id": self.id,
            "at": self.at,
            "action": self.action,
            "outcome": self.outcome,
            "actor_kind": self.actor.kind,
            "actor_id": self.actor.id,
            "actor_name": self.actor.name,
            "tenant_id": self.tenant_id,
            "connection_id": self.connection_id,
            "request_id": self.actor.request_id,
            "client_address": self.actor.client_address,
            "details": self.details,
            "access_key_id": self.access_key_id,
        }


def record(db: Session, event: Event) -> None:
    """Store this event in this transaction, without a check of the revocation counter."""
    db.add(AuditEvent(**event.row()))
