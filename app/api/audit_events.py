"""The audit log, for reading."""

from typing import Any
from uuid import UUID

from app.access.callers import Scope
from app.api.audit_event_schemas import AuditEventOut, AuditQuery
from app.audit.log import Filter
from app.http.authentication import requires
from app.http.blueprint import Blueprint
from app.http.current import caller, services
from app.http.cursors import paged
from app.http.openapi import fails
from app.http.schemas import page_of
from app.store.models import AuditEvent
from app.store.pages import Page

bp = Blueprint("audit_events", __name__, noun="audit_event", description="Who did what, when, to whose connection.")


@bp.route("/v1/audit-events", methods=["GET"])
@requires(Scope.AUDIT_READ)
@fails(404)
@bp.arguments(AuditQuery, location="query")
@bp.response(200, page_of(AuditEventOut))
def list_audit_events(query: dict[str, Any]) -> dict[str, Any]:
    """List audit events, newest first; with `after`, oldest first, as a feed

    A key that is bound to a tenant sees that tenant's events. With `after` the list begins with the event that follows
    that one. An event comes into the feed some 20 seconds after it was made, and never before an older one: whoever
    reads on from the last event that they saw misses none. Begin with `00000000-0000-0000-0000-000000000000`.
    """
    own = {"limit", "cursor", "after"}
    wanted = Filter(**{name: value for name, value in query.items() if name not in own})

    def fetch(*, limit: int, after: UUID | None) -> Page[AuditEvent]:
        if "after" not in query:
            return services().audit.events(caller().tenant_id, wanted, limit=limit, after=after)
        after = after or query["after"]
        return services().audit.feed(caller().tenant_id, wanted, limit=limit, after=after)

    return paged(query, fetch)
