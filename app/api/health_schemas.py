"""Health, as it is answered."""

from marshmallow import fields

from app.health.checks import Status
from app.http.fields import string
from app.http.schemas import Answer


class Ok(Answer):
    status = fields.Constant("ok", metadata={"openapi": {"type": "string", "const": "ok"}})


class CheckFinding(Answer):
    OPTIONAL = frozenset({"seen", "next"})

    name = string("workers")
    status = fields.Enum(Status, by_value=True, metadata={"component": "CheckStatus"})
    seen = string("1 seen in the last minute: flask 4711 on worker-1.", "What was found.")
    next = string("", "What to do; empty when there is nothing to do.")


class Readiness(Ok):
    checks = fields.List(fields.Nested(CheckFinding))
