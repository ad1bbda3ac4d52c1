"""Who is calling, what they may do, and which rows they can see.

A key's text is `dpk_<16 hex digits>_<43 characters>`: the digits find the row, the rest is 256 random bits. Keys
can't be used to make stronger keys: a key makes, sees and revokes only keys whose scopes are a subset of its own and
that are bound to its own tenant if it is bound; and it makes none that outlives it.
"""

import enum
import functools
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, TypeVar
from uuid import UUID

from sqlalchemy import Select, exists, or_, select
from sqlalchemy.orm import Session, lazyload

from app import audit
from app.audit import Actor
from app.db import Database, Page, now, page
from app.deployment import Configuration
from app.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    UnauthenticatedError,
    ValidationFailedError,
)
from app.models import ApiKey, Connection, ConnectionStatus, Tenant, TenantStatus

_KEY = re.compile(r"dpk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})", re.ASCII)
_BAD_KEY = "This needs a valid API key: Authorization: Bearer dpk_…"


class Scope(enum.StrEnum):
    """What a key may do. The order is the order of the bits in `api_keys.scope_bits`: append, never reorder."""

    TENANTS_READ = "tenants:read"
    TENANTS_WRITE = "tenants:write"
    CONNECTIONS_READ = "connections:read"
    CONNECTIONS_WRITE = "connections:write"
    CREDENTIALS_ISSUE = "credentials:issue"
    AUDIT_READ = "audit:read"
    WEBHOOKS_WRITE = "webhooks:write"
    KEYS_WRITE = "keys:write"


# Read in the same statement as what it speaks of, so that no change comes between the two.
_EPOCH = select(Configuration.epoch).scalar_subquery()
_BITS = {scope: 1 << place for place, scope in enumerate(Scope)}


def to_bits(scopes: Iterable[Scope]) -> int:
    return sum(_BITS[scope] for scope in set(scopes))


@functools.cache  # one for each combination of scopes that keys have
def from_bits(bits: int) -> frozenset[Scope]:
    return frozenset(scope for scope, bit in _BITS.items() if bits & bit)


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated API key, or an onboarding link (app/links.py), for the time of one request."""

    key_id: UUID  # or the link's
    lookup: str  # the digits of its text, by which the key is read again; a link has none
    digest: bytes = field(repr=False)
    name: str
    scopes: frozenset[Scope]
    tenant_id: UUID | None
    expires_at: datetime | None
    request_id: str | None
    kind: Literal["api_key", "onboarding_link"] = "api_key"

    @property
    def actor(self) -> Actor:
        return Actor(self.kind, str(self.key_id), self.name, self.request_id)

    def of(self, request_id: str | None) -> "Caller":
        """The same caller, of one request. Written out, as dataclasses.replace takes four times as long."""
        return Caller(
            self.key_id,
            self.lookup,
            self.digest,
            self.name,
            self.scopes,
            self.tenant_id,
            self.expires_at,
            request_id,
            self.kind,
        )

    def ensure_live(self) -> None:
        """Raises UnauthenticatedError when the key has expired since it was admitted."""
        if self.expires_at is not None and self.expires_at <= now():
            raise UnauthenticatedError(_BAD_KEY)

    def require(self, scope: Scope) -> None:
        """Raises ForbiddenError unless the key has the scope. Asked before anything is looked up."""
        if scope not in self.scopes:
            raise ForbiddenError(f"This API key lacks the scope {scope.value}.")

    def require_unbound(self) -> None:
        """Raises ForbiddenError for a key that is confined to one tenant, on a route that spans tenants."""
        if self.tenant_id is not None:
            raise ForbiddenError("This API key is confined to one tenant.")


class Somebody(Protocol):
    """Whoever acts, and the tenant that they are confined to, if they are: a key, or what has none (`OnBehalf`)."""

    @property
    def actor(self) -> Actor: ...
    @property
    def tenant_id(self) -> UUID | None: ...


@dataclass(frozen=True, slots=True)
class OnBehalf:
    """Deputy itself, at work for one tenant and unable to see any other."""

    actor: Actor
    tenant_id: UUID


def tenant_of(db: Session, caller: Somebody, tenant_id: UUID, *, lock: bool = False) -> Tenant:
    """The live tenant, if this caller can see it. Raises NotFoundError."""
    query = select(Tenant).where(Tenant.id == tenant_id, Tenant.deleted_at.is_(None))
    if caller.tenant_id is not None:
        query = query.where(Tenant.id == caller.tenant_id)
    return _one(db, query.with_for_update(of=Tenant) if lock else query)


def owned(
    db: Session, caller: Somebody, tenant_id: UUID, connection_id: UUID, *, lock: bool = False
) -> Connection:
    """That tenant's live connection, if this caller can see it: the tenant is part of the query. Raises NotFoundError."""
    query = _owned(caller, tenant_id, connection_id)
    return _one(db, query.with_for_update(of=Connection) if lock else query)


def owned_at(
    db: Session, caller: Caller, tenant_id: UUID, connection_id: UUID
) -> tuple[Connection, TenantStatus, int]:
    """As `owned`, with its tenant's status and the epoch, all of one moment: one statement. Raises NotFoundError."""
    query = _owned(caller, tenant_id, connection_id).options(lazyload(Connection.proof))
    row = db.execute(query.add_columns(Tenant.status, _EPOCH)).unique().one_or_none()
    if row is None:
        raise NotFoundError
    connection, status, epoch = row
    return connection, status, epoch


def _owned(caller: Somebody, tenant_id: UUID, connection_id: UUID) -> Select[Connection]:
    query = (
        select(Connection)
        .join(Tenant, Tenant.id == Connection.tenant_id)
        .where(
            Connection.id == connection_id,
            Connection.tenant_id == tenant_id,
            Connection.status != ConnectionStatus.DELETED,
            Tenant.deleted_at.is_(None),
        )
    )
    return query.where(Connection.tenant_id == caller.tenant_id) if caller.tenant_id is not None else query


Found = TypeVar("Found")


def _one(db: Session, query: Select[Found]) -> Found:
    row = db.scalars(query).unique().one_or_none()
    if row is None:
        raise NotFoundError
    return row


def is_live(key: ApiKey, at: datetime) -> bool:
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > at)


def lookup_of(text: str) -> str:
    """The digits that find a key, of its text. Raises UnauthenticatedError for what can't be a key."""
    found = _KEY.fullmatch(text)
    if found is None:
        raise UnauthenticatedError(_BAD_KEY)
    return found[1]


def digest_of(text: str) -> bytes:
    """What is kept of a key: the SHA-256 of its whole text."""
    return hashlib.sha256(text.encode("ascii")).digest()


def key_at(db: Session, lookup: str) -> tuple[ApiKey, int] | None:
    """The key with these digits, unless the tenant that it is bound to is gone; and the epoch of that moment."""
    row = db.execute(_of_live_tenant().where(ApiKey.lookup == lookup).add_columns(_EPOCH)).one_or_none()
    return None if row is None else (row[0], row[1])


def caller_of(key: ApiKey) -> Caller | None:
    """Whom this key lets in, of no request yet; None for a revoked one."""
    if key.revoked_at is not None:
        return None
    return Caller(
        key_id=key.id,
        lookup=key.lookup,
        digest=key.digest,
        name=key.name,
        scopes=from_bits(key.scope_bits),
        tenant_id=key.tenant_id,
        expires_at=key.expires_at,
        request_id=None,
    )


def admitted(caller: Caller | None, digest: bytes) -> Caller:
    """The caller, if that is the digest of its key and the key has not expired. Raises UnauthenticatedError."""
    if caller is None or not hmac.compare_digest(caller.digest, digest):
        raise UnauthenticatedError(_BAD_KEY)
    caller.ensure_live()
    return caller


def _lookup_of_strong(text: str) -> str:
    """The lookup digits of a full-strength key. Raises ValueError for one that a person might have typed."""
    found = _KEY.fullmatch(text)
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

    def authenticate(self, text: str, request_id: str | None) -> Caller:
        """The caller behind a key's text. Raises UnauthenticatedError, the same for every way to be wrong."""
        lookup = lookup_of(text)
        with self._db.read() as db:
            found = key_at(db, lookup)
        return admitted(caller_of(found[0]) if found else None, digest_of(text)).of(request_id)

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
        with self._db.write() as db:
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
            return _one(db, _visible(caller).where(ApiKey.id == key_id))

    def revoke_key(self, caller: Caller, key_id: UUID) -> None:
        """From the commit on, no request with that key is served. Raises NotFoundError."""
        with self._db.write() as db:
            key = _one(db, _visible(caller).where(ApiKey.id == key_id).with_for_update())
            self._revoke(db, caller.actor, key)

    # What follows is for the operator at the machine, who needs no key: flask --app wsgi keys …

    def install_key(self, actor: Actor, text: str, *, name: str) -> bool:
        """Install a given key with every scope; False when it is there already. Raises ValueError for a weak one.

        A revoked key is never revived: whoever revoked it meant it.
        """
        lookup = _lookup_of_strong(text)
        with self._db.write() as db:
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
        with self._db.write() as db:
            if tenant_id is not None:
                _one(db, select(Tenant).where(Tenant.id == tenant_id, Tenant.deleted_at.is_(None)))
            key = ApiKey(name=name, scope_bits=to_bits(scopes), tenant_id=tenant_id, expires_at=expires_at)
            return self._add(db, actor, key, generate_key())

    def all_keys(self) -> list[ApiKey]:
        with self._db.read() as db:
            return list(db.scalars(select(ApiKey).order_by(ApiKey.id)))

    def revoke_any(self, actor: Actor, key_id: UUID) -> None:
        """Raises NotFoundError, or ConflictError when it is revoked already."""
        with self._db.write() as db:
            key = _one(db, select(ApiKey).where(ApiKey.id == key_id).with_for_update())
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


def _of_live_tenant() -> Select[ApiKey]:
    """Keys whose tenant, if they have one, is there: a key may have been made while its tenant was being deleted."""
    tenant_gone = exists().where(Tenant.id == ApiKey.tenant_id, Tenant.deleted_at.is_not(None))
    return select(ApiKey).where(~tenant_gone)


def _visible(caller: Caller) -> Select[ApiKey]:
    """Live keys that are no stronger than the caller's: subset of its scopes, and of its tenant if it has one."""
    query = select(ApiKey).where(
        ApiKey.scope_bits.bitwise_and(to_bits(frozenset(Scope) - caller.scopes)) == 0,
        ApiKey.revoked_at.is_(None),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now()),
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
