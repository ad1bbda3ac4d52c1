"""The hot path: requests for credentials, served without Flask.

It takes the requests that have the form in which SDKs and docs/workers.md send them, and answers as the views in
app/api/credentials.py do; tests compare the two. All other requests go to Flask unchanged. So does a request that is
refused: Flask replays the refusal, answers it and records it.
"""

import functools
import io
import re
from collections.abc import Iterable
from typing import Any
from uuid import UUID
from wsgiref.types import StartResponse, WSGIApplication

import orjson
from flask import g, request
from marshmallow import ValidationError

from app import strict_json
from app.access.callers import Scope
from app.api.credential_schemas import ISSUE_IN, SHAPES
from app.http.authentication import refusals_for_good_keys
from app.http.client_address import client_address
from app.http.headers import ALWAYS, FOR_PROGRAMS
from app.http.parsing import whole_body
from app.http.request_id import request_id
from app.services import Services

_HEADERS = [("Content-Type", "application/json"), *ALWAYS.items(), *FOR_PROGRAMS.items()]

_uuid = functools.lru_cache(100_000)(UUID)  # a look-up is faster than parsing
_UUID = r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
_PATH = re.compile(rf"/v1/tenants/{_UUID}/connections/{_UUID}/(credentials|container-credentials)", re.ASCII)
_BEARER = "Bearer "
_REFUSAL = "deputy.refusal"  # in the WSGI environ; clients' headers are under other names
_MAX_BODY = 16 * 1024  # bytes; SDKs send less


class FastLane:
    """The WSGI middleware in front of Flask."""

    def __init__(self, flask: WSGIApplication, services: Services) -> None:
        self._flask = flask
        self._services = services

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        found = _PATH.fullmatch(environ["PATH_INFO"])
        if found is None or not _is_plain(environ, found[3]):
            return self._flask(environ, start_response)
        made = request_id(environ)
        caller = None
        try:
            address = client_address(environ, self._services.config.proxy_hops)
            caller = self._services.authorization.authenticate(_key(environ), made, address)
            caller.require(Scope.CREDENTIALS_ISSUE)
            wanted = _wanted(environ)  # after the key: waiting for a body takes resources
            if wanted is None:
                return self._flask(environ, start_response)
            issued = self._services.issuer.issue(caller, _uuid(found[1]), _uuid(found[2]), **wanted)
        except Exception as error:  # noqa: BLE001  Flask raises it again, bugs included
            environ[_REFUSAL] = caller, error
            return self._flask(environ, start_response)
        body = orjson.dumps(SHAPES[found[3]][1](issued))
        start_response("200 OK", [*_HEADERS, ("X-Request-Id", made), ("Content-Length", str(len(body)))])
        return [body]


def _is_plain(environ: dict[str, Any], shape: str) -> bool:
    """Whether it has the form of SDKs' requests: no query, and a short JSON body or none."""
    if (
        environ["REQUEST_METHOD"] != SHAPES[shape][0]
        or environ.get("QUERY_STRING")
        or "HTTP_TRANSFER_ENCODING" in environ
        or not environ.get("HTTP_AUTHORIZATION", "").startswith(_BEARER)
    ):
        return False
    length = environ.get("CONTENT_LENGTH") or "0"
    if length == "0":
        return True
    if shape != "credentials" or environ.get("CONTENT_TYPE") != "application/json":
        return False
    return length.isdecimal() and int(length) <= _MAX_BODY


def _wanted(environ: dict[str, Any]) -> dict[str, Any] | None:
    """The fields of the body; None when they are invalid, which Flask then answers."""
    length = int(environ.get("CONTENT_LENGTH") or "0")
    if length == 0:
        return {}
    with whole_body():
        raw = environ["wsgi.input"].read(length)
    environ["wsgi.input"] = io.BytesIO(raw)  # Flask may read it again
    try:
        wanted: dict[str, Any] = ISSUE_IN.load(strict_json.parse(raw))
    except (ValueError, ValidationError):
        return None
    return wanted


def replay() -> None:
    """Raise the refusal that the fast lane met, if there is one. Runs before each view of credentials."""
    if (refusal := request.environ.get(_REFUSAL)) is None:
        return
    caller, error = refusal
    if caller is not None:
        g.caller = caller
    with refusals_for_good_keys(_key(request.environ)):
        raise error


def _key(environ: dict[str, Any]) -> str:
    key: str = environ["HTTP_AUTHORIZATION"][len(_BEARER) :]
    return key
