"""Sealing (AES-GCM) of secrets that are kept for a while, with keys derived from SECRET_KEYS.

The purpose of a secret is sealed with it, as associated data. A secret that is moved to another
name, in this process or in a cache that an attacker can write to, does not open.
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
    """Seals with the first secret key and opens with any. Each `purpose` has keys of its own."""

    def __init__(self, secret_keys: tuple[str, ...], purpose: str) -> None:
        keys = [derive_key(secret, purpose) for secret in secret_keys]
        # The first key wins if ids collide
        self._keys = {key_id: AESGCM(key) for key_id, key in reversed(keys)}
        self._first = keys[0][0]

    def seal(self, secret: bytes, about: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        sealed = self._keys[self._first].encrypt(nonce, secret, about)
        return _VERSION + self._first + nonce + sealed

    def open(self, sealed: bytes, about: bytes) -> bytes | None:
        """Return the secret, or None unless one of these keys sealed it with the same `about`."""
        key = self._keys.get(sealed[1 : 1 + _ID])
        if key is None or not sealed.startswith(_VERSION):
            return None
        try:
            return key.decrypt(sealed[1 + _ID : _HEAD], sealed[_HEAD:], about)
        except (InvalidTag, ValueError):  # ValueError: too short
            return None


def derive_key(secret: str, purpose: str) -> tuple[bytes, bytes]:
    """Derive a key and its id from a secret, and return the id and the key.

    SECRET_KEYS are random, so HKDF needs no salt (RFC 5869, 3.1).
    """
    info = f"deputy {purpose}".encode()
    derived = HKDF(hashes.SHA256(), _ID + 32, None, info).derive(secret.encode())
    return derived[:_ID], derived[_ID:]
