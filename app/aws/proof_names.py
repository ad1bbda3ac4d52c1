"""The session names of proofs.

To a role they look like the session names of issued credentials, but Deputy can recognize them. A
trust policy can compare session names (`sts:RoleSessionName`). If it could recognize those of
proofs, a role could refuse bad calls from proofs and accept the same calls from others.

A proof's session name therefore has the same form, with the id of an API key that does not exist.
Its last 24 digits are a MAC over the role's ARN and that id. In the session name of issued
credentials, these digits are random.
"""

import hashlib
import hmac
import secrets
from uuid import UUID

from app.cache.sealing import derive_key
from app.ids import RoleArn, key_id_in, new_id, session_name

_KEY_AGES = 2 * 365 * 86_400_000  # milliseconds; assumed maximum age of API keys in use


class ProofNames:
    """Signs names with the first secret key, and recognizes names signed with any of them."""

    def __init__(self, secret_keys: tuple[str, ...]) -> None:
        self._keys = [derive_key(secret, "proofs' session names")[1] for secret in secret_keys]

    def make(self, role_arn: RoleArn) -> str:
        """Return a new session name for a proof of this role."""
        # The time in the id is in the past, as in the id of a real API key.
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
