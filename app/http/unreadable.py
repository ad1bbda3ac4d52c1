"""Answers of the application to requests that gunicorn can't read, or refuses.

The answer is a problem with a request id. This module imports as little as app/http/sockets.py, and
for the same reason.
"""

import socket
from contextlib import suppress
from typing import Any

import gevent
from gunicorn import util
from gunicorn.http import errors

from app.http.plain_requests import REFUSED_STATUS, peer_of

_NOT_THE_CLIENTS = (
    errors.ConfigurationProblem,
    errors.ForbiddenProxyRequest,
    errors.InvalidProxyLine,
    errors.InvalidResponseHeader,
    errors.InvalidResponseHeaderName,
)
_STATUSES = {errors.LimitRequestLine: 414, errors.LimitRequestHeaders: 431}  # 400 for all others
_SECONDS = 1  # the client must take the answer within this time
_DROPPED = 1024 * 1024  # bytes read from a client that sends its whole request before it reads
_STEP = 64 * 1024


class UnreadableRequests:
    """A mix-in for gunicorn's worker class. `_app`: the application that the worker serves."""

    _app: Any

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Let the application answer a request that gunicorn can't read."""
        if not isinstance(exc, errors.ParseException) or isinstance(exc, _NOT_THE_CLIENTS):
            super().handle_error(req, client, addr, exc)  # type: ignore[misc]  # gunicorn's
            return
        # gevent documents this call, but its types do not allow it
        with suppress(OSError), gevent.Timeout(_SECONDS, False):  # type: ignore[arg-type]
            client.sendall(self._refusal(_STATUSES.get(type(exc), 400), addr))
            client.shutdown(socket.SHUT_WR)
            left = _DROPPED
            while left > 0 and (dropped := client.recv(_STEP)):
                left -= len(dropped)

    def _refusal(self, status: int, addr: Any) -> bytes:
        from werkzeug.test import create_environ, run_wsgi_app  # noqa: PLC0415  see above

        refused = {"REMOTE_ADDR": peer_of(addr), REFUSED_STATUS: status}
        body, status_line, headers = run_wsgi_app(
            self._app, create_environ(environ_overrides=refused)
        )
        lines = [f"HTTP/1.1 {status_line}", "Connection: close", f"Date: {util.http_date()}"]
        lines += map(": ".join, headers)
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + b"".join(body)
