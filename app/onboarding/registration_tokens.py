"""Registration tokens, which name the tenant of a customer's stack and authorize nothing.

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
import hmac
import re
import struct
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select

from app.cache.sealing import derive_key
from app.errors import NotFoundError, SuspendedError
from app.identity import WORKER, SystemPrincipal, tenant_of
from app.store.database import Lock, Session
from app.store.models import OnboardingLink, Tenant

# Each length in bytes is divisible by three, so a token has only one encoding.
_TOKEN = re.compile(r"dpt_((?:[A-Za-z0-9_-]{4}){18,29})", re.ASCII)
# The parts before the MAC. The id of a link is followed by two bytes that fill up the length.
_OF_TENANT, _OF_LINK = struct.Struct(">c16s16sI"), struct.Struct(">c16s16sI16s2x")
_FORMS = {b"\x01": _OF_TENANT, b"\x02": _OF_LINK}
_OLD = struct.Struct(">16s2xI")  # the tenant's id, and its generation in six bytes
_MAC = 32  # bytes


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
        ids = deployment_id.bytes, tenant_id.bytes, generation
        signed = _OF_TENANT.pack(b"\x01", *ids)
        if link_id is not None:
            signed = _OF_LINK.pack(b"\x02", *ids, link_id.bytes)
        mac = hmac.digest(self._keys[0], signed, "sha256")
        return "dpt_" + base64.urlsafe_b64encode(signed + mac).decode()

    def read(self, text: str) -> TokenIds | None:
        """Return the ids in the token, or None when none of our keys signed it."""
        token = _bytes(text)
        signed, mac = token[:-_MAC], token[-_MAC:]
        is_ours = False
        for key in self._keys:  # never stops early, so the time does not reveal which key signed
            is_ours |= hmac.compare_digest(hmac.digest(key, signed, "sha256"), mac)
        return _ids_in(signed) if is_ours else None


def _ids_in(signed: bytes) -> TokenIds | None:
    """Return the ids in a token's signed part; None for an unknown form."""
    if len(signed) == _OLD.size:
        tenant_id, generation = _OLD.unpack(signed)
        return TokenIds(UUID(bytes=tenant_id), generation)
    form = _FORMS.get(signed[:1])
    if form is None or len(signed) != form.size:
        return None
    _, _, tenant_id, generation, *link_ids = form.unpack(signed)
    return TokenIds(
        UUID(bytes=tenant_id), generation, *[UUID(bytes=link_id) for link_id in link_ids]
    )


def deployment_of(text: str) -> UUID | None:
    """Return the deployment's id in a token, unverified; None for an old token and other text."""
    token = _bytes(text)
    if len(token) < _OF_TENANT.size + _MAC:
        return None
    return UUID(bytes=token[1:17])


def _bytes(text: str) -> bytes:
    """Return a token's bytes; empty for text that is not a token."""
    match = _TOKEN.fullmatch(text)
    return base64.urlsafe_b64decode(match[1]) if match else b""


class VoidMessage(Exception):  # noqa: N818  the message is ignored
    """A message is to be ignored. The argument is one word for our own log."""


class VoidToken(VoidMessage):
    """The token is not ours or was voided, or its tenant is deleted or suspended."""


def tenant_of_token(db: Session, token: TokenIds, *, lock: bool) -> Tenant:
    """Return the tenant of a token that is still valid. Raises VoidToken."""
    tenant_id = token.tenant_id
    if token.link_id is not None:
        if lock:
            # A revocation of the link waits for this transaction, as for a request of its page
            Lock.PRINCIPAL.share(db, tenant_id)
        # The token of an expired link stays valid, because launched stacks keep it for years.
        link = select(OnboardingLink.id).where(
            OnboardingLink.id == token.link_id, OnboardingLink.revoked_at.is_(None)
        )
        if db.scalar(link) is None:
            raise VoidToken("link")
    try:
        tenant = tenant_of(db, SystemPrincipal(WORKER, tenant_id), tenant_id, lock=lock)
        tenant.ensure_active()
    except (NotFoundError, SuspendedError) as error:
        raise VoidToken("tenant") from error
    if tenant.registration_generation != token.generation:
        raise VoidToken("tenant")
    return tenant
