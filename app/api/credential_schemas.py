"""Requests for credentials, and the two shapes of their answers."""

from collections.abc import Callable
from typing import Any

from marshmallow import ValidationError, fields

from app.api.kit.schemas import ACCOUNT, ROLE, Answer, Strict, doc, line, string
from app.issuing.issue import DURATION_DEFAULT, Issued
from app.settings.checks import SESSION_MAX, SESSION_MIN
from app.strict_json import JsonObject

_POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}],
}
_ANY_OBJECT = {"type": "object", "additionalProperties": True}
_POLICY_OBJECT = {
    "type": "object",
    "properties": {
        "Version": {"type": "string"},
        "Statement": {
            "oneOf": [{"type": "array", "items": _ANY_OBJECT, "minItems": 1}, _ANY_OBJECT]
        },
    },
    "required": ["Statement"],
    "additionalProperties": True,
}
_POLICY_TEXT = {"type": "string", "pattern": r"^\s*\{[\s\S]*\}\s*$"}
_BOTH = "Limits this session to what both this policy and the role's permissions allow."
_NARROWS = doc(_POLICY, _BOTH, oneOf=[_POLICY_OBJECT, _POLICY_TEXT])
_HOW_LONG = (
    f"A whole number from {SESSION_MIN} to the connection's maximum. Default {DURATION_DEFAULT}."
)


class SessionPolicy(fields.Field[Any]):
    """An IAM policy document as a JSON object, or as a string that holds one."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> JsonObject | str:
        if not isinstance(value, dict | str):
            raise ValidationError("Must be a JSON object, or a string that holds one.")
        return value


class IssueIn(Strict):
    duration_seconds = fields.Integer(
        strict=True,
        metadata=doc(DURATION_DEFAULT, _HOW_LONG, minimum=SESSION_MIN, maximum=SESSION_MAX),
    )
    session_policy = SessionPolicy(metadata=_NARROWS)
    reason = line(200, "Nightly inventory", "For the audit log.")


ISSUE_IN = IssueIn()
# The only form that every AWS SDK parses: Java's Instant refuses +00:00
EXPIRATION = "%Y-%m-%dT%H:%M:%SZ"

# AWS's documentation uses this key, which belongs to no account
_KEY_ID = string("ASIAIOSFODNN7EXAMPLE", attribute="session.access_key_id")
_SECRET = string("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", attribute="session.secret_access_key")
_TOKEN = string("IQoJb3JpZ2luX2IQoJb3JpZ2luX2EXAMPLETOKEN", attribute="session.session_token")
_UTC = doc(
    "2026-01-31T13:00:00Z", openapi={"type": "string", "format": "date-time", "pattern": "^.+Z$"}
)
_EXPIRATION = fields.DateTime(format=EXPIRATION, attribute="session.expires_at", metadata=_UTC)
_ACCOUNT_ID = string(ACCOUNT, attribute="session.account_id")


class ProcessCredentials(Answer):
    """The JSON that credential_process must print.

    AccountId is included because endpoints of some AWS services contain the account.
    """

    Version = fields.Constant(1, metadata={"openapi": {"type": "integer", "const": 1}})
    AccessKeyId = _KEY_ID
    SecretAccessKey = _SECRET
    SessionToken = _TOKEN
    Expiration = _EXPIRATION
    AccountId = _ACCOUNT_ID


class ContainerCredentials(Answer):
    """The JSON that the server of AWS_CONTAINER_CREDENTIALS_FULL_URI must answer.

    `Token` is credential_process's SessionToken.
    """

    AccessKeyId = _KEY_ID
    SecretAccessKey = _SECRET
    Token = _TOKEN
    Expiration = _EXPIRATION
    AccountId = _ACCOUNT_ID
    RoleArn = string(ROLE, attribute="role_arn")


def process(issued: Issued) -> JsonObject:
    """Return ProcessCredentials as a dict for JSON."""
    return {"Version": 1} | _shown(issued, "SessionToken")


def container(issued: Issued) -> JsonObject:
    """Return ContainerCredentials as a dict for JSON."""
    return _shown(issued, "Token") | {"RoleArn": issued.role_arn}


def _shown(issued: Issued, token_name: str) -> JsonObject:
    session = issued.session
    return {
        "AccessKeyId": session.access_key_id,
        "SecretAccessKey": session.secret_access_key,
        token_name: session.session_token,
        # This is the format EXPIRATION. strftime takes four times as long.
        "Expiration": f"{session.expires_at.isoformat()[:19]}Z",
        "AccountId": session.account_id,
    }


Shape = Callable[[Issued], JsonObject]
# The last part of the path leads to its HTTP method and to the function that shapes the answer
SHAPES: dict[str, tuple[str, Shape]] = {
    "credentials": ("POST", process),
    "container-credentials": ("GET", container),
}
