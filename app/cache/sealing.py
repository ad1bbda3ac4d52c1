"""AES-GCM around whatever secret is kept for a while, with keys made of SECRET_KEYS.

What a secret is for is sealed with it (the associated data), so a sealed secret that is found under another
question, in this process or in a cache that somebody can write to, does not open.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_VERSION = b"\x01"
_ID = 4  # bytes of a key's id
_NONCE = 12  # bytes; random, which is safe for 2**32 seals under one key (NIST SP 800-38D, 8.3)
_HEAD = len(_VERSION) + _ID + _NONCE


class Sealer:
    """Seals with the first of the secret keys and opens with any. `purpose` keeps one use's keys from another's."""

    def __init__(self, secret_keys: tuple[str, ...], purpose: str) -> None:
        keys = [derived(secret, purpose) for secret in secret_keys]
        self._keys = {key_id: AESGCM(key) for key_id, key in reversed(keys)}  # the first wins, should ids collide
        self._first = keys[0][0]

    def seal(self, secret: bytes, about: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return _VERSION + self._first + nonce + self._keys[self._first].encrypt(nonce, secret, about)

    def open(self, sealed: bytes, about: bytes) -> bytes | None:
        """The secret, or None if this is not one that was sealed with one of our keys for just this."""
        key = self._keys.get(sealed[1 : 1 + _ID])
        if key is None or not sealed.startswith(_VERSION):
            return None
        try:
            return key.decrypt(sealed[1 + _ID : _HEAD], sealed[_HEAD:], about)
        except (InvalidTag, ValueError):  # ValueError: too short to be anything
            return None


def derived(secret: str, purpose: str) -> tuple[bytes, bytes]:
    """A key's id and the key itself. SECRET_KEYS are random, so HKDF needs no salt (RFC 5869, 3.1)."""
    made = HKDF(hashes.SHA256(), _ID + 32, salt=None, info=f"deputy {purpose}".encode()).derive(secret.encode())
    return made[:_ID], made[_ID:]
