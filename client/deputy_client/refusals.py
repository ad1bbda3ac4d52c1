"""The detection of AWS's refusals of a session from Deputy, and the rate limit for reports.

When a role is deleted, its sessions stop working, and Deputy gets no message about that. Errors of
requests that were signed with other credentials are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import inf
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any

from botocore.awsrequest import AWSRequest

if TYPE_CHECKING:
    from botocore.session import Session

REPORT_SECONDS = 60

# AWS's error codes for a session that does not exist. In this order they are from STS and IAM, from
# services with JSON, and from S3.
_UNKNOWN = {
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "InvalidToken",
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException"}

_SIGNED_WITH = "deputy_client.key_id"
_CREDENTIAL = re.compile(r"Credential=(\w+)/")


def watch(session: Session, rejected: Callable[[str, bool], None]) -> None:
    """Call `rejected(access_key_id, as_expired)` when AWS refuses a request's credentials.

    It watches the requests of all clients of this botocore session.
    """

    def signed(**event: Any) -> None:
        """Record the access key id that the request was signed with.

        botocore signs in a handler for one service. This handler is for all services, so it runs
        later.
        """
        request: AWSRequest = event["request"]
        match = _CREDENTIAL.search(str(request.headers.get("Authorization")))
        request.context[_SIGNED_WITH] = match[1] if match else None

    def answered(**event: Any) -> None:
        code = event["parsed"].get("Error", {}).get("Code")
        key_id = event["context"].get(_SIGNED_WITH)
        if key_id and code in _UNKNOWN | _EXPIRED:
            rejected(key_id, code in _EXPIRED)

    session.register("request-created", signed)
    session.register("after-call", answered)


class Gate:
    """A rate limit in this process: one report a minute for each connection."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._passed: dict[str, float] = {}

    def passes(self, connection: str) -> bool:
        now = monotonic()
        with self._lock:
            self._passed = {
                other: passed_at
                for other, passed_at in self._passed.items()
                if now - passed_at < REPORT_SECONDS
            }
            if connection in self._passed:
                return False
            self._passed[connection] = now
            return True

    def note(self, connection: str) -> None:
        """Record that the report of this connection has ended now."""
        with self._lock:
            self._passed[connection] = monotonic()

    def last(self, connection: str) -> float:
        """Return when the last report of this connection ended, in `moment`'s seconds."""
        with self._lock:
            return self._passed.get(connection, -inf)

    @staticmethod
    def moment() -> float:
        return monotonic()
