"""The secrets of webhook endpoints, and the headers of Standard Webhooks.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from app.cache.sealing import Sealer

_PREFIX = "whsec_"
_BYTES = 32  # of a secret; the specification asks for 24 to 64


class Secrets:
    """Makes endpoints' secrets, and seals them for the database under SECRET_KEYS."""

    def __init__(self, secret_keys: tuple[str, ...]) -> None:
        self._sealer = Sealer(secret_keys, "webhook secret")

    def make(self, endpoint_id: UUID) -> tuple[str, bytes]:
        """Return a new secret, as it is shown once, and the same secret sealed."""
        secret = secrets.token_bytes(_BYTES)
        return _PREFIX + base64.b64encode(secret).decode(), self.seal(endpoint_id, secret)

    def seal(self, endpoint_id: UUID, secret: bytes) -> bytes:
        return self._sealer.seal(secret, endpoint_id.bytes)

    def open(self, endpoint_id: UUID, sealed: bytes) -> bytes | None:
        """Return the secret; None if none of SECRET_KEYS sealed it for this endpoint."""
        return self._sealer.open(sealed, endpoint_id.bytes)

    def is_current(self, sealed: bytes) -> bool:
        """Return whether the first of SECRET_KEYS sealed it."""
        return self._sealer.is_current(sealed)

    def sealed_again(self, endpoint_id: UUID, sealed: bytes) -> bytes:
        """Return the secret, sealed under the first of SECRET_KEYS if one of them opens it."""
        secret = self.open(endpoint_id, sealed)
        return sealed if secret is None else self.seal(endpoint_id, secret)


def signed_headers(
    event_id: UUID, attempted_at: datetime, body: bytes, secrets: Iterable[bytes]
) -> dict[str, str]:
    """Return the headers of an attempt, with one signature for each secret.

    The id is the event's, and stays the same in every attempt.
    """
    timestamp = str(int(attempted_at.timestamp()))
    signed = b".".join([str(event_id).encode(), timestamp.encode(), body])
    signatures = [
        base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode() for secret in secrets
    ]
    return {
        "webhook-id": str(event_id),
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
