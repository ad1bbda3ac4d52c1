"""Audit events, and the type of their actions. app/audit/actions.py has the registry of actions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar
from uuid import UUID

from app.audit import details
from app.clock import now
from app.ids import new_id
from app.store.database import Session
from app.store.models import AuditEvent, Connection, WebhookEvent

Outcome = Literal["ok", "refused", "failed"]
D = TypeVar("D", bound=Mapping[str, Any])
ACTIONS: dict[str, "Action[Any]"] = {}  # the keys are their names
DETAILS: dict[str, Any] = {}  # the JSON Schema of each detail, by the detail's name


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


@dataclass(slots=True)  # creating a frozen one takes five times as long, in each issuance
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

    def record(self, db: Session) -> None:
        """Store this event in this transaction, without a check of the revocation counter.

        If webhooks send events of its action, a WebhookEvent is stored too. No other code stores
        such events, so webhooks miss none.
        """
        db.add(AuditEvent(**self.row()))
        note_effect(db, self.tenant_id, self.connection_id)
        action = ACTIONS.get(self.action)
        if action is not None and action.is_sent:
            db.add(
                WebhookEvent(
                    id=self.id, type=self.action, tenant_id=self.tenant_id, created_at=self.at
                )
            )


def note_effect(db: Session, tenant_id: UUID | None, thing_id: UUID | None) -> None:
    """Note what this transaction changes, for a retry of the request (app/idempotency/)."""
    effect = db.info.setdefault("effect", {"tenant_id": None, "thing_id": None})
    effect["tenant_id"] = tenant_id or effect["tenant_id"]
    effect["thing_id"] = thing_id or effect["thing_id"]


class Action(str, Generic[D]):
    """The name of an action (`noun.verb`), and the description of its events.

    `when`: a sentence that says when an event is written. `schema`: the JSON Schema of the events'
    details. `outcomes`: the possible outcomes, beginning with the usual one. `is_sent`: whether
    webhooks send its events.
    """

    __slots__ = ("is_sent", "outcomes", "schema", "when")
    when: str
    schema: dict[str, Any]
    outcomes: tuple[Outcome, ...]
    is_sent: bool

    def __new__(
        cls, name: str, when: str, kind: type[D], *outcomes: Outcome, is_sent: bool = True
    ) -> Self:
        """Declare an action. `kind`: the type of its events' details."""
        action = super().__new__(cls, name)
        action.when, action.outcomes = when, outcomes or ("ok",)
        action.schema, action.is_sent = details.schema_of(kind), is_sent
        ACTIONS[name] = action
        DETAILS.update(action.schema["properties"])
        return action

    def event(
        self, actor: Actor, details: D, *, outcome: Outcome | None = None, **fields: Any
    ) -> Event:
        """Create an event of this action.

        `outcome`: None for the usual outcome. `fields`: further fields of `Event`.
        """
        return Event(actor, self, details, outcome or self.outcomes[0], **fields)

    def record(
        self, db: Session, actor: Actor, details: D, tenant_id: UUID | None = None, **fields: Any
    ) -> None:
        """Store an event of this action in this transaction. `fields`: as in `event`."""
        self.event(actor, details, tenant_id=tenant_id, **fields).record(db)

    def record_about(self, db: Session, actor: Actor, connection: Connection, details: D) -> None:
        """Store an event of this action, about this connection, in this transaction."""
        self.record(db, actor, details, connection.tenant_id, connection_id=connection.id)
