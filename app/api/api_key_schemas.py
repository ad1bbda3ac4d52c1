"""API keys, as they are asked for and answered."""

from typing import Any, ClassVar

from marshmallow import fields, validate

from app.access.api_keys import GRACE_SECONDS, GRACE_SECONDS_MAX
from app.access.callers import Scope
from app.http.fields import like, text, time
from app.http.schemas import Answer, Strict


def scopes(**options: Any) -> fields.List[Any]:
    return fields.List(
        fields.Enum(Scope, by_value=True), required=True, metadata=like(["credentials:issue"]), **options
    )


class KeyIn(Strict):
    EXAMPLE: ClassVar = {"name": "nightly worker", "scopes": ["credentials:issue"]}

    name = text(200, "nightly worker", required=True)
    scopes = scopes(validate=validate.Length(1, len(Scope)))
    tenant_id = fields.UUID(allow_none=True, metadata={"description": "Confine it to one tenant."})
    expires_at = time(allow_none=True)
    permission_sets = fields.List(
        text(64, "inventory"),
        allow_none=True,
        validate=validate.Length(1, 100),
        metadata={"description": "Credentials only for connections of these permission sets; null: of any."},
    )


class KeyOut(Answer):
    id = fields.UUID()
    name = fields.String(metadata=like("nightly worker"))
    scopes = scopes()
    tenant_id = fields.UUID(allow_none=True)
    permission_sets = fields.List(fields.String(metadata=like("inventory")), allow_none=True)
    made_by = fields.UUID(
        allow_none=True, metadata={"description": "The key that made it; null for one that the command line made."}
    )
    expires_at = time(allow_none=True)
    created_at = time()


class MadeOut(Answer):
    keys = fields.Integer(metadata=like(2))
    links = fields.Integer(metadata=like(1))


class KeyShown(KeyOut):
    made = fields.Nested(
        MadeOut, metadata={"description": "How many live keys and onboarding links are revoked when this key is."}
    )


class KeyCreated(KeyShown):
    key = fields.String(metadata=like("dpk_<16 hex>_<43 characters>", "Shown this once; only its hash is kept."))


class ReplaceIn(Strict):
    grace_seconds = fields.Integer(
        strict=True,
        load_default=GRACE_SECONDS,
        validate=validate.Range(0, GRACE_SECONDS_MAX),
        metadata=like(GRACE_SECONDS, "How long the old key goes on."),
    )
