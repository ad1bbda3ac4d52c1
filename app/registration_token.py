"""Registration tokens: which tenant a customer's stack claims to be for. They give no authority.

A token is `dpt_` and the tenant, its generation and their HMAC-SHA-256 in URL-safe base64. It is made again whenever
a kit is shown, and nothing is stored: raising the tenant's `registration_generation` voids those that are out. One
that isn't ours is found out by one HMAC for each secret key, before any row is read.
"""

import base64
import hashlib
import hmac
import re
from uuid import UUID

from app.sealing import derived

_TOKEN = re.compile(
    r"dpt_([A-Za-z0-9_-]{72})", re.ASCII
)  # 54 bytes fill it exactly: each token has one spelling
_GENERATION = 6  # bytes
_CLAIM = 16 + _GENERATION  # bytes of the tenant and its generation, before the 32 of the MAC


class RegistrationTokens:
    """Signs with the first of the secret keys and verifies with any."""

    def __init__(self, secret_keys: tuple[str, ...]) -> None:
        self._keys = [derived(secret, "registration tokens")[1] for secret in secret_keys]

    def make(self, tenant_id: UUID, generation: int) -> str:
        """The tenant's token, 76 characters; the same one each time."""
        claim = tenant_id.bytes + generation.to_bytes(_GENERATION, "big")
        return "dpt_" + base64.urlsafe_b64encode(claim + _mac(self._keys[0], claim)).decode()

    def read(self, text: str) -> tuple[UUID, int] | None:
        """The tenant and the generation that a token of ours names, or None. Neither need exist."""
        found = _TOKEN.fullmatch(text)
        if found is None:
            return None
        token = base64.urlsafe_b64decode(found[1])
        claim, mac = token[:_CLAIM], token[_CLAIM:]
        if not any([hmac.compare_digest(_mac(key, claim), mac) for key in self._keys]):  # noqa: C419  all of them
            return None
        return UUID(bytes=claim[:16]), int.from_bytes(claim[16:], "big")


def _mac(key: bytes, claim: bytes) -> bytes:
    return hmac.digest(key, claim, hashlib.sha256)
