"""Audit events: who acts, the action, and its outcome."""

import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Self
from uuid import UUID

from app.clock import now
from app.ids import new_id
from app.store.models import ISSUED

Outcome = Literal["ok", "refused", "failed"]


@enum.unique
class Action(enum.StrEnum):
    """The actions that an event can have (`noun.verb`), and when each is written.

    docs/api.md has the details of each.
    """

    when: str

    def __new__(cls, value: str, when: str = "") -> Self:
        action = str.__new__(cls, value)
        action._value_, action.when = value, when
        return action

    TENANT_CREATED = "tenant.created", "A tenant was made."
    TENANT_CHANGED = (
        "tenant.changed",
        "A tenant's name, reference or declared accounts were changed.",
    )
    TENANT_SUSPENDED = "tenant.suspended", "A tenant was suspended."
    TENANT_RESUMED = "tenant.resumed", "A tenant was resumed."
    TENANT_DELETED = (
        "tenant.deleted",
        "A tenant was deleted, with its connections and the keys that are bound to it.",
    )
    TENANT_REGISTRATIONS_VOIDED = (
        "tenant.registrations_voided",
        "The operator voided a tenant's registration tokens.",
    )
    ROTATION_STARTED = "rotation.started", "The replacement of a tenant's External ID began."
    ROTATION_MADE_EMERGENCY = (
        "rotation.made_emergency",
        "An open rotation became an emergency: nothing is issued with the old External ID.",
    )
    ROTATION_READY = (
        "rotation.ready",
        "All verified connections of a tenant have switched to the next External ID.",
    )
    ROTATION_COMPLETED = (
        "rotation.completed",
        "The next External ID became current, and the old one is retiring.",
    )
    ROTATION_ABANDONED = (
        "rotation.abandoned",
        "A rotation was abandoned, and the next External ID retired.",
    )
    EXTERNAL_ID_RETIRED = (
        "external_id.retired",
        "An External ID that was replaced was retired: it is never used again.",
    )
    LINK_CREATED = "onboarding_link.created", "An onboarding link was made."
    LINK_REVOKED = "onboarding_link.revoked", "An onboarding link was revoked."
    CONNECTION_CREATED = (
        "connection.created",
        "A connection was added over the API or on an onboarding page.",
    )
    CONNECTION_DELETED = (
        "connection.deleted",
        "A connection was deleted, or the search for its role was ended.",
    )
    CONNECTION_SUSPENDED = "connection.suspended", "A connection was suspended."
    CONNECTION_RESUMED = "connection.resumed", "A connection was resumed."
    CONNECTION_APPROVED = (
        "connection.approved",
        "The vendor approved a connection that awaited its approval.",
    )
    CONNECTION_SET_ASKED = (
        "connection.permission_set_asked",
        "A connection's role is to have another permission set.",
    )
    CONNECTION_SET_CHANGED = (
        "connection.permission_set_changed",
        "A connection moved to the permission set asked for.",
    )
    CONNECTION_VERIFIED = (
        "connection.verified",
        "A proof passed, and the connection issues credentials.",
    )
    CONNECTION_AWAITS_APPROVAL = (
        "connection.awaits_approval",
        "A proof passed; the vendor must approve the connection.",
    )
    CONNECTION_PROOF_FAILED = (
        "connection.proof_failed",
        "A proof failed: the role refuses the tenant's External ID, or accepts callers without it.",
    )
    CONNECTION_PROOF_INCONCLUSIVE = (
        "connection.proof_inconclusive",
        "A proof was inconclusive: AWS gave no clear answer, and the connection stays as it was.",
    )
    CONNECTION_ROLE_RECREATED = (
        "connection.role_recreated",
        "A session showed that the role was deleted and remade.",
    )
    CONNECTION_ROLE_UNREADABLE = (
        "connection.role_unreadable",
        "A role that could read itself may not any more.",
    )
    CONNECTION_REGISTERED = (
        "connection.registered",
        "A stack registered a role that the tenant had no connection to.",
    )
    CONNECTION_REGISTERED_AGAIN = (
        "connection.registered_again",
        "A stack registered a connection's role; it is due.",
    )
    CONNECTION_STACK_DELETED = (
        "connection.stack_deleted",
        "A connection's stack is being deleted; a proof is due.",
    )
    CONNECTION_REGISTRATION_IGNORED = (
        "connection.registration_ignored",
        "A stack registered a role whose connection is suspended or deleted.",
    )
    CONNECTION_REFUSAL_REPORTED = (
        "connection.refusal_reported",
        "A worker reported a refusal by AWS; a proof is due.",
    )
    CONNECTION_SWITCHED = (
        "connection.external_id_switched",
        "A proof paired a connection with another External ID.",
    )
    CONNECTION_DIAGNOSED = (
        "connection.diagnosed",
        "Somebody asked why a connection does not work, and Deputy looked.",
    )
    PROBER_SIGHTED = (
        "prober.sighted",
        "The canary lets the broker in both ways, so refusals of roles count.",
    )
    PROBER_BLINDED = (
        "prober.blinded",
        "A policy on the vendor's side refuses probes, so proofs are inconclusive.",
    )
    PROBER_CANARY_LOST = (
        "prober.canary_lost",
        "The canary refuses the broker: it is deleted, changed or unreachable.",
    )
    DATABASE_RESTORED = (
        "database.restored",
        "The operator restored a backup; events between `reaches` and this one are lost.",
    )
    CREDENTIALS_ISSUED = ISSUED, "Credentials were issued."
    KEY_CREATED = "api_key.created", "An API key was made."
    KEY_REPLACED = "api_key.replaced", "An API key was given a successor."
    KEY_REVOKED = "api_key.revoked", "An API key was revoked, with the keys and links that it made."
    PERMISSION_SET_PUBLISHED = (
        "permission_set.published",
        "A version of a permission set was recorded, once the bucket served it.",
    )
    TENANT_REFUSED = "tenant.refused", "A request about a tenant was refused."
    ROTATION_REFUSED = "rotation.refused", "A request about a rotation was refused."
    ONBOARDING_REFUSED = "onboarding.refused", "A request for a kit was refused."
    PERMISSION_SET_REFUSED = (
        "permission_set.refused",
        "A request about permission sets was refused.",
    )
    LINK_REFUSED = "onboarding_link.refused", "A request about onboarding links was refused."
    CONNECTION_REFUSED = "connection.refused", "A request about a connection was refused."
    CREDENTIALS_REFUSED = "credentials.refused", "A request for credentials was refused."
    KEY_REFUSED = "api_key.refused", "A request about API keys was refused."
    AUDIT_EVENT_REFUSED = "audit_event.refused", "A request for audit events was refused."
    REQUEST_REFUSED = (
        "request.refused",
        "Further requests of one key were refused within the same second.",
    )


class Actor(NamedTuple):
    """The actor of an event.

    It is an API key, an onboarding link's holder, the operator at the machine, the background
    worker, or a customer's stack that registers its role.
    """

    kind: Literal["api_key", "onboarding_link", "operator", "worker", "registration"]
    id: str | None
    name: str
    request_id: str | None = None
    client_address: str | None = None  # the request's; None without a request


WORKER = Actor("worker", None, "background worker")


@dataclass(frozen=True, slots=True)
class Event:
    """An audit event to be stored.

    `valid_at_counter`: the revocation counter at which memory was read, from rows with these
    `row_ids`. The event may be stored unless one of the rows was revoked since. None: always.
    `access_key_id`: the session by which this event can be looked up.
    """

    actor: Actor
    action: Action
    details: dict[str, Any] = field(default_factory=dict)
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
