"""A client of the deployed service that knows its web process, and what it is answered."""

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

PATIENCE = 20  # seconds until something that takes a moment has failed, on a busy machine too


@dataclass(frozen=True)
class Answer:
    """When its request began and its answer had come, by the monotonic clock, and what it was."""

    began: float
    ended: float
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def seconds(self):
        return self.ended - self.began

    @property
    def request_id(self):
        return self.headers["X-Request-Id"]

    @cached_property
    def json(self):
        return json.loads(self.body) if self.body else None

    @property
    def issued(self):
        """What ties a 200 to its audit event."""
        return self.request_id, self.json["AccessKeyId"]

    def __str__(self):
        return (
            f"{self.status} in {self.seconds:.2f}"
            f" s{'' if self.status == 200 else f': {self.body.decode()}'}"
        )


class Client:
    """One kept connection, and so one web process. Not for sharing between threads."""

    def __init__(self, port, key=None):
        self.key = key
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def connect(self):
        self._http.connect()

    def close(self):
        self._http.close()

    @property
    def local_port(self):
        return self._http.sock.getsockname()[1]

    def ask(self, method, path, body=None, *, key=None, headers=None):
        """Raises OSError or HTTPException when the connection is cut; the next call connects
        again.
        """
        headers = {"Authorization": f"Bearer {key or self.key}", **(headers or {})}
        data = None
        if body is not None:
            headers["Content-Type"], data = "application/json", json.dumps(body)
        began = time.monotonic()
        try:
            self._http.request(method, path, data, headers)
            found = self._http.getresponse()
            return Answer(began, time.monotonic(), found.status, dict(found.headers), found.read())
        except (OSError, http.client.HTTPException):
            self._http.close()
            raise

    def must(self, method, path, body=None, *, expect=200):
        answer = self.ask(method, path, body)
        assert answer.status == expect, f"{method} {path}: {answer}"
        return answer.json
