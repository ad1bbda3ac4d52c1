"""The audit log, for reading."""

from typing import Any
from uuid import UUID

from app.access import Scope
from app.api.rest import Blueprint, caller, fails, paged, requires, services
from app.api.schemas import AuditEventOut, AuditQuery, page_of
from app.audit import Filter
from app.db import Page
from app.models import AuditEvent

bp = Blueprint(
    "audit_events", __name__, noun="audit_event", description="Who did what, when, to whose connection."
)


@bp.route("/v1/audit-events", methods=["GET"])
@requires(Scope.AUDIT_READ)
@fails(404)
@bp.arguments(AuditQuery, location="query")
@bp.response(200, page_of(AuditEventOut))
def list_audit_events(query: dict[str, Any]) -> dict[str, Any]:
    """List audit events, newest first

    A key that is bound to a tenant sees that tenant's events.
    """
    wanted = Filter(**{name: value for name, value in query.items() if name not in {"limit", "cursor"}})

    def fetch(*, limit: int, after: UUID | None) -> Page[AuditEvent]:
        return services().audit.events(caller().tenant_id, wanted, limit=limit, after=after)

    return paged(query, fetch)
