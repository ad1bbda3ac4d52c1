"""Registration tokens: each names the tenant of a customer's stack. They give no authority.

A token is `dpt_` and URL-safe base64 of these parts: one byte for the form, the deployment's id,
the tenant's id, its generation, in the second form the id of the onboarding link, and the
HMAC-SHA-256 of all that.

Each kit computes it again, and nothing is stored. Raising the tenant's `registration_generation`
voids its tokens. Revoking a link voids the tokens of its page. A forged token is refused after one
HMAC per secret key, before any row is read.

The deployment's id has the same place in every form. It is read without a key, also from another
deployment's token. Tokens of 54 bytes are older and name no deployment. They are valid while their
MAC verifies.
"""

import base64
import hashlib
import hmac
import re
from typing import NamedTuple
from uuid import UUID

from app.cache.sealing import derive_key

# Each length in bytes is divisible by three, so a token has only one encoding.
_TOKEN = re.compile(r"dpt_((?:[A-Za-z0-9_-]{4}){18,29})", re.ASCII)
_OF_TENANT, _OF_LINK = b"\x01", b"\x02"  # the forms
_ID, _GENERATION, _MAC = 16, 4, 32  # bytes
_FILL = bytes(2)  # padding after the link's id, to a length that is divisible by three
_LENGTH = 1 + 2 * _ID + _GENERATION + _MAC
_LENGTH_OF_LINK = _LENGTH + _ID + len(_FILL)
_OLD_GENERATION = 6
_OLD_LENGTH = _ID + _OLD_GENERATION + _MAC


class TokenIds(NamedTuple):
    """The ids in a valid token. The rows need not exist."""

    tenant_id: UUID
    generation: int
    link_id: UUID | None = None


class RegistrationTokens:
    """The signer and verifier of tokens. The first secret key signs, and all of them verify."""

    def __init__(self, secret_keys: tuple[str, ...]) -> None:
        self._keys = [derive_key(secret, "registration tokens")[1] for secret in secret_keys]

    def make(
        self, deployment_id: UUID, tenant_id: UUID, generation: int, *, link_id: UUID | None = None
    ) -> str:
        """Return the token of the tenant, or of one of its onboarding links.

        They have 96 and 120 characters. The same arguments return the same token.
        """
        form, link = (_OF_TENANT, b"") if link_id is None else (_OF_LINK, link_id.bytes + _FILL)
        signed = (
            form
            + deployment_id.bytes
            + tenant_id.bytes
            + generation.to_bytes(_GENERATION, "big")
            + link
        )
        return "dpt_" + base64.urlsafe_b64encode(signed + _mac(self._keys[0], signed)).decode()

    def read(self, text: str) -> TokenIds | None:
        """Return the ids in the token, or None when none of our keys signed it."""
        token = _bytes(text)
        named = _named(token)
        signed, mac = token[:-_MAC], token[-_MAC:]
        ours = [hmac.compare_digest(_mac(key, signed), mac) for key in self._keys]  # all of them
        return named if any(ours) else None


def _named(token: bytes) -> TokenIds | None:
    """Return the ids in the bytes, not verified; None for an unknown form."""
    if len(token) == _OLD_LENGTH:
        return TokenIds(UUID(bytes=token[:_ID]), int.from_bytes(token[_ID:-_MAC], "big"))
    start = 1 + 2 * _ID  # position of the generation
    tenant_id, rest = token[1 + _ID : start], token[start + _GENERATION : -_MAC]
    generation = int.from_bytes(token[start : start + _GENERATION], "big")
    kind = len(token), token[:1]
    if kind == (_LENGTH, _OF_TENANT):
        return TokenIds(UUID(bytes=tenant_id), generation)
    if kind == (_LENGTH_OF_LINK, _OF_LINK):
        return TokenIds(UUID(bytes=tenant_id), generation, UUID(bytes=rest[:_ID]))
    return None


def deployment_of(text: str) -> UUID | None:
    """Return the deployment in a token, not verified; None for an old token and for other text."""
    token = _bytes(text)
    return UUID(bytes=token[1 : 1 + _ID]) if len(token) >= _LENGTH else None


def _bytes(text: str) -> bytes:
    """Return a token's bytes; empty for text that is not a token."""
    found = _TOKEN.fullmatch(text)
    return base64.urlsafe_b64decode(found[1]) if found else b""


def _mac(key: bytes, signed: bytes) -> bytes:
    return hmac.digest(key, signed, hashlib.sha256)
