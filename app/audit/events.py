"""Audit events and their parts: the actor, the action, its details, and its outcome."""

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

    It is an API key, the holder of an onboarding link, the operator at the machine, the background
    worker, or a customer's stack that registers its role. Tenants see nothing about a new kind of
    actor until app/audit/visibility.py lists that kind.
    """

    kind: Literal["api_key", "onboarding_link", "operator", "worker", "registration"]
    id: str | None
    name: str
    request_id: str | None = None
    client_address: str | None = None  # None if the actor acts without a request


WORKER = Actor("worker", None, "background worker")


class Action(str, Generic[D]):
    """The name of an action (`noun.verb`), and the description of its events.

    app/audit/actions.py has all actions. `when`: a sentence that says when an event is written.
    `details`: the type of the events' details. `outcomes`: the possible outcomes, beginning with
    the usual one.
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
        """The JSON Schema of the details of this action's events."""
        return schema_of(self.details)

    def event(
        self, actor: Actor, details: D, *, outcome: Outcome | None = None, **fields: Any
    ) -> "Event":
        """Create an event of this action.

        `outcome`: None for the usual outcome. `fields`: further fields of `Event`.
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
        """Store an event of this action in this transaction."""
        event = self.event(actor, details, tenant_id=tenant_id, connection_id=connection_id)
        record(db, event)

    def record_about(self, db: Session, actor: Actor, connection: Connection, details: D) -> None:
        """Store an event of this action, about this connection, in this transaction."""
        self.record(db, actor, details, connection.tenant_id, connection.id)


@dataclass(frozen=True, slots=True)
class Event:
    """An audit event to be stored. `Action.event` creates it.

    An event may rely on entries in memory. `row_ids` are the rows that these entries were read
    from, and `valid_at_counter` is the revocation counter at that time. The event must not be
    stored if one of these rows was revoked since. If `valid_at_counter` is None, the event relies
    on no memory. `access_key_id`: a session's access key id, by which the event can be looked up.
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
