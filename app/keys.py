"""API keys: authenticate, create, list, revoke.

A key's text is `dpk_<16 hex digits>_<43 characters>`: the digits find the row, the rest is 256 random bits. Keys
can't be used to make stronger keys: a key makes, sees and revokes only keys whose scopes are a subset of its own and
that are bound to its own tenant if it is bound; and it makes none that outlives it.
"""

import hmac
import secrets
from datetime import datetime
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app import audit
from app.access import (
    KEY,
    Caller,
    Scope,
    admitted,
    caller_of,
    digest_of,
    from_bits,
    key_at,
    live_at,
    lookup_of,
    one,
    tenant_of,
    to_bits,
)
from app.audit import Actor
from app.db import SYSTEM, Database, Page, now, page
from app.errors import ConflictError, ForbiddenError, ValidationFailedError
from app.models import ApiKey, Tenant


def is_live(key: ApiKey, at: datetime) -> bool:
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > at)


def _lookup_of_strong(text: str) -> str:
    """The lookup digits of a full-strength key. Raises ValueError for one that a person might have typed."""
    found = KEY.fullmatch(text)
    if found is None:
        raise ValueError("A key is dpk_, 16 lowercase hex digits, _, and 43 characters of A-Z a-z 0-9 _ -.")
    if len(set(found[2])) < 16:  # 43 random characters with fewer distinct ones: about once in 10^11 keys
        raise ValueError(
            "This key's secret part is not random; make one with: flask --app wsgi keys generate"
        )
    return found[1]


def generate_key() -> str:
    """A new key's text: 32 random bytes, and 8 to find it by."""
    return f"dpk_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"


class Access:
    """API keys: authenticate, create, list, revoke."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def authenticate(self, text: str, request_id: str | None, client_address: str | None = None) -> Caller:
        """The caller behind a key's text. Raises UnauthenticatedError, the same for every way to be wrong."""
        lookup = lookup_of(text)
        with self._db.read() as db:
            found = key_at(db, lookup)
        caller = admitted(caller_of(found[0]) if found else None, digest_of(text))
        return caller.of(request_id, client_address)

    def create_key(
        self,
        caller: Caller,
        *,
        name: str,
        scopes: frozenset[Scope],
        tenant_id: UUID | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key and its text, which is shown this once.

        Raises ForbiddenError for a scope that the caller lacks, NotFoundError for a tenant that it can't see, and
        ValidationFailedError for an expiry that has passed or is later than the caller's own.
        """
        if missing := scopes - caller.scopes:
            raise ForbiddenError(
                f"This API key lacks {', '.join(sorted(missing))}, so it can't give it away."
            )
        tenant_id = tenant_id or caller.tenant_id
        expires_at = _bounded(expires_at, caller.expires_at)
        with self._db.write(caller) as db:
            if tenant_id is not None:
                tenant_of(db, caller, tenant_id)
            key = ApiKey(name=name, scope_bits=to_bits(scopes), tenant_id=tenant_id, expires_at=expires_at)
            return self._add(db, caller.actor, key, generate_key())

    def list_keys(self, caller: Caller, *, limit: int, after: UUID | None) -> Page[ApiKey]:
        with self._db.read() as db:
            return page(db, _visible(caller), ApiKey.id, limit=limit, after=after)

    def get_key(self, caller: Caller, key_id: UUID) -> ApiKey:
        """Raises NotFoundError for a key that is absent, revoked, or stronger than the caller's."""
        with self._db.read() as db:
            return one(db, _visible(caller).where(ApiKey.id == key_id))

    def revoke_key(self, caller: Caller, key_id: UUID) -> None:
        """From the commit on, no request with that key is served. Raises NotFoundError."""
        with self._db.write(caller) as db:
            key = one(db, _visible(caller).where(ApiKey.id == key_id).with_for_update())
            self._revoke(db, caller.actor, key)

    # What follows is for the operator at the machine, who needs no key: flask --app wsgi keys …

    def install_key(self, actor: Actor, text: str, *, name: str) -> bool:
        """Install a given key with every scope; False when it is there already. Raises ValueError for a weak one.

        A revoked key is never revived: whoever revoked it meant it.
        """
        lookup = _lookup_of_strong(text)
        with self._db.write(SYSTEM) as db:
            key = db.scalars(select(ApiKey).where(ApiKey.lookup == lookup)).one_or_none()
            if key is None:
                self._add(db, actor, ApiKey(name=name, scope_bits=to_bits(Scope)), text)
                return True
            if not is_live(key, now()) or not hmac.compare_digest(key.digest, digest_of(text)):
                raise ValueError(
                    "A key with these 16 digits exists and is revoked, expired or another; make a new one."
                )
            return False

    def issue_key(
        self,
        actor: Actor,
        *,
        name: str,
        scopes: frozenset[Scope],
        tenant_id: UUID | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key of any strength. Raises NotFoundError for an unknown tenant."""
        with self._db.write(SYSTEM) as db:
            if tenant_id is not None:
                one(db, select(Tenant).where(Tenant.id == tenant_id, Tenant.deleted_at.is_(None)))
            key = ApiKey(name=name, scope_bits=to_bits(scopes), tenant_id=tenant_id, expires_at=expires_at)
            return self._add(db, actor, key, generate_key())

    def all_keys(self) -> list[ApiKey]:
        with self._db.read() as db:
            return list(db.scalars(select(ApiKey).order_by(ApiKey.id)))

    def revoke_any(self, actor: Actor, key_id: UUID) -> None:
        """Raises NotFoundError, or ConflictError when it is revoked already."""
        with self._db.write(SYSTEM) as db:
            key = one(db, select(ApiKey).where(ApiKey.id == key_id).with_for_update())
            if key.revoked_at is not None:
                raise ConflictError("This key is revoked already.")
            self._revoke(db, actor, key)

    def _add(self, db: Session, actor: Actor, key: ApiKey, text: str) -> tuple[ApiKey, str]:
        key.lookup, key.digest = text[4:20], digest_of(text)
        db.add(key)
        db.flush()
        details = {"api_key_id": str(key.id), "name": key.name, "scopes": sorted(from_bits(key.scope_bits))}
        audit.record(db, actor, "api_key.created", tenant_id=key.tenant_id, details=details)
        return key, text

    def _revoke(self, db: Session, actor: Actor, key: ApiKey) -> None:
        key.revoked_at = now()
        details = {"api_key_id": str(key.id), "name": key.name}
        audit.record(db, actor, "api_key.revoked", tenant_id=key.tenant_id, details=details)


def _visible(caller: Caller) -> Select[ApiKey]:
    """Live keys that are no stronger than the caller's: subset of its scopes, and of its tenant if it has one."""
    query = select(ApiKey).where(
        ApiKey.scope_bits.bitwise_and(to_bits(frozenset(Scope) - caller.scopes)) == 0,
        live_at(now()),
    )
    return query.where(ApiKey.tenant_id == caller.tenant_id) if caller.tenant_id is not None else query


def _bounded(wanted: datetime | None, limit: datetime | None) -> datetime | None:
    if wanted is None:
        return limit
    if wanted <= now():
        raise ValidationFailedError({"expires_at": ["This time has passed."]})
    if limit is not None and wanted > limit:
        raise ValidationFailedError(
            {"expires_at": [f"At most {limit.isoformat()}, when the key in use expires."]}
        )
    return wanted
