"""Visibility of actors: which of them a tenant sees in its audit events.

The two sets below decide it by the kind of actor. A tenant sees nothing of any other actor.
"""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store.models import ApiKey, AuditEvent
from app.store.pages import Page

# A tenant sees everything of these kinds of actors, and of its own API keys.
_SHOWN = frozenset({"onboarding_link", "registration", "worker"})
# A tenant sees these kinds of actors without their name, client address and reason.
_VENDORS = frozenset({"api_key", "operator"})


def hide_actors(db: Session, tenant_scope: UUID | None, page: Page[AuditEvent]) -> Page[AuditEvent]:
    """Remove from the events what a principal with this scope may not see. Return the page.

    The vendor, whose `tenant_scope` is None, sees everything.
    """
    if tenant_scope is None:
        return page
    keys = {
        UUID(event.actor_id)
        for event in page.items
        if event.actor_kind == "api_key" and event.actor_id
    }
    query = select(ApiKey.id).where(ApiKey.id.in_(keys), ApiKey.tenant_id == tenant_scope)
    own = {("api_key", str(key_id)) for key_id in db.scalars(query)}
    for event in page.items:
        db.expunge(event)  # the changes below must not be stored
        kind = event.actor_kind
        if kind in _SHOWN or (kind, event.actor_id) in own:
            continue
        event.actor_name, event.client_address = "the vendor", None
        if kind not in _VENDORS:
            event.actor_id, event.request_id, event.details = None, None, {}
        elif "reason" in event.details:
            event.details |= {"reason": None}
    return page
