"""What goes in and what comes out, field by field.

Unknown fields of a request are refused, and so says the OpenAPI document. Answers may gain fields in later releases:
the document does not close them.
"""

import enum
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, pre_load, validate

from app.health.checks import Status
from app.http.openapi import UUID_EXAMPLE
from app.issuing.issue import DURATION_DEFAULT, DURATION_MIN

_LONGEST = 4096  # characters or items of a value whose field says nothing of its length


class Strict(Schema):
    class Meta:
        unknown = RAISE  # the default; spelled out, as it also says additionalProperties: false in OpenAPI

    @pre_load
    def _within_bounds(self, data: Any, **_: Any) -> Any:
        """Count what a value holds before any of it is read: too long a list must not cost what its items do."""
        if isinstance(data, Mapping):
            problems = dict(filter(all, ((name, _too_long(f, data.get(name))) for name, f in self.fields.items())))
            if problems:
                raise ValidationError(problems)
        return data


def _too_long(field: Any, value: Any) -> list[str] | None:
    if not isinstance(value, str | list):
        return None
    lengths = (one.max for one in field.validators if isinstance(one, validate.Length))
    most = next(lengths, None) or _LONGEST
    return [f"Must not be longer than {most}."] if len(value) > most else None


class Answer(Schema):
    class Meta:
        unknown = EXCLUDE  # no answer is ever loaded; said because it leaves additionalProperties out of OpenAPI


def like(example: Any, description: str | None = None, **more: Any) -> dict[str, Any]:
    """A field's metadata: what it may look like, and what it is."""
    return {"examples": [example]} | ({"description": description} if description else {}) | more


def text(maximum: int, example: str, description: str | None = None, **options: Any) -> fields.String:
    """One line of printable text: databases, logs and CloudTrail all show it as it was meant."""
    metadata = like(example, description, openapi={"pattern": _LINE})
    return fields.String(validate=[validate.Length(1, maximum), _printable], metadata=metadata, **options)


# What of `_printable` every dialect of regular expressions can say: no line break or control character, not blank.
_LINE = r"^ *[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u00a0\u2028\u2029]*$"


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


class Whole(fields.Nested):
    """A nested object that is made of the very object it is nested in."""

    def get_value(self, obj: Any, *_: Any, **__: Any) -> Any:
        return obj


class Empty(Strict):
    """A body with nothing in it, for what needs no more than its path."""


# --- lists ---


def status(kind: type[enum.StrEnum], example: str, **options: Any) -> fields.Enum[Any]:
    """A status as it is shown: what is deleted is shown to nobody."""
    metadata = like(example, openapi={"enum": [member.value for member in kind if member.value != "deleted"]})
    return fields.Enum(kind, by_value=True, validate=_not_deleted, metadata=metadata, **options)


def _not_deleted(value: enum.StrEnum) -> None:
    if value.value == "deleted":
        raise ValidationError("What is deleted is not shown.")


class Statuses(fields.List[Any]):
    """Some statuses, separated by commas; each once and in the alphabet's order, as cursors name them."""

    is_multiple = False  # webargs: the parameter is given once

    def __init__(self, kind: type[enum.StrEnum], *examples: str) -> None:
        self._most = len(kind) - 1  # all but what is deleted
        bounds = {"minItems": 1, "maxItems": self._most}
        described = like([*examples], "One, or several separated by commas.", openapi=bounds)
        super().__init__(status(kind, examples[0]), metadata=described)

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> list[Any]:
        if not value or value.count(",") >= self._most:
            raise ValidationError(f"Between 1 and {self._most} of them, separated by commas.")
        return sorted(set(super()._deserialize(value.split(","), attr, data, **kwargs)))


def one_of(component: str, *values: str) -> fields.String:
    """One of a few words, in an answer. `component`: what generated clients call the type."""
    return fields.String(required=True, validate=validate.OneOf(values), metadata=like(values[0], component=component))


_CURSOR = "IjAxOWMxZjZlLThhMDAtN2MzYi05ZDQxLTVmMGU3YTJiNmMxOCI.aBcD1234"


class PageQuery(Strict):
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 200), metadata=like(50))
    cursor = fields.String(validate=validate.Length(1, 500), metadata=like(_CURSOR, "next_cursor of the page before."))


def page_of(item: type[Schema]) -> type[Schema]:
    """The schema of one page of a list."""
    members = {
        "items": fields.List(fields.Nested(item), required=True),
        "next_cursor": fields.String(
            required=True, allow_none=True, metadata=like(_CURSOR, "null after the last page.")
        ),
    }
    return type(f"{item.__name__}Page", (Answer,), members)


# What examples name.
ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/deputy-7a2b6c18"
EXTERNAL_ID = "dpy-" + "0123456789abcdef" * 4


# --- credentials ---

_POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}],
}
_ANY_OBJECT = {"type": "object", "additionalProperties": True}
_POLICY_OBJECT = {
    "type": "object",
    "properties": {
        "Version": {"type": "string"},
        "Statement": {"oneOf": [{"type": "array", "items": _ANY_OBJECT, "minItems": 1}, _ANY_OBJECT]},
    },
    "required": ["Statement"],
    "additionalProperties": True,
}


class SessionPolicy(fields.Field[Any]):
    """An IAM policy document as a JSON object, or as a string that holds one."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> dict[str, Any] | str:  # noqa: ARG002
        if not isinstance(value, dict | str):
            raise ValidationError("Must be a JSON object, or a string that holds one.")
        return value


class IssueIn(Strict):
    duration_seconds = fields.Integer(
        strict=True,
        metadata=like(
            DURATION_DEFAULT,
            f"A whole number from {DURATION_MIN} to the connection's maximum. Default {DURATION_DEFAULT}.",
            minimum=DURATION_MIN,
            maximum=43_200,
        ),
    )
    session_policy = SessionPolicy(
        metadata=like(
            _POLICY,
            "Narrows what the role may do, for this session only; it never widens.",
            oneOf=[_POLICY_OBJECT, {"type": "string", "pattern": r"^\s*\{[\s\S]*\}\s*$"}],
        ),
    )
    reason = text(200, "Nightly inventory", "For the audit log.")


EXPIRATION = "%Y-%m-%dT%H:%M:%SZ"  # the form that every AWS SDK parses (Java's Instant knows no +00:00)


def expiration() -> fields.DateTime:
    """UTC with a Z."""
    return fields.DateTime(
        format=EXPIRATION,
        required=True,
        attribute="session.expires_at",
        metadata=like("2026-01-31T13:00:00Z", openapi={"type": "string", "format": "date-time", "pattern": "^.+Z$"}),
    )


# The examples are AWS's own, which its documentation shows everywhere and AWS gives to nobody.
def _key_id() -> fields.String:
    return fields.String(required=True, attribute="session.access_key_id", metadata=like("ASIAIOSFODNN7EXAMPLE"))


def _secret() -> fields.String:
    example = like("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    return fields.String(required=True, attribute="session.secret_access_key", metadata=example)


def _session_token() -> fields.String:
    example = like("IQoJb3JpZ2luX2IQoJb3JpZ2luX2EXAMPLETOKEN")
    return fields.String(required=True, attribute="session.session_token", metadata=example)


def _account_id() -> fields.String:
    return fields.String(required=True, attribute="session.account_id", metadata=like(ACCOUNT))


class ProcessCredentials(Answer):
    """What credential_process must print, and the account, which endpoints of some AWS services hold."""

    Version = fields.Constant(1, required=True, metadata={"openapi": {"type": "integer", "const": 1}})
    AccessKeyId = _key_id()
    SecretAccessKey = _secret()
    SessionToken = _session_token()
    Expiration = expiration()
    AccountId = _account_id()


class ContainerCredentials(Answer):
    """What AWS_CONTAINER_CREDENTIALS_FULL_URI must answer; note `Token`, where credential_process says SessionToken."""

    AccessKeyId = _key_id()
    SecretAccessKey = _secret()
    Token = _session_token()
    Expiration = expiration()
    AccountId = _account_id()
    RoleArn = fields.String(required=True, attribute="role_arn", metadata=like(ROLE))


# --- audit ---


class AuditQuery(PageQuery):
    tenant_id = fields.UUID()
    connection_id = fields.UUID()
    action = fields.String(validate=Matches(r"[a-z_]{1,31}\.[a-z_]{1,31}"), metadata=like("connection.suspended"))
    since = time()
    until = time()
    after = fields.UUID(metadata={"description": "The last event that you have; the answer is oldest first."})


class ActorOut(Answer):
    kind = fields.String(required=True, attribute="actor_kind", metadata=like("api_key"))
    id = fields.String(required=True, allow_none=True, attribute="actor_id", metadata=like(UUID_EXAMPLE))
    name = fields.String(required=True, attribute="actor_name", metadata=like("nightly worker"))


class AuditEventOut(Answer):
    id = fields.UUID(required=True)
    at = time(required=True)
    action = fields.String(required=True, metadata=like("connection.suspended", "noun.verb"))
    outcome = one_of("AuditOutcome", "ok", "refused", "failed")
    actor = Whole(ActorOut, required=True, metadata={"description": "Who or what acted."})
    tenant_id = fields.UUID(required=True, allow_none=True)
    connection_id = fields.UUID(required=True, allow_none=True)
    request_id = fields.String(required=True, allow_none=True, metadata=like("5f0e7a2b6c184d419c1f6e8a007c3b9d"))
    client_address = fields.String(
        required=True,
        allow_none=True,
        metadata=like("203.0.113.9", "Where the request came from; null for what was no request."),
    )
    details = fields.Dict(required=True, metadata=like({"reason": "Ticket 4711"}))


# --- health ---


class Ok(Answer):
    status = fields.Constant("ok", required=True, metadata={"openapi": {"type": "string", "const": "ok"}})


class CheckFinding(Answer):
    name = fields.String(required=True, metadata=like("workers"))
    status = fields.Enum(Status, by_value=True, required=True, metadata={"component": "CheckStatus"})
    seen = fields.String(
        metadata=like(
            "1 seen in the last minute: flask 4711 on worker-1.",
            description="What was found, in numbers and words.",
        )
    )
    next = fields.String(metadata=like("", description="What to do; empty when nothing is."))


class Readiness(Ok):
    checks = fields.List(fields.Nested(CheckFinding), required=True)
