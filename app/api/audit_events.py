"""The audit log."""

from typing import Any
from uuid import UUID

from app.access.callers import Scope
from app.api.audit_event_schemas import AuditEventOut, AuditQuery
from app.audit.log import Filter
from app.http.authentication import requires
from app.http.blueprint import Blueprint
from app.http.current import caller, services
from app.http.cursors import paged
from app.http.schemas import page_of
from app.store.models import AuditEvent
from app.store.pages import Page

bp = Blueprint(
    "audit_events", __name__, noun="audit_event", description="Who did what and when, and to which connection."
)


@bp.route("/v1/audit-events", methods=["GET"])
@requires(Scope.AUDIT_READ, fails=[404])
@bp.arguments(AuditQuery, location="query")
@bp.response(200, page_of(AuditEventOut))
def list_audit_events(query: dict[str, Any]) -> dict[str, Any]:
    """List audit events, newest first; with `after`, oldest first, as a feed

    A key that is bound to a tenant sees that tenant's events. With `after` the list begins with the event that follows
    that one. An event enters the feed about 20 seconds after it was made and never before an older one, so a reader
    that goes on from its last event misses none. Begin with `00000000-0000-0000-0000-000000000000`.
    """
    wanted = Filter(**{name: value for name, value in query.items() if name not in {"limit", "cursor", "after"}})

    def fetch(*, limit: int, after: UUID | None) -> Page[AuditEvent]:
        if "after" in query:
            return services().audit.feed(caller().tenant_id, wanted, limit=limit, after=after or query["after"])
        return services().audit.events(caller().tenant_id, wanted, limit=limit, after=after)

    return paged(query, fetch)
