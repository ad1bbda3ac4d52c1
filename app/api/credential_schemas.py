"""Credentials, as they are asked for and answered."""

from collections.abc import Callable
from typing import Any

from marshmallow import ValidationError, fields

from app.http.fields import ACCOUNT, ROLE, like, text
from app.http.schemas import Answer, Strict
from app.issuing.issue import DURATION_DEFAULT, DURATION_MIN, Issued

_POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}]}
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
        )
    )
    reason = text(200, "Nightly inventory", "For the audit log.")


ISSUE_IN = IssueIn()
EXPIRATION = "%Y-%m-%dT%H:%M:%SZ"  # the form that every AWS SDK parses (Java's Instant knows no +00:00)


def expiration() -> fields.DateTime:
    """UTC with a Z."""
    return fields.DateTime(
        format=EXPIRATION,
        attribute="session.expires_at",
        metadata=like("2026-01-31T13:00:00Z", openapi={"type": "string", "format": "date-time", "pattern": "^.+Z$"}),
    )


# The examples are AWS's own, which its documentation shows everywhere and AWS gives to nobody.
def _key_id() -> fields.String:
    return fields.String(attribute="session.access_key_id", metadata=like("ASIAIOSFODNN7EXAMPLE"))


def _secret() -> fields.String:
    example = like("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    return fields.String(attribute="session.secret_access_key", metadata=example)


def _session_token() -> fields.String:
    example = like("IQoJb3JpZ2luX2IQoJb3JpZ2luX2EXAMPLETOKEN")
    return fields.String(attribute="session.session_token", metadata=example)


def _account_id() -> fields.String:
    return fields.String(attribute="session.account_id", metadata=like(ACCOUNT))


class ProcessCredentials(Answer):
    """What credential_process must print, and the account, which endpoints of some AWS services hold."""

    Version = fields.Constant(1, metadata={"openapi": {"type": "integer", "const": 1}})
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
    RoleArn = fields.String(attribute="role_arn", metadata=like(ROLE))


def process(issued: Issued) -> dict[str, Any]:
    """ProcessCredentials, for JSON."""
    return {
        "Version": 1,
        "AccessKeyId": issued.session.access_key_id,
        "SecretAccessKey": issued.session.secret_access_key,
        "SessionToken": issued.session.session_token,
        "Expiration": issued.session.expires_at.strftime(EXPIRATION),
        "AccountId": issued.session.account_id,
    }


def container(issued: Issued) -> dict[str, Any]:
    """ContainerCredentials, for JSON."""
    return {
        "AccessKeyId": issued.session.access_key_id,
        "SecretAccessKey": issued.session.secret_access_key,
        "Token": issued.session.session_token,
        "Expiration": issued.session.expires_at.strftime(EXPIRATION),
        "AccountId": issued.session.account_id,
        "RoleArn": issued.role_arn,
    }


# What the two routes' paths end in: how they are asked, and what they answer.
SHAPES: dict[str, tuple[str, Callable[[Issued], dict[str, Any]]]] = {
    "credentials": ("POST", process),
    "container-credentials": ("GET", container),
}
