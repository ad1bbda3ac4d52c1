"""The receiver's side of webhooks: check that a delivery is Deputy's.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
from collections.abc import Iterable
from typing import Any, Protocol

TOLERANCE_SECONDS = 300
_KEY_BYTES = 24  # the specification's minimum


class Headers(Protocol):
    """A dict of headers, or the headers of a request in any web framework."""

    def items(self) -> Iterable[tuple[str, str]]: ...


class VerificationError(Exception):
    """The delivery is not Deputy's, or it is an old one that somebody sent again."""


def verify(
    secrets: str | Iterable[str],
    headers: Headers,
    body: bytes,
    *,
    tolerance: float = TOLERANCE_SECONDS,
) -> dict[str, Any]:
    """Return the event: an object with `type`, `timestamp` and `data`.

    `secrets`: one `whsec_…`, or several while a secret is replaced. `headers`: the request's, in
    any case. `body`: its bytes, unchanged. `tolerance`: seconds by which the clocks may differ.

    The same event may be delivered more than once: remember the header `webhook-id`. The order is
    not promised: compare `data["details"]["version"]` of a connection, or ask for its state.

    Raises VerificationError, and ValueError for a text that is not a webhook secret.
    """
    received = {name.lower(): value for name, value in headers.items()}
    try:
        event_id, timestamp = received["webhook-id"], received["webhook-timestamp"]
        signatures = received["webhook-signature"].split()
    except KeyError:
        raise VerificationError("The headers of Standard Webhooks are missing.") from None
    if not re.fullmatch("[0-9]{1,12}", timestamp):
        raise VerificationError("webhook-timestamp is not a time.")
    if abs(time.time() - int(timestamp)) > tolerance:
        raise VerificationError("The delivery is too old, or this machine's clock is wrong.")
    signed = f"{event_id}.{timestamp}.".encode(errors="replace") + body
    for secret in [secrets] if isinstance(secrets, str) else secrets:
        expected = f"v1,{_sign(secret, signed)}".encode()
        for signature in signatures:
            if hmac.compare_digest(signature.encode(errors="replace"), expected):
                return _event(body)
    raise VerificationError("No signature is ours.")


def _event(body: bytes) -> dict[str, Any]:
    try:
        event = json.loads(body)
    except ValueError:  # also raised for bytes that are not UTF-8
        event = None
    if not isinstance(event, dict):
        raise VerificationError("The body is no event of Deputy's.")
    return event


def _sign(secret: str, signed: bytes) -> str:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if len(key) < _KEY_BYTES:  # with an empty key, everybody could sign
        raise ValueError("A webhook secret is whsec_ and base64 of at least 24 bytes.")
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
