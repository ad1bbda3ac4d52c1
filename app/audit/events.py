"""What an audit event says: who acts, what is done, and what comes of it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from app.clock import now
from app.ids import new_id

Outcome = Literal["ok", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever acts: an API key, whoever has an onboarding link, the operator at the machine, the background worker, or
    a customer's stack that registers its role.
    """

    kind: Literal["api_key", "onboarding_link", "operator", "worker", "registration"]
    id: str | None
    name: str
    request_id: str | None = None
    client_address: str | None = None  # of the request, if it was one


@dataclass(frozen=True, slots=True)
class Event:
    """An audit event on its way. `valid_at_epoch`: it is stored only while the configuration has this epoch; None: at any."""

    actor: Actor
    action: str
    details: dict[str, Any]
    outcome: Outcome = "ok"
    tenant_id: UUID | None = None
    connection_id: UUID | None = None
    valid_at_epoch: int | None = None
    id: UUID = field(default_factory=new_id)
    at: datetime = field(default_factory=now)
