"""The hot path without the framework: from WSGI to memory, to the audit log, and back.

It takes only what it can answer at once: a request for credentials without a body, by a live key, for a connection
that memory knows, with a session that is kept. For everything else, all refusals among it, it has done nothing, and
Flask starts from the beginning. The two give the same answers, header by header (a test compares).
"""

import functools
import re
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from app import log
from app.access import Scope
from app.api.credentials import SHAPES
from app.errors import AppError
from app.services import Services
from app.vending import Issued

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

_log = log.get(__name__)

ALWAYS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
FOR_PROGRAMS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
_HEADERS = [("Content-Type", "application/json"), *ALWAYS.items(), *FOR_PROGRAMS.items()]

_uuid = functools.lru_cache(100_000)(UUID)  # parsing one takes longer than finding it
_UUID = r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
_PATH = re.compile(rf"/v1/tenants/{_UUID}/connections/{_UUID}/(credentials|container-credentials)", re.ASCII)


class FastLane:
    """A WSGI application in front of another."""

    def __init__(self, long_way: "WSGIApplication", services: Services) -> None:
        self._long_way = long_way
        self._services = services

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        found = _PATH.fullmatch(environ["PATH_INFO"])
        if found is None or not _is_plain(environ):
            return self._long_way(environ, start_response)
        request_id = secrets.token_hex(16)
        try:
            issued = self._issued(environ["HTTP_AUTHORIZATION"][7:], found, request_id)
        except AppError:
            issued = None  # Flask finds the same, and knows how to say it
        except Exception as error:  # noqa: BLE001  it is logged, and Flask answers
            _log.error("fast_lane.failed", exc_info=error)
            issued = None
        if issued is None:
            return self._long_way(environ, start_response)
        body = orjson.dumps(SHAPES[found[3]][1](issued))
        start_response(
            "200 OK", [*_HEADERS, ("X-Request-Id", request_id), ("Content-Length", str(len(body)))]
        )
        return [body]

    def _issued(self, key: str, found: re.Match[str], request_id: str) -> Issued | None:
        caller = self._services.authority.authenticate(key, request_id)
        caller.require(Scope.CREDENTIALS_ISSUE)
        return self._services.vending.issue_kept(caller, _uuid(found[1]), _uuid(found[2]))


def _is_plain(environ: dict[str, Any]) -> bool:
    """Whether there is nothing in the request but its path and a key."""
    method, _ = SHAPES[environ["PATH_INFO"].rpartition("/")[2]]
    return (
        environ["REQUEST_METHOD"] == method
        and environ.get("CONTENT_LENGTH") in {None, "", "0"}
        and "HTTP_TRANSFER_ENCODING" not in environ
        and not environ.get("QUERY_STRING")
        and environ.get("HTTP_AUTHORIZATION", "").startswith("Bearer ")
    )
