"""Audit events, and the registry of their actions: when each is written, and its details."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar
from uuid import UUID

from app.audit import details
from app.clock import now
from app.ids import new_id
from app.store.database import Session
from app.store.models import ISSUED, AuditEvent, Connection

Outcome = Literal["ok", "refused", "failed"]
D = TypeVar("D", bound=Mapping[str, Any])
ACTIONS: dict[str, "Action[Any]"] = {}  # by their names
DETAILS: dict[str, Any] = {}  # the JSON Schema of each detail, by the detail's name


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

    def record(self, db: Session) -> None:
        """Store this event in this transaction, without a check of the revocation counter."""
        db.add(AuditEvent(**self.row()))


class Action(str, Generic[D]):
    """The name of an action (`noun.verb`), and the description of its events.

    `when`: a sentence that says when an event is written. `schema`: the JSON Schema of the events'
    details. `outcomes`: the possible outcomes, beginning with the usual one.
    """

    __slots__ = ("outcomes", "schema", "when")
    when: str
    schema: dict[str, Any]
    outcomes: tuple[Outcome, ...]

    def __new__(cls, name: str, when: str, kind: type[D], *outcomes: Outcome) -> Self:
        """Declare an action. `kind`: the type of its events' details."""
        action = super().__new__(cls, name)
        action.when, action.outcomes = when, outcomes or ("ok",)
        action.schema = details.schema_of(kind)
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
        """Store an event of this action in this transaction. `fields`: as of `event`."""
        self.event(actor, details, tenant_id=tenant_id, **fields).record(db)

    def record_about(self, db: Session, actor: Actor, connection: Connection, details: D) -> None:
        """Store an event of this action, about this connection, in this transaction."""
        self.record(db, actor, details, connection.tenant_id, connection_id=connection.id)


TENANT_CREATED = Action("tenant.created", "A tenant was made.", details.TenantDescription)
TENANT_CHANGED = Action(
    "tenant.changed",
    "A tenant's name, reference or declared accounts were changed.",
    details.TenantDescriptionChange,
)
TENANT_SUSPENDED = Action("tenant.suspended", "A tenant was suspended.", details.TenantStatusChange)
TENANT_RESUMED = Action("tenant.resumed", "A tenant was resumed.", details.TenantStatusChange)
TENANT_DELETED = Action(
    "tenant.deleted",
    "A tenant was deleted, with its connections and the keys that are bound to it.",
    details.TenantDeletion,
)
TENANT_REGISTRATIONS_VOIDED = Action(
    "tenant.registrations_voided",
    "The operator voided a tenant's registration tokens.",
    details.VoidedRegistrations,
)
ROTATION_STARTED = Action(
    "rotation.started", "The replacement of a tenant's External ID began.", details.RotationStart
)
ROTATION_MADE_EMERGENCY = Action(
    "rotation.made_emergency",
    "An open rotation became an emergency: nothing is issued with the old External ID.",
    details.RotationStart,
)
ROTATION_READY = Action(
    "rotation.ready",
    "All verified connections of a tenant have switched to the next External ID.",
    details.RotatedIds,
)
ROTATION_COMPLETED = Action(
    "rotation.completed",
    "The next External ID became current, and the old one is retiring.",
    details.RotatedIds,
)
ROTATION_ABANDONED = Action(
    "rotation.abandoned",
    "A rotation was abandoned, and the next External ID retired.",
    details.RotatedIds,
)
EXTERNAL_ID_RETIRED = Action(
    "external_id.retired",
    "An External ID that was replaced was retired: it is never used again.",
    details.ExternalIdRetirement,
)
LINK_CREATED = Action(
    "onboarding_link.created", "An onboarding link was made.", details.LinkCreation
)
LINK_REVOKED = Action(
    "onboarding_link.revoked", "An onboarding link was revoked.", details.LinkReference
)
CONNECTION_CREATED = Action(
    "connection.created",
    "A connection was added over the API or on an onboarding page.",
    details.RoleReference,
)
CONNECTION_DELETED = Action(
    "connection.deleted",
    "A connection was deleted, or the search for its role was ended.",
    details.ConnectionDeletion,
)
CONNECTION_SUSPENDED = Action(
    "connection.suspended", "A connection was suspended.", details.ConnectionSuspension
)
CONNECTION_RESUMED = Action(
    "connection.resumed", "A connection was resumed.", details.ConnectionSuspension
)
CONNECTION_APPROVED = Action(
    "connection.approved",
    "The vendor approved a connection that awaited its approval.",
    details.SetApproval,
)
CONNECTION_SET_ASKED = Action(
    "connection.permission_set_asked",
    "A connection's role is to have another permission set.",
    details.SetRequest,
)
CONNECTION_SET_CHANGED = Action(
    "connection.permission_set_changed",
    "A connection moved to the permission set asked for.",
    details.SetMove,
)
CONNECTION_VERIFIED = Action(
    "connection.verified",
    "A proof passed, and the connection issues credentials.",
    details.ProofResult,
)
CONNECTION_AWAITS_APPROVAL = Action(
    "connection.awaits_approval",
    "A proof passed; the vendor must approve the connection.",
    details.ProofResult,
)
CONNECTION_PROOF_FAILED = Action(
    "connection.proof_failed",
    "A proof failed: the role refuses the tenant's External ID, or accepts callers without it.",
    details.ProofResult,
    "refused",
)
CONNECTION_PROOF_INCONCLUSIVE = Action(
    "connection.proof_inconclusive",
    "A proof was inconclusive: AWS gave no clear answer, and the connection stays as it was.",
    details.ProofResult,
    "failed",
)
CONNECTION_ROLE_RECREATED = Action(
    "connection.role_recreated",
    "A session showed that the role was deleted and remade.",
    details.StatusChange,
    "refused",
)
CONNECTION_ROLE_UNREADABLE = Action(
    "connection.role_unreadable",
    "A role that could read itself may not any more.",
    details.NoDetails,
)
CONNECTION_REGISTERED = Action(
    "connection.registered",
    "A stack registered a role that the tenant had no connection to.",
    details.StackMessage,
)
CONNECTION_REGISTERED_AGAIN = Action(
    "connection.registered_again",
    "A stack registered a connection's role; it is due.",
    details.StackMessage,
)
CONNECTION_STACK_DELETED = Action(
    "connection.stack_deleted",
    "A connection's stack is being deleted; a proof is due.",
    details.StackMessage,
)
CONNECTION_REGISTRATION_IGNORED = Action(
    "connection.registration_ignored",
    "A stack registered a role whose connection is suspended or deleted.",
    details.StackMessage,
    "refused",
)
CONNECTION_REFUSAL_REPORTED = Action(
    "connection.refusal_reported",
    "A worker reported a refusal by AWS; a proof is due.",
    details.RefusalReport,
)
CONNECTION_SWITCHED = Action(
    "connection.external_id_switched",
    "A proof paired a connection with another External ID.",
    details.ExternalIdSwitch,
)
CONNECTION_DIAGNOSED = Action(
    "connection.diagnosed",
    "Somebody asked why a connection does not work, and Deputy looked.",
    details.DiagnosisOutcome,
)
PROBER_SIGHTED = Action(
    "prober.sighted",
    "The canary lets the broker in both ways, so refusals of roles count.",
    details.CanarySight,
)
PROBER_BLINDED = Action(
    "prober.blinded",
    "A policy on the vendor's side refuses probes, so proofs are inconclusive.",
    details.CanarySight,
    "failed",
)
PROBER_CANARY_LOST = Action(
    "prober.canary_lost",
    "The canary refuses the broker: it is deleted, changed or unreachable.",
    details.CanarySight,
    "failed",
)
DATABASE_RESTORED = Action(
    "database.restored",
    "The operator restored a backup; events between `reaches` and this one are lost.",
    details.DatabaseRestore,
)
CREDENTIALS_ISSUED = Action(ISSUED, "Credentials were issued.", details.Issuance)
KEY_CREATED = Action("api_key.created", "An API key was made.", details.KeyCreation)
KEY_REPLACED = Action(
    "api_key.replaced", "An API key was given a successor.", details.KeyReplacement
)
KEY_REVOKED = Action(
    "api_key.revoked",
    "An API key was revoked, with the keys and links that it made.",
    details.KeyRevocation,
)
PERMISSION_SET_PUBLISHED = Action(
    "permission_set.published",
    "A version of a permission set was recorded, once the bucket served it.",
    details.SetPublication,
)
REQUEST_REFUSED = Action(
    "request.refused",
    "Further requests of one key were refused within the same second.",
    details.RefusalCount,
    "refused",
)
# The keys are the nouns of the blueprints (app/api/kit/blueprint.py)
REFUSALS = {
    noun: Action(
        f"{noun}.refused", f"A request {about} was refused.", details.Refusal, "refused", "failed"
    )
    for noun, about in {
        "tenant": "about a tenant",
        "rotation": "about a rotation",
        "onboarding": "for a kit",
        "permission_set": "about permission sets",
        "onboarding_link": "about onboarding links",
        "connection": "about a connection",
        "credentials": "for credentials",
        "api_key": "about API keys",
        "audit_event": "for audit events",
    }.items()
}
