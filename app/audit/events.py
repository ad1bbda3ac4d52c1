"""Audit events: who acts, the action, and its outcome."""

import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from app.clock import now
from app.ids import new_id
from app.store.models import ISSUED

Outcome = Literal["ok", "refused", "failed"]


@enum.unique
class Action(enum.StrEnum):
    """Every action that an event can have (`noun.verb`). docs/api.md says when each is written, and with which details."""

    TENANT_CREATED = "tenant.created"
    TENANT_CHANGED = "tenant.changed"
    TENANT_SUSPENDED = "tenant.suspended"
    TENANT_RESUMED = "tenant.resumed"
    TENANT_DELETED = "tenant.deleted"
    TENANT_REGISTRATIONS_VOIDED = "tenant.registrations_voided"
    ROTATION_STARTED = "rotation.started"
    ROTATION_MADE_EMERGENCY = "rotation.made_emergency"
    ROTATION_READY = "rotation.ready"
    ROTATION_COMPLETED = "rotation.completed"
    ROTATION_ABANDONED = "rotation.abandoned"
    EXTERNAL_ID_RETIRED = "external_id.retired"
    LINK_CREATED = "onboarding_link.created"
    LINK_REVOKED = "onboarding_link.revoked"
    CONNECTION_CREATED = "connection.created"
    CONNECTION_DELETED = "connection.deleted"
    CONNECTION_SUSPENDED = "connection.suspended"
    CONNECTION_RESUMED = "connection.resumed"
    CONNECTION_APPROVED = "connection.approved"
    CONNECTION_SET_ASKED = "connection.permission_set_asked"
    CONNECTION_SET_CHANGED = "connection.permission_set_changed"
    CONNECTION_VERIFIED = "connection.verified"
    CONNECTION_AWAITS_APPROVAL = "connection.awaits_approval"
    CONNECTION_PROOF_FAILED = "connection.proof_failed"
    CONNECTION_ROLE_RECREATED = "connection.role_recreated"
    CONNECTION_REGISTERED = "connection.registered"
    CONNECTION_REGISTERED_AGAIN = "connection.registered_again"
    CONNECTION_STACK_DELETED = "connection.stack_deleted"
    CONNECTION_REGISTRATION_IGNORED = "connection.registration_ignored"
    CONNECTION_REFUSAL_REPORTED = "connection.refusal_reported"
    CONNECTION_SWITCHED = "connection.external_id_switched"
    CONNECTION_DIAGNOSED = "connection.diagnosed"
    PROBER_SIGHTED = "prober.sighted"
    PROBER_BLINDED = "prober.blinded"
    PROBER_CANARY_LOST = "prober.canary_lost"
    DATABASE_RESTORED = "database.restored"
    CREDENTIALS_ISSUED = ISSUED
    KEY_CREATED = "api_key.created"
    KEY_REPLACED = "api_key.replaced"
    KEY_REVOKED = "api_key.revoked"
    TENANT_REFUSED = "tenant.refused"
    ROTATION_REFUSED = "rotation.refused"
    ONBOARDING_REFUSED = "onboarding.refused"
    PERMISSION_SET_REFUSED = "permission_set.refused"
    LINK_REFUSED = "onboarding_link.refused"
    CONNECTION_REFUSED = "connection.refused"
    CREDENTIALS_REFUSED = "credentials.refused"
    KEY_REFUSED = "api_key.refused"
    AUDIT_EVENT_REFUSED = "audit_event.refused"
    REQUEST_REFUSED = "request.refused"


class Actor(NamedTuple):
    """Who acts: an API key, the holder of an onboarding link, the operator at the machine, the background worker, or a
    customer's stack that registers its role.
    """

    kind: Literal["api_key", "onboarding_link", "operator", "worker", "registration"]
    id: str | None
    name: str
    request_id: str | None = None
    client_address: str | None = None  # of the request, if it was one


WORKER = Actor("worker", None, "background worker")


@dataclass(frozen=True, slots=True)
class Event:
    """An audit event to be stored. `valid_at_epoch`: the only epoch at which it may be stored; None: any."""

    actor: Actor
    action: Action
    details: dict[str, Any] = field(default_factory=dict)
    outcome: Outcome = "ok"
    tenant_id: UUID | None = None
    connection_id: UUID | None = None
    valid_at_epoch: int | None = None
    id: UUID = field(default_factory=new_id)
    at: datetime = field(default_factory=now)

    def row(self) -> dict[str, Any]:
        """Its row of audit_events, by column."""
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
        }
