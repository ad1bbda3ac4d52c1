"""Health, as it is answered."""

from marshmallow import fields

from app.health.checks import Status
from app.http.schemas import Answer, like


class Ok(Answer):
    status = fields.Constant("ok", required=True, metadata={"openapi": {"type": "string", "const": "ok"}})


class CheckFinding(Answer):
    name = fields.String(required=True, metadata=like("workers"))
    status = fields.Enum(Status, by_value=True, required=True, metadata={"component": "CheckStatus"})
    seen = fields.String(
        metadata=like(
            "1 seen in the last minute: flask 4711 on worker-1.", description="What was found, in numbers and words."
        )
    )
    next = fields.String(metadata=like("", description="What to do; empty when nothing is."))


class Readiness(Ok):
    checks = fields.List(fields.Nested(CheckFinding), required=True)
