"""The names of sessions: those of issued credentials, and those of proofs, which look the same."""

import hashlib
import hmac
import re
import secrets
from uuid import UUID

from app.cache.sealing import derive_key
from app.ids import RoleArn, new_id

_KEY_AGES = 2 * 365 * 86_400_000  # milliseconds; assumed maximum age of API keys in use

_SESSION_NAME = re.compile(r"deputy-([0-9a-f]{32})-[0-9a-f]{24}", re.ASCII)


def session_name(key_id: UUID, digits: str | None = None) -> str:
    """Return a session's name, `deputy-<key id>-<24 hex digits>`.

    It has exactly 64 characters, which is AWS's maximum. The customer's CloudTrail shows the name,
    and so which API key was used. `digits`: hex digits of which the first 24 are used; None: random
    digits.
    """
    return f"deputy-{key_id.hex}-{digits or secrets.token_hex(12):.24}"


def key_id_in(name: str) -> UUID | None:
    """Return the API key's id in a session's name; None if `session_name` did not make the name."""
    match = _SESSION_NAME.fullmatch(name)
    return UUID(match[1]) if match else None


class ProofNames:
    """The session names of proofs.

    To a role they look like the session names of issued credentials, but Deputy can recognize them.
    A trust policy can compare session names (`sts:RoleSessionName`). If it could recognize those of
    proofs, a role could refuse bad calls from proofs and accept the same calls from others.

    A proof's session name therefore has the same form, with the id of an API key that does not
    exist. Its last 24 digits are a MAC over the role's ARN and that id. In the session name of
    issued credentials, these digits are random. The first secret key signs names; names signed with
    any key are recognized.
    """

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
