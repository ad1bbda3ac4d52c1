"""Sealing: authenticated encryption (AES-GCM) of secrets, with keys derived from SECRET_KEYS.

A sealed secret is bound to the text `about` (its cache key), which is AES-GCM's associated data. If
an attacker moves it to another name in the shared cache, it can't be opened.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_VERSION = b"\x01"
_ID = 4  # length of a key's id in bytes
# Length in bytes. Random nonces are safe for 2**32 secrets under one key (NIST SP 800-38D, 8.3).
_NONCE = 12
_HEAD = len(_VERSION) + _ID + _NONCE


class Sealer:
    """Seals with the first secret key, and opens with any of them.

    Each `purpose` has its own derived keys.
    """

    def __init__(self, secret_keys: tuple[str, ...], purpose: str) -> None:
        keys = [derive_key(secret, purpose) for secret in secret_keys]
        # Reversed, so that the first key is used if two keys have the same id
        self._keys = {key_id: AESGCM(key) for key_id, key in reversed(keys)}
        self._first = keys[0][0]

    def seal(self, secret: bytes, about: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        sealed = self._keys[self._first].encrypt(nonce, secret, about)
        return _VERSION + self._first + nonce + sealed

    def is_current(self, sealed: bytes) -> bool:
        """Return whether the first secret key sealed it."""
        return sealed[: _HEAD - _NONCE] == _VERSION + self._first

    def open(self, sealed: bytes, about: bytes) -> bytes | None:
        """Return the secret; None if no known key sealed it with the same `about`."""
        key = self._keys.get(sealed[1 : 1 + _ID])
        if key is None or not sealed.startswith(_VERSION):
            return None
        try:
            return key.decrypt(sealed[1 + _ID : _HEAD], sealed[_HEAD:], about)
        except (InvalidTag, ValueError):  # ValueError: `sealed` is too short
            return None


def derive_key(secret: str, purpose: str) -> tuple[bytes, bytes]:
    """Derive a key from a secret. Return the key's id and the key.

    SECRET_KEYS are random, so HKDF needs no salt (RFC 5869, 3.1).
    """
    info = f"deputy {purpose}".encode()
    derived = HKDF(hashes.SHA256(), _ID + 32, None, info).derive(secret.encode())
    return derived[:_ID], derived[_ID:]
