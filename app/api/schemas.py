"""What goes in and what comes out, field by field. Unknown fields are refused, and so says the OpenAPI document."""

import enum
import re
from datetime import UTC, datetime
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate, validates_schema

from app.access import Scope
from app.ids import ACCOUNT_ID_PATTERN
from app.models import ConnectionStatus, TenantStatus, Verdict
from app.vending import DURATION_DEFAULT, DURATION_MIN


class Strict(Schema):
    class Meta:
        unknown = RAISE  # the default; spelled out, as it also says additionalProperties: false in OpenAPI


def text(maximum: int, **options: Any) -> fields.String:
    """One line of printable text: databases, logs and CloudTrail all show it as it was meant."""
    return fields.String(validate=[validate.Length(1, maximum), _printable], **options)


def _printable(value: str) -> None:
    if not value.isprintable():
        raise ValidationError("Only printable characters, on one line.")
    if not value.strip():
        raise ValidationError("Must not be blank.")


class Matches(validate.Regexp):
    """The whole text matches: `match` with `$`, as marshmallow does it, lets a trailing newline pass."""

    def __init__(self, pattern: str) -> None:
        super().__init__(f"^{pattern}$", re.ASCII)
        self._whole = re.compile(pattern, re.ASCII)

    def __call__(self, value: Any) -> Any:
        if not self._whole.fullmatch(value):
            raise ValidationError(f"Must match {self._whole.pattern}")
        return value


class Time(fields.AwareDateTime):
    """An ISO 8601 time with its offset, in UTC from here on."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> datetime:
        given: datetime = super()._deserialize(value, attr, data, **kwargs)
        if not 1970 <= given.year <= 9998:  # outside, turning it into UTC may overflow
            raise ValidationError("Must be between the years 1970 and 9998.")
        return given.astimezone(UTC)


def time(**options: Any) -> Time:
    return Time(format="iso", **options)


class Empty(Strict):
    """A body with nothing in it, for what needs no more than its path."""


# --- lists ---


def status(kind: type[enum.StrEnum], **options: Any) -> fields.Enum[Any]:
    """A status as it is shown: what is deleted is shown to nobody."""
    shown = [member.value for member in kind if member.value != "deleted"]
    return fields.Enum(
        kind, by_value=True, validate=_not_deleted, metadata={"openapi": {"enum": shown}}, **options
    )


def _not_deleted(value: enum.StrEnum) -> None:
    if value.value == "deleted":
        raise ValidationError("What is deleted is not shown.")


class PageQuery(Strict):
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 200))
    cursor = fields.String(
        validate=validate.Length(1, 500),
        metadata={"description": "next_cursor of the page before."},
    )


def page_of(item: type[Schema]) -> type[Schema]:
    """The schema of one page of a list."""
    members = {
        "items": fields.List(fields.Nested(item), required=True),
        "next_cursor": fields.String(
            required=True, allow_none=True, metadata={"description": "null after the last page."}
        ),
    }
    return type(f"{item.__name__}Page", (Strict,), members)


# --- tenants ---


class Reason(Strict):
    reason = text(200, required=True, metadata={"description": "For the audit log."})


class TenantIn(Strict):
    name = text(200, required=True)
    reference = text(200, allow_none=True, metadata={"description": "Your own id for it; unique."})


class TenantChange(Strict):
    name = text(200)
    reference = text(200, allow_none=True)


class TenantQuery(PageQuery):
    reference = text(200)


class TenantOut(Strict):
    id = fields.UUID(required=True)
    name = fields.String(required=True)
    reference = fields.String(required=True, allow_none=True)
    status = status(TenantStatus, required=True)
    external_id = fields.String(
        required=True, metadata={"description": "Made here; not a secret; never changes hands."}
    )
    created_at = time(required=True)


# --- connections ---


class ConnectionIn(Strict):
    role_arn = fields.String(validate=validate.Length(20, 2048))
    account_id = fields.String(
        validate=Matches(ACCOUNT_ID_PATTERN),
        metadata={
            "description": "Instead of role_arn: Deputy looks for the onboarding kit's role in this account by itself."
        },
    )
    permission_set = text(64)

    @validates_schema
    def _names_one_role(self, data: dict[str, Any], **_: Any) -> None:
        given = {"role_arn", "account_id"} & data.keys()
        if len(given) != 1:
            raise ValidationError(
                "Give either role_arn or account_id.", "account_id" if given else "role_arn"
            )


class ConnectionSummary(Strict):
    total = fields.Integer(required=True)
    by_status = fields.Dict(
        keys=fields.Enum(ConnectionStatus, by_value=True),
        values=fields.Integer(),
        required=True,
        metadata={"description": "How many there are in each status; a status that none is in is left out."},
    )


class ConnectionQuery(PageQuery):
    status = status(ConnectionStatus)
    account_id = fields.String(validate=Matches(ACCOUNT_ID_PATTERN))


class CheckOut(Strict):
    name = fields.String(required=True)
    outcome = fields.String(
        required=True, validate=validate.OneOf(["passed", "failed", "inconclusive", "skipped"])
    )
    detail = fields.String(
        required=True, metadata={"description": "What to change, when there is something."}
    )


class VerificationOut(Strict):
    verdict = fields.Enum(Verdict, by_value=True, required=True)
    checks = fields.List(fields.Nested(CheckOut), required=True)
    checked_at = time(required=True)


class ConnectionOut(Strict):
    id = fields.UUID(required=True)
    tenant_id = fields.UUID(required=True)
    role_arn = fields.String(required=True)
    account_id = fields.String(required=True)
    external_id = fields.String(required=True)
    status = status(ConnectionStatus, required=True)
    permission_set = fields.String(required=True)
    verification = fields.Nested(
        VerificationOut,
        attribute="proof",
        required=True,
        allow_none=True,
        metadata={"description": "The latest proof; null until the first."},
    )
    created_at = time(required=True)
    verified_at = time(required=True, allow_none=True, metadata={"description": "When it was last proven."})


# --- credentials ---


class SessionPolicy(fields.Field[Any]):
    """An IAM policy document as a JSON object, or as a string that holds one."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> dict[str, Any] | str:  # noqa: ARG002
        if not isinstance(value, dict | str):
            raise ValidationError("Must be a JSON object, or a string that holds one.")
        return value


class IssueIn(Strict):
    duration_seconds = fields.Integer(
        strict=True,
        metadata={
            "description": f"A whole number from {DURATION_MIN} to the connection's maximum. Default {DURATION_DEFAULT}.",
            "minimum": DURATION_MIN,
            "maximum": 43_200,
        },
    )
    session_policy = SessionPolicy(
        metadata={
            "oneOf": [{"type": "object"}, {"type": "string"}],
            "description": "Narrows what the role may do, for this session only; it never widens.",
        },
    )
    reason = text(200, metadata={"description": "For the audit log."})


EXPIRATION = "%Y-%m-%dT%H:%M:%SZ"  # the form that every AWS SDK parses (Java's Instant knows no +00:00)


def expiration() -> fields.DateTime:
    """UTC with a Z."""
    return fields.DateTime(
        format=EXPIRATION,
        required=True,
        attribute="session.expires_at",
        metadata={"openapi": {"type": "string", "format": "date-time", "pattern": "^.+Z$"}},
    )


class ProcessCredentials(Strict):
    """Exactly what credential_process must print."""

    Version = fields.Constant(1, required=True, metadata={"openapi": {"type": "integer", "const": 1}})
    AccessKeyId = fields.String(required=True, attribute="session.access_key_id")
    SecretAccessKey = fields.String(required=True, attribute="session.secret_access_key")
    SessionToken = fields.String(required=True, attribute="session.session_token")
    Expiration = expiration()


class ContainerCredentials(Strict):
    """What AWS_CONTAINER_CREDENTIALS_FULL_URI must answer; note `Token`, where credential_process says SessionToken."""

    AccessKeyId = fields.String(required=True, attribute="session.access_key_id")
    SecretAccessKey = fields.String(required=True, attribute="session.secret_access_key")
    Token = fields.String(required=True, attribute="session.session_token")
    Expiration = expiration()
    AccountId = fields.String(required=True, attribute="session.account_id")
    RoleArn = fields.String(required=True, attribute="role_arn")


# --- API keys ---


class KeyIn(Strict):
    name = text(200, required=True)
    scopes = fields.List(
        fields.Enum(Scope, by_value=True), required=True, validate=validate.Length(1, len(Scope))
    )
    tenant_id = fields.UUID(allow_none=True, metadata={"description": "Confine it to one tenant."})
    expires_at = time(allow_none=True)


class KeyOut(Strict):
    id = fields.UUID(required=True)
    name = fields.String(required=True)
    scopes = fields.List(fields.Enum(Scope, by_value=True), required=True)
    tenant_id = fields.UUID(required=True, allow_none=True)
    expires_at = time(required=True, allow_none=True)
    created_at = time(required=True)


class KeyCreated(KeyOut):
    key = fields.String(required=True, metadata={"description": "Shown this once; only its hash is kept."})


# --- audit ---


class AuditQuery(PageQuery):
    tenant_id = fields.UUID()
    connection_id = fields.UUID()
    action = fields.String(validate=Matches(r"[a-z_]{1,31}\.[a-z_]{1,31}"))
    since = time()
    until = time()


class ActorOut(Strict):
    kind = fields.String(required=True, attribute="actor_kind")
    id = fields.String(required=True, allow_none=True, attribute="actor_id")
    name = fields.String(required=True, attribute="actor_name")


class AuditEventOut(Strict):
    id = fields.UUID(required=True)
    at = time(required=True)
    action = fields.String(required=True, metadata={"description": "noun.verb"})
    outcome = fields.String(required=True, validate=validate.OneOf(["ok", "refused", "failed"]))
    actor = fields.Function(
        lambda event: ActorOut().dump(event),
        required=True,
        metadata={"type": "object", "description": "kind, id and name of whoever acted."},
    )
    tenant_id = fields.UUID(required=True, allow_none=True)
    connection_id = fields.UUID(required=True, allow_none=True)
    request_id = fields.String(required=True, allow_none=True)
    details = fields.Dict(required=True)


# --- health ---


class Ok(Strict):
    status = fields.Constant("ok", required=True)
