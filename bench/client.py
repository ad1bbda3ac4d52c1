"""A small HTTP client for this machine: one persistent connection, JSON in and out."""

import http.client
import json
from dataclasses import dataclass
from email.message import Message
from typing import Any


class BenchError(Exception):
    """The bench can't continue. The message gives the reason."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A client for one thread."""

    def __init__(self, port: int, key: str | None = None, *, timeout: float = 30) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self._key = key

    def close(self) -> None:
        self._http.close()

    def ask(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Answer:
        """Send a request, and return the answer, of any status.

        Raises OSError or HTTPException without an answer. The next call reconnects.
        """
        key = key or self._key
        headers, data = {"Authorization": f"Bearer {key}"} if key else {}, b""
        if body is not None:
            headers["Content-Type"], data = "application/json", json.dumps(body).encode()
        try:
            self._http.request(method, path, data, headers)
            answer = self._http.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        except (OSError, http.client.HTTPException):
            self._http.close()
            raise

    def must(self, method: str, path: str, body: Any = None, *, expect: int = 200) -> Any:
        """Return the answer's JSON.

        Raises BenchError for another status than the expected one.
        """
        answer = self.ask(method, path, body)
        if answer.status != expect:
            raise BenchError(
                f"{method} {path} answered {answer.status}, not {expect}: {answer.body.decode()}"
            )
        return answer.json() if answer.body else None
