"""Audit events: who acts, the action, its details, and its outcome."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar
from uuid import UUID

from app.audit.details import schema_of
from app.clock import now
from app.ids import new_id
from app.store.database import Session
from app.store.models import AuditEvent, Connection

Outcome = Literal["ok", "refused", "failed"]
D = TypeVar("D", bound=Mapping[str, Any])


class Actor(NamedTuple):
    """The actor of an event.

    It is an API key, an onboarding link's holder, the operator at the machine, the background
    worker, or a customer's stack that registers its role. A tenant sees of a new kind nothing
    until app/audit/visibility.py lists it.
    """

    kind: Literal["api_key", "onboarding_link", "operator", "worker", "registration"]
    id: str | None
    name: str
    request_id: str | None = None
    client_address: str | None = None  # the request's; None without a request


WORKER = Actor("worker", None, "background worker")


class Action(str, Generic[D]):
    """The name of an action (`noun.verb`), and what its events are like.

    app/audit/actions.py has all of them. `when`: a sentence on when an event is written. `details`:
    the type of its details. `outcomes`: those that it can have, the usual one first.
    """

    __slots__ = ("details", "outcomes", "when")
    when: str
    details: type[D]
    outcomes: tuple[Outcome, ...]

    def __new__(cls, name: str, when: str, details: type[D], *outcomes: Outcome) -> Self:
        action = super().__new__(cls, name)
        action.when, action.details, action.outcomes = when, details, outcomes or ("ok",)
        return action

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its details."""
        return schema_of(self.details)

    def event(
        self, actor: Actor, details: D, *, outcome: Outcome | None = None, **fields: Any
    ) -> "Event":
        """Make an event of this action.

        `outcome`: None for the usual one. `fields`: further fields of the event.
        """
        return Event(actor, self, details, outcome or self.outcomes[0], **fields)

    def record(
        self,
        db: Session,
        actor: Actor,
        details: D,
        tenant_id: UUID | None = None,
        connection_id: UUID | None = None,
    ) -> None:
        """Append an event to this transaction."""
        event = self.event(actor, details, tenant_id=tenant_id, connection_id=connection_id)
        record(db, event)

    def record_about(self, db: Session, actor: Actor, connection: Connection, details: D) -> None:
        """Append an event about this connection to this transaction."""
        self.record(db, actor, details, connection.tenant_id, connection.id)


@dataclass(frozen=True, slots=True)
class Event:
    """An audit event to be stored. Its action makes it.

    `valid_at_counter`: the revocation counter at which memory was read, from rows with these
    `row_ids`. The event may be stored unless one of the rows was revoked since. None: always.
    `access_key_id`: the session by which this event can be looked up.
    """

    actor: Actor
    action: Action[Any]
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
        """Return the event's row of audit_events, by column."""
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
    """Append this event to this transaction, without a check of the revocation counter."""
    db.add(AuditEvent(**event.row()))
