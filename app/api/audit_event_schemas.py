"""The audit log, as it is asked for and answered."""

from marshmallow import fields

from app.http.fields import Matches, Whole, like, one_of, time
from app.http.openapi import UUID_EXAMPLE
from app.http.schemas import Answer, PageQuery


class AuditQuery(PageQuery):
    tenant_id = fields.UUID()
    connection_id = fields.UUID()
    action = fields.String(validate=Matches(r"[a-z_]{1,31}\.[a-z_]{1,31}"), metadata=like("connection.suspended"))
    since = time()
    until = time()
    after = fields.UUID(metadata={"description": "The last event that you have; the answer is oldest first."})


class ActorOut(Answer):
    kind = fields.String(attribute="actor_kind", metadata=like("api_key"))
    id = fields.String(allow_none=True, attribute="actor_id", metadata=like(UUID_EXAMPLE))
    name = fields.String(attribute="actor_name", metadata=like("nightly worker"))


class AuditEventOut(Answer):
    id = fields.UUID()
    at = time()
    action = fields.String(metadata=like("connection.suspended", "noun.verb"))
    outcome = one_of("AuditOutcome", "ok", "refused", "failed")
    actor = Whole(ActorOut, metadata={"description": "Who or what acted."})
    tenant_id = fields.UUID(allow_none=True)
    connection_id = fields.UUID(allow_none=True)
    request_id = fields.String(allow_none=True, metadata=like("5f0e7a2b6c184d419c1f6e8a007c3b9d"))
    client_address = fields.String(
        allow_none=True, metadata=like("203.0.113.9", "Where the request came from; null for what was no request.")
    )
    details = fields.Dict(metadata=like({"reason": "Ticket 4711"}))
