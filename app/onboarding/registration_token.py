"""Registration tokens: each names the tenant of a customer's stack. A token authorizes nothing.

A token is `dpt_` and URL-safe base64 of these parts: one byte for the form, the deployment's id,
the tenant's id, the tenant's generation, in the second form the id of the onboarding link, and the
HMAC-SHA-256 of all these parts.

Tokens are not stored: each kit computes its token again. Raising the tenant's
`registration_generation` voids its tokens. Revoking a link voids the tokens of its page. A forged
token is refused after one HMAC per secret key, before any row is read.

The deployment's id has the same place in every form, so it can be read without a key, even from
another deployment's token. Tokens of 54 bytes are older and name no deployment. They are valid
while their MAC verifies.
"""

import base64
import hashlib
import hmac
import re
import struct
from typing import NamedTuple
from uuid import UUID

from app.cache.sealing import derive_key

# Each length in bytes is divisible by three, so a token has only one encoding.
_TOKEN = re.compile(r"dpt_((?:[A-Za-z0-9_-]{4}){18,29})", re.ASCII)
_OF_TENANT, _OF_LINK = b"\x01", b"\x02"  # the two forms
_HEAD = struct.Struct(">c16s16sI")  # the form, the deployment's id, the tenant's id and generation
_ID, _MAC = 16, 32  # bytes
_FILL = bytes(2)  # padding after the link's id, to a length that is divisible by three
_LENGTH = _HEAD.size + _MAC
_LENGTH_OF_LINK = _LENGTH + _ID + len(_FILL)
_OLD_LENGTH = 54  # bytes: the tenant's id, its generation in six bytes, and the MAC


class TokenIds(NamedTuple):
    """The ids in a valid token. The rows need not exist."""

    tenant_id: UUID
    generation: int
    link_id: UUID | None = None


class RegistrationTokens:
    """The signer and verifier of tokens. The first secret key signs; every key verifies."""

    def __init__(self, secret_keys: tuple[str, ...]) -> None:
        self._keys = [derive_key(secret, "registration tokens")[1] for secret in secret_keys]

    def make(
        self, deployment_id: UUID, tenant_id: UUID, generation: int, *, link_id: UUID | None = None
    ) -> str:
        """Return the token of the tenant, or of one of its onboarding links.

        The former has 96 characters, the latter 120. The same arguments return the same token.
        """
        form, link = _OF_TENANT, b""
        if link_id is not None:
            form, link = _OF_LINK, link_id.bytes + _FILL
        signed = _HEAD.pack(form, deployment_id.bytes, tenant_id.bytes, generation) + link
        return "dpt_" + base64.urlsafe_b64encode(signed + _mac(self._keys[0], signed)).decode()

    def read(self, text: str) -> TokenIds | None:
        """Return the ids in the token, or None when none of our keys signed it."""
        token = _bytes(text)
        signed, mac = token[:-_MAC], token[-_MAC:]
        is_ours = False
        for key in self._keys:  # never stops early, so the time does not reveal which key signed
            is_ours |= hmac.compare_digest(_mac(key, signed), mac)
        if not is_ours:
            return None
        return _ids_in(token)


def _ids_in(token: bytes) -> TokenIds | None:
    """Return the ids in a token's bytes, without verifying them; None for an unknown form."""
    if len(token) == _OLD_LENGTH:
        return TokenIds(UUID(bytes=token[:_ID]), int.from_bytes(token[_ID:-_MAC]))
    if (len(token), token[:1]) not in {(_LENGTH, _OF_TENANT), (_LENGTH_OF_LINK, _OF_LINK)}:
        return None
    form, _, tenant_id, generation = _HEAD.unpack_from(token)
    ids = TokenIds(UUID(bytes=tenant_id), generation)
    if form == _OF_LINK:
        ids = ids._replace(link_id=UUID(bytes=token[_HEAD.size :][:_ID]))
    return ids


def deployment_of(text: str) -> UUID | None:
    """Return the deployment's id in a token, unverified; None for an old token and other text."""
    token = _bytes(text)
    if len(token) < _LENGTH:
        return None
    return UUID(bytes=token[1 : 1 + _ID])


def _bytes(text: str) -> bytes:
    """Return a token's bytes; empty for text that is not a token."""
    match = _TOKEN.fullmatch(text)
    if match is None:
        return b""
    return base64.urlsafe_b64decode(match[1])


def _mac(key: bytes, signed: bytes) -> bytes:
    return hmac.digest(key, signed, hashlib.sha256)
