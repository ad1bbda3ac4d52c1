"""The names of proofs' sessions.

To a role they look like the names of issuances, but Deputy recognizes them. A trust policy can
compare session names (`sts:RoleSessionName`). It must not recognize proofs by theirs, or a role
could be closed to proofs alone.

A proof's name therefore has the form of an issuance's, with the id of a key that does not exist.
Its last 24 digits, which are random in an issuance's name, are a MAC over the role's ARN and the
rest of the name.
"""

import hashlib
import hmac
import secrets
from uuid import UUID

from app.cache.sealing import derive_key
from app.ids import RoleArn, key_id_in, new_id, session_name

_KEY_AGES = 2 * 365 * 86_400_000  # milliseconds; maximum age of keys in use


class ProofNames:
    """Signs names with the first secret key, and recognizes names signed with any of them."""

    def __init__(self, secret_keys: tuple[str, ...]) -> None:
        self._keys = [derive_key(secret, "proofs' session names")[1] for secret in secret_keys]

    def make(self, role_arn: RoleArn) -> str:
        """Return a new name, for one session of this role."""
        # The id's time is in the past, like that of a real key's id.
        key_id = UUID(int=new_id().int - (secrets.randbelow(_KEY_AGES) << 80))
        return _signed(self._keys[0], role_arn.text, key_id)

    def recognizes(self, name: str, role_arn: str) -> bool:
        """Return whether one of the secret keys signed this name for this role."""
        key_id = key_id_in(name)
        if key_id is None:
            return False
        return any(hmac.compare_digest(_signed(key, role_arn, key_id), name) for key in self._keys)


def _signed(key: bytes, role_arn: str, key_id: UUID) -> str:
    mac = hmac.new(key, f"{role_arn} {key_id.hex}".encode(), hashlib.sha256)
    return session_name(key_id, mac.hexdigest())
