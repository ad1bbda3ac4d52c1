"""The audit log, as it is asked for and answered."""

from marshmallow import fields

from app.http.fields import Time, Whole, like, matching, one_of, string
from app.http.openapi import UUID_EXAMPLE
from app.http.schemas import Answer, PageQuery


class AuditQuery(PageQuery):
    tenant_id = fields.UUID()
    connection_id = fields.UUID()
    action = matching(r"[a-z_]{1,31}\.[a-z_]{1,31}", "connection.suspended")
    since = Time()
    until = Time()
    after = fields.UUID(metadata={"description": "The last event that you have. The answer is oldest first."})


class ActorOut(Answer):
    kind = string("api_key", attribute="actor_kind")
    id = string(UUID_EXAMPLE, allow_none=True, attribute="actor_id")
    name = string("nightly worker", attribute="actor_name")


class AuditEventOut(Answer):
    id = fields.UUID()
    at = Time()
    action = string("connection.suspended", "noun.verb")
    outcome = one_of("AuditOutcome", "ok", "refused", "failed")
    actor = Whole(ActorOut, metadata={"description": "Who or what acted."})
    tenant_id = fields.UUID(allow_none=True)
    connection_id = fields.UUID(allow_none=True)
    request_id = string("5f0e7a2b6c184d419c1f6e8a007c3b9d", allow_none=True)
    client_address = string("203.0.113.9", "The IP address of the request; null without a request.", allow_none=True)
    details = fields.Dict(metadata=like({"reason": "Ticket 4711"}))
