"""Credentials, in the two shapes that AWS's SDKs read.

A web process answers plain requests (app/http/plain_requests.py) by `PlainCredentials`, without
gunicorn's parser and without Flask. The views answer all other requests. They also answer a plain
request whose key is not in this process's memory, or whose key or body may be refused. If a plain
request fails later, Flask only raises, answers and records its exception. So rate limits count the
request once, and it waits once.
"""

import functools
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from flask import g, request as flask_request
from marshmallow import INCLUDE, Schema, ValidationError, fields, validate
from werkzeug.exceptions import MethodNotAllowed

from app import strict_json
from app.api.kit.authentication import from_memory, refusals_for_good_keys
from app.api.kit.blueprint import Blueprint, JsonObject, Scope, principal, services
from app.api.kit.schemas import ACCOUNT, ROLE, Answer, Strict, doc, line, statement, string
from app.concurrency.places import without_slot
from app.http.current_request import client_address
from app.http.plain_requests import REQUEST_ID, PlainRequest, format_answer, new_request_id
from app.issuing.issue import DURATION_DEFAULT, Issued
from app.limits.request_costs import price_of_body
from app.services import Services
from app.settings.valid_values import SESSION_MAX, SESSION_MIN

_POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}],
}


class SessionPolicyDocument(Schema):
    """The part of an IAM policy document that is checked before AWS sees it."""

    class Meta:
        unknown = INCLUDE

    Version = string("2012-10-17")
    Statement = fields.Raw(
        required=True,
        metadata=doc(
            _POLICY["Statement"],
            one_of=[fields.List(statement(), validate=validate.Length(1)), statement()],
        ),
    )


_POLICY_TEXT = fields.String(metadata={"openapi": {"pattern": r"^\s*\{[\s\S]*\}\s*$"}})
_BOTH = "Limits this session to what both this policy and the role's permissions allow."
_NARROWS = doc(_POLICY, _BOTH, one_of=[SessionPolicyDocument, _POLICY_TEXT])
_HOW_LONG = (
    f"A whole number from {SESSION_MIN} to the deployment's maximum. Default {DURATION_DEFAULT}, or"
    " the maximum if that is less."
)


class SessionPolicy(fields.Field[Any]):
    """An IAM policy document as a JSON object, or as a string that holds one."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> JsonObject | str:
        if not isinstance(value, dict | str):
            raise ValidationError("Must be a JSON object, or a string that holds one.")
        return value


class CredentialsRequest(Strict):
    duration_seconds = fields.Integer(
        strict=True,
        metadata=doc(DURATION_DEFAULT, _HOW_LONG, minimum=SESSION_MIN, maximum=SESSION_MAX),
    )
    session_policy = SessionPolicy(metadata=_NARROWS)
    reason = line(200, "Nightly inventory", "For the audit log.")


_CREDENTIALS_REQUEST = CredentialsRequest()
# AWS's documentation uses this key, which belongs to no account
_KEY_ID = string("ASIAIOSFODNN7EXAMPLE")
_SECRET = string("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
_TOKEN = string("IQoJb3JpZ2luX2IQoJb3JpZ2luX2EXAMPLETOKEN")
# The only form of a time that every AWS SDK parses: Java's Instant refuses +00:00
_EXPIRATION = fields.String(
    metadata=doc("2026-01-31T13:00:00Z", format="date-time", pattern="^.+Z$")
)


class ProcessCredentials(Answer):
    """The JSON that credential_process must print.

    AccountId is included because endpoints of some AWS services contain the account.
    """

    Version = fields.Constant(1, metadata={"openapi": {"type": "integer", "const": 1}})
    AccessKeyId = _KEY_ID
    SecretAccessKey = _SECRET
    SessionToken = _TOKEN
    Expiration = _EXPIRATION
    AccountId = string(ACCOUNT)


class ContainerCredentials(Answer):
    """The JSON that the server of AWS_CONTAINER_CREDENTIALS_FULL_URI must answer.

    `Token` is credential_process's SessionToken.
    """

    AccessKeyId = _KEY_ID
    SecretAccessKey = _SECRET
    Token = _TOKEN
    Expiration = _EXPIRATION
    AccountId = string(ACCOUNT)
    RoleArn = string(ROLE)


def _process(issued: Issued) -> JsonObject:
    """Return the fields of ProcessCredentials."""
    return {"Version": 1} | _shown(issued, "SessionToken")


def _container(issued: Issued) -> JsonObject:
    """Return the fields of ContainerCredentials."""
    return _shown(issued, "Token") | {"RoleArn": issued.role_arn}


def _shown(issued: Issued, token_name: str) -> JsonObject:
    session = issued.session
    return {
        "AccessKeyId": session.access_key_id,
        "SecretAccessKey": session.secret_access_key,
        token_name: session.session_token,
        # strftime takes four times as long
        "Expiration": f"{session.expires_at.isoformat()[:19]}Z",
        "AccountId": session.account_id,
    }


# The HTTP method and the function that shapes the answer, by the last part of the path
_SHAPES: dict[str, tuple[str, Callable[[Issued], JsonObject]]] = {
    "credentials": ("POST", _process),
    "container-credentials": ("GET", _container),
}
_UUID = "([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
_BEARER = "Bearer "
_FAILURE = "deputy.failure"  # key in the WSGI environ that no client's header can set

_uuid = functools.lru_cache(100_000)(UUID)  # a look-up is faster than parsing


@dataclass(frozen=True)
class PlainCredentials:
    """The endpoint for plain requests."""

    services: Services

    @property
    def target(self) -> str:
        """The pattern of the endpoint's paths, which may begin with the path of PUBLIC_URL."""
        prefix = re.escape(self.services.config.service.public_path)
        return rf"(?:{prefix})?/v1/tenants/{_UUID}/connections/{_UUID}/({'|'.join(_SHAPES)})"

    def answer(
        self,
        request: PlainRequest,
        peer: str,
        give_up_slot: Callable[[], AbstractContextManager[None]],
    ) -> bytes | JsonObject:
        """Return the whole answer, or what to add to the WSGI environ when Flask must answer.

        `give_up_slot`: see `without_slot` in app/concurrency/places.py.
        """
        without_slot.set(give_up_slot)
        tenant_id, connection_id, shape_name = request.target
        method, shape = _SHAPES[shape_name]
        if request.method != method or not request.authorization.startswith(_BEARER):
            return {}
        key = request.authorization[len(_BEARER) :]
        service = self.services.config.service
        address = client_address(peer, request.forwarded_for, service.proxy_hops)
        request_id, principal = new_request_id(), None
        try:
            principal = self.services.authorization.authenticate_from_memory(
                key, request_id, address
            )
            if principal is None or Scope.CREDENTIALS_ISSUE not in principal.scopes:
                return {}
            terms = _terms(request)  # parsed after the key was checked, because parsing takes time
            if terms is None:
                return {}
            issued = self.services.issuer.issue(
                principal, _uuid(tenant_id), _uuid(connection_id), **terms
            )
        except Exception as error:  # noqa: BLE001  Flask raises it again, bugs included
            return {_FAILURE: (principal, error), REQUEST_ID: request_id}
        return format_answer(request_id, orjson.dumps(shape(issued)), service.public_url)


def _parse_body(body: bytes) -> JsonObject | None:
    try:
        return _CREDENTIALS_REQUEST.load(strict_json.parse(body))  # type: ignore[no-any-return]
    except (ValueError, ValidationError):
        return None


# A client sends the same short body each time. Requests share the result, so nothing may change it.
_CACHED_BODY = 256  # bytes; with at most 1,000 of them, the cache takes some megabytes
_parse_cached_body = functools.lru_cache(1_000)(_parse_body)


def _terms(request: PlainRequest) -> JsonObject | None:
    """Return the fields of the body, or None if Flask must read the request."""
    if not request.body:
        return {}
    if request.method != "POST" or request.content_type != "application/json":
        return None
    if price_of_body(len(request.body)):  # Flask's guard charges it to the tenant's share
        return None
    parse = _parse_cached_body if len(request.body) <= _CACHED_BODY else _parse_body
    return parse(request.body)


bp = Blueprint(
    "credentials", "Short-lived credentials for a proven role.", "credentials", guard=from_memory
)


@bp.before_request
def _raise_failure() -> None:
    """Raise the failure of a plain request, if there is one."""
    principal, error = flask_request.environ.get(_FAILURE, (None, None))
    if error is None:
        return
    if principal is not None:
        g.principal = principal
    with refusals_for_good_keys(flask_request.headers["Authorization"].removeprefix(_BEARER)):
        raise error


_ONE = "/v1/tenants/<uuid:tenant_id>/connections/<uuid:connection_id>"


@bp.operation(
    "POST", f"{_ONE}/credentials", "credentials:issue", ProcessCredentials, takes=CredentialsRequest
)
def issue_credentials(body: JsonObject, tenant_id: UUID, connection_id: UUID) -> JsonObject:
    """Issue credentials for a verified connection, as credential_process prints them."""
    return _process(services.issuer.issue(principal(), tenant_id, connection_id, **body))


@bp.operation(
    "GET",
    f"{_ONE}/container-credentials",
    "credentials:issue",
    ContainerCredentials,
    fails=[409, 422],
)
def get_container_credentials(tenant_id: UUID, connection_id: UUID) -> JsonObject:
    """Issue credentials in the shape that AWS_CONTAINER_CREDENTIALS_FULL_URI expects.

    The Authorization header may also hold the key without `Bearer`, because SDKs send
    AWS_CONTAINER_AUTHORIZATION_TOKEN as it is. SDKs read the reason of a refusal from `message`,
    `Code` or `Message`, so a refusal also has these fields.
    """
    # Flask adds HEAD to every GET; it would issue credentials and drop them
    if flask_request.method == "HEAD":
        raise MethodNotAllowed(["GET"])
    return _container(services.issuer.issue(principal(), tenant_id, connection_id))
