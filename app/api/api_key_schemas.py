"""API keys, as they are asked for and answered."""

from typing import Any, ClassVar

from marshmallow import fields, validate

from app.access.api_keys import GRACE_SECONDS, GRACE_SECONDS_MAX
from app.access.callers import Scope
from app.http.fields import Time, like, string, text
from app.http.schemas import Answer, Strict


def scopes(**options: Any) -> fields.List[Any]:
    return fields.List(fields.Enum(Scope, by_value=True), metadata=like(["credentials:issue"]), **options)


class KeyIn(Strict):
    EXAMPLE: ClassVar = {"name": "nightly worker", "scopes": ["credentials:issue"]}

    name = text(200, "nightly worker", required=True)
    scopes = scopes(required=True, validate=validate.Length(1, len(Scope)))
    tenant_id = fields.UUID(allow_none=True, metadata={"description": "Bind the key to one tenant."})
    expires_at = Time(allow_none=True)
    permission_sets = fields.List(
        text(64, "inventory"),
        allow_none=True,
        validate=validate.Length(1, 100),
        metadata={"description": "Credentials only for connections of these permission sets; null: of any."},
    )


class KeyOut(Answer):
    id = fields.UUID()
    name = string("nightly worker")
    scopes = scopes()
    tenant_id = fields.UUID(allow_none=True)
    permission_sets = fields.List(string("inventory"), allow_none=True)
    made_by = fields.UUID(
        allow_none=True, metadata={"description": "The key that made it; null: it was made on the command line."}
    )
    expires_at = Time(allow_none=True)
    created_at = Time()


class MadeOut(Answer):
    keys = fields.Integer(metadata=like(2))
    links = fields.Integer(metadata=like(1))


class KeyShown(KeyOut):
    made = fields.Nested(
        MadeOut, metadata={"description": "How many live keys and onboarding links are revoked together with this key."}
    )


class KeyCreated(KeyShown):
    key = string("dpk_<16 hex>_<43 characters>", "Shown only in this answer; Deputy keeps its hash.")


class ReplaceIn(Strict):
    grace_seconds = fields.Integer(
        strict=True,
        load_default=GRACE_SECONDS,
        validate=validate.Range(0, GRACE_SECONDS_MAX),
        metadata=like(GRACE_SECONDS, "How long the old key keeps working."),
    )
