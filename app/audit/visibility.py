"""Decide which details of its audit events a tenant sees.

A tenant sees nothing about kinds of actors that are not listed here.
"""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.store.database import Session
from app.store.models import ApiKey, AuditEvent

# A tenant sees all details of these kinds of actors, and of its own API keys.
_SHOWN = frozenset({"onboarding_link", "registration", "worker"})
# A tenant sees these kinds of actors without their name, client address and reason. It sees nothing
# of any other kind.
_VENDORS = frozenset({"api_key", "operator"})


def details_for_tenant(event: AuditEvent, *, is_own_key: bool) -> dict[str, Any]:
    """Return the details that the event's tenant may see. `is_own_key`: its own API key acted."""
    if event.actor_kind in _SHOWN or is_own_key:
        return event.details
    if event.actor_kind not in _VENDORS:
        return {}
    return event.details | {"reason": None} if "reason" in event.details else event.details


def by_own_keys(db: Session, events: Iterable[AuditEvent]) -> set[UUID]:
    """Return the ids of the events in which an API key of the event's own tenant acted."""
    by_key = {
        event.id: event for event in events if event.actor_kind == "api_key" and event.actor_id
    }
    keys = {UUID(event.actor_id) for event in by_key.values()}
    query = select(ApiKey.id, ApiKey.tenant_id).where(
        ApiKey.id.in_(keys), ApiKey.tenant_id.is_not(None)
    )
    own = {(str(key_id), tenant_id) for key_id, tenant_id in db.execute(query)}
    return {
        event_id for event_id, event in by_key.items() if (event.actor_id, event.tenant_id) in own
    }


def hide_actors(db: Session, events: list[AuditEvent]) -> None:
    """Remove from the events what principals of their tenant may not see."""
    own = by_own_keys(db, events)
    for event in events:
        db.expunge(event)  # the changes below must not be stored
        kind, is_own_key = event.actor_kind, event.id in own
        event.details = details_for_tenant(event, is_own_key=is_own_key)
        if kind in _SHOWN or is_own_key:
            continue
        event.actor_name, event.client_address = "the vendor", None
        if kind not in _VENDORS:
            event.actor_id = event.request_id = None
