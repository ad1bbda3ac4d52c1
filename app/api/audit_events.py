"""The audit log."""

from functools import partial
from typing import Any

from marshmallow import fields

from app.api.kit.blueprint import Blueprint, JsonObject, filters_of, paged, principal, services
from app.api.kit.pagination import PageQuery, page_of
from app.api.kit.schemas import (
    UUID_EXAMPLE,
    Answer,
    date_time,
    doc,
    matching,
    nested,
    nullable_string,
    nullable_uuid,
    one_of,
    string,
    uuid,
)
from app.audit.events import ACTIONS, DETAILS, Action
from app.audit.log import EventFilter
from app.ids import ACCESS_KEY_ID

_ACCESS_KEY = "Of a session: the issuances in which a web process handed it out for the first time."


def _list_details(action: Action[Any]) -> str:
    names = ", ".join(f"`{name}`" for name in action.schema["properties"])
    return f"- `{action}`: {names or 'none'}"


_OF_ACTIONS = "\n".join(map(_list_details, ACTIONS.values()))


class AuditQuery(PageQuery):
    tenant_id = uuid()
    connection_id = uuid()
    api_key_id = uuid(
        "That acted. A page may be short, or empty, before the last one; not with `after`."
    )
    access_key_id = matching(ACCESS_KEY_ID.pattern, "ASIAIOSFODNN7EXAMPLE", _ACCESS_KEY)
    action = matching(r"[a-z_]{1,31}\.[a-z_]{1,31}", "connection.suspended")
    since = date_time()
    until = date_time()
    after = uuid("The last event that you have. The answer is oldest first.")


class ActorOut(Answer):
    kind = string("api_key", attribute="actor_kind")
    id = nullable_string(UUID_EXAMPLE, attribute="actor_id")
    name = string("nightly worker", attribute="actor_name")


_ACTOR = ActorOut()


class AuditEventOut(Answer):
    id = uuid()
    at = date_time()
    action = string("connection.suspended", "noun.verb")
    outcome = one_of("AuditOutcome", "ok", "refused", "failed")
    actor = nested(ActorOut, "Who or what acted.")
    tenant_id = nullable_uuid()
    connection_id = nullable_uuid()
    request_id = nullable_string("5f0e7a2b6c184d419c1f6e8a007c3b9d")
    client_address = nullable_string(
        "203.0.113.9", "The IP address of the request; null without a request."
    )
    details = fields.Dict(
        metadata=doc(
            {"was": "verified", "version": 7, "reason": "Ticket 4711"},
            f"Of the event's action:\n\n{_OF_ACTIONS}",
            openapi={"properties": DETAILS},
        )
    )

    def read_actor(self, event: Any) -> Any:
        return _ACTOR.dump(event)


bp = Blueprint("audit_events", "Who did what, when, and to which connection.", noun="audit_event")


@bp.operation(
    "GET", "/v1/audit-events", "audit:read", page_of(AuditEventOut), takes=AuditQuery, fails=[404]
)
def list_audit_events(query: JsonObject) -> JsonObject:
    """List audit events, newest first; with `after`, oldest first, as a feed.

    A key that is bound to a tenant sees that tenant's events. With `after`, the list begins with
    the event that follows the given one. An event enters the feed about 20 seconds after it was
    made, and never before an older event. A reader that passes the id of its last event as `after`
    misses none. The first `after` is `00000000-0000-0000-0000-000000000000`.
    """
    filters = filters_of(query)
    if "action" in filters:
        filters["actions"] = (filters.pop("action"),)
    read = partial(services.audit.events, oldest_first="after" in query)
    return paged(query, read, principal().tenant_scope, EventFilter(**filters))
