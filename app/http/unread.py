"""What gunicorn refuses before the application sees it, answered by the application: as a problem, with a request id.

Imported by gunicorn before a worker is patched, so it imports nothing of the service.
"""

import contextlib
import socket
from typing import Any

import gevent
from gunicorn import util
from gunicorn.http import errors

# In the WSGI environ, where no header of a client's gets: the status that the request is refused with.
UNREAD = "deputy.unread"
_NOT_THE_CLIENTS = (
    *(errors.ConfigurationProblem, errors.ForbiddenProxyRequest, errors.InvalidProxyLine),
    *(errors.InvalidResponseHeader, errors.InvalidResponseHeaderName),
)
_STATUSES = {errors.LimitRequestLine: 414, errors.LimitRequestHeaders: 431}  # the others' is 400
_SECONDS = 1  # for the client to take the answer
_DROPPED = 1024 * 1024  # of what it still sends meanwhile: it could not read the answer otherwise


class Unread:
    """For a worker of gunicorn's, before its own class. `_app`: the application that it serves."""

    _app: Any

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        if not isinstance(exc, errors.ParseException) or isinstance(exc, _NOT_THE_CLIENTS):
            super().handle_error(req, client, addr, exc)  # type: ignore[misc]  # the worker's
            return
        with contextlib.suppress(OSError), gevent.Timeout(_SECONDS, False):  # type: ignore[arg-type]  # as gevent documents it
            client.sendall(self._refusal(_STATUSES.get(type(exc), 400), addr))
            client.shutdown(socket.SHUT_WR)
            for _ in range(_DROPPED // 65_536):
                if not client.recv(65_536):
                    return

    def _refusal(self, status: int, addr: Any) -> bytes:
        head: list[str] = []

        def start_response(said: str, headers: list[tuple[str, str]], *_: Any) -> None:
            head.extend((f"HTTP/1.1 {said}", "Connection: close", f"Date: {util.http_date()}"))
            head.extend(f"{name}: {value}" for name, value in headers)

        address = addr[0] if isinstance(addr, tuple) else ""
        environ = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/", "REMOTE_ADDR": address}
        environ |= {"SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1"}
        environ |= {"wsgi.url_scheme": "http", UNREAD: status}
        body = b"".join(self._app(environ, start_response))
        return "\r\n".join([*head, "", ""]).encode("latin-1") + body
