"""The signed headers of Standard Webhooks.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID


def signed_headers(
    event_id: UUID, attempted_at: datetime, body: bytes, secrets: Iterable[bytes]
) -> dict[str, str]:
    """Return the headers of an attempt, with one signature for each secret.

    The header `webhook-id` has the event's id, which is the same in every attempt.
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
