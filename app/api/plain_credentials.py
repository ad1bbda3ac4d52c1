"""Plain requests for credentials, answered without gunicorn's parser and without Flask.

A web process passes them to this module (app/http/sockets.py). The answers are those of the views
in app/api/credentials.py; tests compare the two.

A request goes to Flask unchanged if this process does not have its key in memory, or if the key or
the body would be refused. A request that fails later goes to Flask together with its exception,
which Flask raises, answers and records. So rate limits count the request once, and it waits once.
"""

import functools
import re
from uuid import UUID

import orjson
from flask import g, request as flask_request
from marshmallow import ValidationError

from app import strict_json
from app.api.credential_schemas import ISSUE_IN, SHAPES
from app.api.kit.authentication import refusals_for_good_keys
from app.http.client_address import client_address
from app.http.plain_requests import PlainRequest, format_answer
from app.http.request_id import ENVIRON_KEY, new_request_id
from app.identity import ApiKeyPrincipal
from app.identity.scopes import Scope
from app.services import Services
from app.strict_json import JsonObject

_UUID = "([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
_BEARER = "Bearer "
_FAILURE = "deputy.failure"  # key in the WSGI environ that no client's header can set

_uuid = functools.lru_cache(100_000)(UUID)  # a look-up is faster than parsing


class PlainCredentials:
    """The endpoint for plain requests."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._proxy_hops = services.config.service.proxy_hops

    @property
    def target(self) -> str:
        """The pattern of the endpoint's paths, which may begin with the path of PUBLIC_URL."""
        prefix = re.escape(self._services.config.service.public_path)
        return rf"(?:{prefix})?/v1/tenants/{_UUID}/connections/{_UUID}/({'|'.join(SHAPES)})"

    def answer(self, request: PlainRequest, peer: str) -> bytes | JsonObject:
        """Return the whole answer, or what to add to the WSGI environ when Flask must answer."""
        tenant_id, connection_id, shape_name = request.target
        method, shape = SHAPES[shape_name]
        if request.method != method:
            return {}
        request_id, principal = new_request_id(), None
        try:
            principal = self._principal(request, peer, request_id)
            if principal is None or Scope.CREDENTIALS_ISSUE not in principal.scopes:
                return {}
            terms = _terms(request)  # parsed after the key was checked, because parsing takes time
            if terms is None:
                return {}
            issued = self._services.issuer.issue(
                principal, _uuid(tenant_id), _uuid(connection_id), **terms
            )
        except Exception as error:  # noqa: BLE001  Flask raises it again, bugs included
            return {_FAILURE: (principal, error), ENVIRON_KEY: request_id}
        return format_answer(request_id, orjson.dumps(shape(issued)))

    def _principal(
        self, request: PlainRequest, peer: str, request_id: str
    ) -> ApiKeyPrincipal | None:
        """Return the principal, if its key is in this process's memory."""
        if not request.authorization.startswith(_BEARER):
            return None
        address = client_address(peer, request.forwarded_for, self._proxy_hops)
        key = request.authorization[len(_BEARER) :]
        return self._services.authorization.authenticate_from_memory(key, request_id, address)


def _terms(request: PlainRequest) -> JsonObject | None:
    """Return the fields of the body, or None if Flask must refuse it."""
    if not request.body:
        return {}
    if request.method != "POST" or request.content_type != "application/json":
        return None
    try:
        return ISSUE_IN.load(strict_json.parse(request.body))  # type: ignore[no-any-return]
    except (ValueError, ValidationError):
        return None


def raise_failure() -> None:
    """Raise the failure of a plain request, if there is one.

    Runs before each view of credentials.
    """
    principal, error = flask_request.environ.get(_FAILURE, (None, None))
    if error is None:
        return
    if principal is not None:
        g.principal = principal
    with refusals_for_good_keys(flask_request.headers["Authorization"].removeprefix(_BEARER)):
        raise error
