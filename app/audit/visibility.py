"""Visibility: which actors a tenant sees in its audit events.

The two lists below allow it, by the kind of actor. An actor of any other kind shows nothing.
"""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store.models import ApiKey, AuditEvent
from app.store.pages import Page

# The kinds of actors of whom a tenant sees everything, as of its own API keys
_SHOWN = frozenset({"onboarding_link", "registration", "worker"})
# The kinds of whom it does not see the name, the address and the reasons
_VENDORS = frozenset({"api_key", "operator"})


def hide_actors(db: Session, tenant_scope: UUID | None, page: Page[AuditEvent]) -> Page[AuditEvent]:
    """Return the page without what a principal with this scope may not see.

    The vendor sees everything.
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
