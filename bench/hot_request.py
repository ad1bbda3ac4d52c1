"""A web process for callgrind that answers cached credentials to clients in memory.

bench/instructions.py runs it in the folder of the measured checkout, so it imports nothing else of
the bench.
"""

import sys

from gevent import monkey

monkey.patch_all()  # before all other imports, as gunicorn does

import json
import os
import subprocess
import time
from typing import Any

import gevent
from gunicorn.app.base import Application

_CLIENTS = 16  # concurrent; each of two web processes gets half of the bench's 32 connections
_WARM = 15  # requests of each client before callgrind counts
# Deadlines and periods of the service. They would expire because valgrind is slow, and the effects
# would be counted.
_TIMES = ("_ADDED_SECONDS", "_ANSWER_SECONDS", "_IDLE_SECONDS", "_LATE_SECONDS")
_NEVER = 3600.0  # seconds


class Service(Application):  # type: ignore[misc]  # gunicorn has no types
    """The service with gunicorn's settings, without the process that starts web processes."""

    def load_config(self) -> None:
        self.load_config_from_file("gunicorn.conf.py")

    def load(self) -> Any:
        import wsgi  # noqa: PLC0415  after the patches

        for name, module in list(sys.modules.items()):
            if name.startswith("app."):
                vars(module).update(dict.fromkeys(vars(module).keys() & set(_TIMES), _NEVER))
        return wsgi.app


class Client:
    """A client's socket for the web process. The next request is always ready."""

    def __init__(self, request: bytes, times: int) -> None:
        self._request = request
        self._left = times
        self.answered = 0

    def recv(self, _size: int) -> bytes:
        gevent.sleep(0)  # other clients first
        self._left -= 1
        return self._request if self._left >= 0 else b""

    def send(self, data: bytes, *_: Any) -> int:
        self.answered += data.startswith(b"HTTP/1.1 200 ")
        return len(data)

    sendall = send

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 8000

    def __getattr__(self, _name: str) -> Any:
        """Accept all other calls of a socket, such as those that set options."""
        return lambda *_: None


def main() -> None:
    given = json.load(sys.stdin)
    service = Service()
    worker = service.cfg.worker_class(
        1, os.getpid(), [], service, 30, service.cfg, service.cfg.logger_class(service.cfg)
    )
    worker.load_wsgi()
    requests = [_request(**question) for question in given["questions"][:_CLIENTS]]
    _serve(worker, requests, _WARM)
    _callgrind("on")
    answered = _serve(worker, requests, given["times"])
    _callgrind("off")
    if answered != given["times"] * len(requests):
        sys.exit(
            f"Only {answered} of {given['times'] * len(requests)} requests were answered with"
            " credentials."
        )


def _request(path: str, key: str) -> bytes:
    """Format a request as wrk sends it."""
    fields = ("Host: 127.0.0.1:8000", "Content-Length: 0", f"Authorization: Bearer {key}")
    return "\r\n".join((f"POST {path} HTTP/1.1", *fields, "", "")).encode()


def _serve(worker: Any, requests: list[bytes], times: int) -> int:
    """Send each client's request `times` times. Return the number of answers with credentials."""
    clients = [Client(request, times) for request in requests]
    gevent.joinall(
        [gevent.spawn(worker.handle, client, client, ("127.0.0.1", 5000)) for client in clients]
    )
    return sum(client.answered for client in clients)


def _callgrind(state: str) -> None:
    """Switch the counting on or off.

    valgrind takes commands only while the process runs, so this function waits in steps.
    """
    command = subprocess.Popen(
        ["callgrind_control", f"--instr={state}", str(os.getpid())], stdout=subprocess.DEVNULL
    )
    while command.poll() is None:
        time.sleep(0.5)  # each step is counted as well, so steps are long
    if command.returncode:
        sys.exit(f"callgrind_control failed with status {command.returncode}")


if __name__ == "__main__":
    main()
