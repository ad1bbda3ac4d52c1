"""Plain requests for credentials, answered without gunicorn's parser and without Flask.

A web process passes them to this module (app/http/sockets.py). The answers are those of the views
in app/api/credentials.py; tests compare the two.

A request goes to Flask unchanged if this process does not have its key in memory, or if the key or
the body would be refused. A request that fails later goes to Flask with its failure. Rate limits
then count it once, and it waits once. Flask raises the failure, answers it and records it.
"""

import functools
import re
from typing import Any
from uuid import UUID

import orjson
from flask import g, request as flask_request
from marshmallow import ValidationError

from app import strict_json
from app.api.credential_schemas import ISSUE_IN, SHAPES
from app.api.kit.authentication import refusals_for_good_keys
from app.http.client_address import client_address
from app.http.plain_requests import PlainAnswer, PlainRequest
from app.http.request_id import ENVIRON_KEY, new_request_id
from app.identity import ApiKeyPrincipal
from app.identity.scopes import Scope
from app.services import Services

_UUID = "([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
_BEARER = "Bearer "
_FAILURE = "deputy.failure"  # in the WSGI environ; clients' headers are under other names

_uuid = functools.lru_cache(100_000)(UUID)  # a look-up is faster than parsing


class PlainCredentials:
    """The endpoint for plain requests."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._proxy_hops = services.config.service.proxy_hops

    @property
    def target(self) -> str:
        """The pattern of its paths, which may begin with PUBLIC_URL's (app/http/public_path.py)."""
        prefix = re.escape(self._services.config.service.public_path)
        return rf"(?:{prefix})?/v1/tenants/{_UUID}/connections/{_UUID}/({'|'.join(SHAPES)})"

    def answer(self, request: PlainRequest, peer: str) -> PlainAnswer | dict[str, Any]:
        """Issue credentials, or return an addition to the WSGI environ for Flask.

        Flask then answers the request.
        """
        tenant_id, connection_id, shape_name = request.target
        method, shape = SHAPES[shape_name]
        if request.method != method:
            return {}
        request_id, caller = new_request_id(), None
        try:
            caller = self._caller(request, peer, request_id)
            # Checked after the key, because parsing takes time
            terms = None if caller is None else _terms(request)
            if caller is None or terms is None:
                return {}
            issued = self._services.issuer.issue(
                caller, _uuid(tenant_id), _uuid(connection_id), **terms
            )
        except Exception as error:  # noqa: BLE001  Flask raises it again, bugs included
            return {_FAILURE: (caller, error), ENVIRON_KEY: request_id}
        return PlainAnswer(request_id, orjson.dumps(shape(issued)))

    def _caller(self, request: PlainRequest, peer: str, request_id: str) -> ApiKeyPrincipal | None:
        """Return the caller, if its key is in this process's memory and may issue."""
        if not request.authorization.startswith(_BEARER):
            return None
        address = client_address(peer, request.forwarded_for, self._proxy_hops)
        key = request.authorization[len(_BEARER) :]
        caller = self._services.authorization.authenticate_from_memory(key, request_id, address)
        return caller if caller and Scope.CREDENTIALS_ISSUE in caller.scopes else None


def _terms(request: PlainRequest) -> dict[str, Any] | None:
    """Return the fields of the body, or None if Flask must refuse it."""
    if not request.body:
        return {}
    if request.method != "POST" or request.content_type != "application/json":
        return None
    try:
        terms: dict[str, Any] = ISSUE_IN.load(strict_json.parse(request.body))
    except (ValueError, ValidationError):
        return None
    return terms


def raise_failure() -> None:
    """Raise the failure of a plain request, if there is one.

    Runs before each view of credentials.
    """
    if (failure := flask_request.environ.get(_FAILURE)) is None:
        return
    caller, error = failure
    if caller is not None:
        g.caller = caller
    with refusals_for_good_keys(flask_request.headers["Authorization"].removeprefix(_BEARER)):
        raise error
