"""Principals: who calls.

A principal is checked when a request begins, and again in each writing transaction of the request
(`Principal.reauthorize`).
"""

import hmac
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, bindparam, exists, or_, select
from sqlalchemy.orm import Session

from app.audit import Actor
from app.clock import now
from app.errors import ForbiddenError, NotFoundError, UnauthenticatedError
from app.identity.key_text import BAD_KEY
from app.identity.scopes import Scope, from_bits
from app.store.database import Lock
from app.store.models import ApiKey, Configuration, OnboardingLink, Tenant, TenantStatus

# Select it in the same statement as a row. Otherwise a revocation could come between the two reads.
REVOCATION_COUNTER = select(Configuration.revocation_counter).scalar_subquery()
WORKER = Actor("worker", None, "background worker")


class Principal(ABC):
    """Who acts: a client, a person, or Deputy itself."""

    __slots__ = ()

    tenant_scope: UUID | None  # the only tenant that it may act for; None: any tenant
    # It may use only connections with these permission sets; None: with any permission set
    permission_sets: frozenset[str] | None = None
    link_id: UUID | None = None  # set for a LinkPrincipal
    may_add_deleted: bool = False  # whether it may add a deleted connection again

    @property
    @abstractmethod
    def actor(self) -> Actor:
        """The actor for the audit events of this principal."""

    @abstractmethod
    def reauthorize(self, db: Session) -> None:
        """Check the principal again inside a write transaction.

        Raises an AppError if it may not act any more.
        """

    @property
    def is_vendor(self) -> bool:
        """Return whether the principal acts for the vendor, and is not confined to a tenant."""
        return self.tenant_scope is None

    def covers(self, permission_sets: frozenset[str]) -> bool:
        """Return whether the principal may use connections with these permission sets."""
        return self.permission_sets is None or permission_sets <= self.permission_sets

    def require_sets(self, permission_sets: frozenset[str]) -> None:
        """Raise ForbiddenError unless the principal covers these permission sets."""
        if not self.covers(permission_sets):
            lacking = ", ".join(sorted(permission_sets - (self.permission_sets or frozenset())))
            raise ForbiddenError(
                f"This API key is not for a permission set that the role has: {lacking}."
            )

    def require_vendor(self) -> None:
        """Raise ForbiddenError if the principal is confined to a tenant.

        Call it for requests about all tenants or about the vendor.
        """
        if not self.is_vendor:
            raise ForbiddenError("This API key is confined to one tenant.")


@dataclass(frozen=True, slots=True)
class ApiKeyPrincipal(Principal):
    """An API key. `for_request` adds the request in which the key is used."""

    key_id: UUID
    lookup: str  # the hex digits in the key's text, which identify its row
    digest: bytes = field(repr=False)
    name: str
    scopes: frozenset[Scope]
    tenant_scope: UUID | None
    expires_at: datetime | None
    permission_sets: frozenset[str] | None = None
    may_give: frozenset[Scope] = frozenset()  # empty without keys:delegate
    # Functions that `reauthorize` calls in each writing transaction
    on_write: tuple[Callable[[Session], None], ...] = field(default=(), repr=False)
    request_id: str | None = None  # this field and the next must be last, for `for_request`
    client_address: str | None = None

    may_add_deleted = True

    @property
    def actor(self) -> Actor:
        return Actor("api_key", str(self.key_id), self.name, self.request_id, self.client_address)

    @property
    def row_ids(self) -> tuple[UUID | None, ...]:
        """Row ids that this object depends on. Revoking any of them invalidates it."""
        return self.key_id, self.tenant_scope

    @property
    def lock_id(self) -> UUID:
        """The id of the lock that requests with this key share while they write.

        For a bound key it is the tenant's id, so all keys of the tenant have the same lock.
        """
        return self.tenant_scope or self.key_id

    @property
    def delegate_id(self) -> UUID | None:
        """The key's id if the key lacks keys:write, and so gives only the scopes in `may_give`."""
        return None if Scope.KEYS_WRITE in self.scopes else self.key_id

    def reauthorize(self, db: Session) -> None:
        """Check the key again inside a write transaction.

        Raises UnauthenticatedError for a key that has expired or was revoked, and any error of the
        functions in `on_write`.

        It takes a shared lock until the transaction ends, and locks no row. A revocation of the key
        waits for this transaction. This transaction waits for a revocation that began before, and
        then sees it.
        """
        Lock.PRINCIPAL.share(db, self.lock_id)
        key = select(ApiKey.id).where(
            ApiKey.id == self.key_id, key_is_live(), _OF_NO_DELETED_TENANT
        )
        if db.scalar(key) is None:
            raise UnauthenticatedError(BAD_KEY)
        for note in self.on_write:
            note(db)

    def noting(self, note: Callable[[Session], None]) -> "ApiKeyPrincipal":
        """Return a principal that also calls `note` in each writing transaction."""
        return replace(self, on_write=(*self.on_write, note))

    def for_request(self, request_id: str | None, client_address: str | None) -> "ApiKeyPrincipal":
        """Return a copy of the principal for one request.

        dataclasses.replace would take four times as long.
        """
        # mypy does not know what an attrgetter returns
        return ApiKeyPrincipal(*_of_key(self), request_id, client_address)  # type: ignore[call-arg]

    def ensure_valid(self, digest: bytes) -> None:
        """Raise UnauthenticatedError if the key has another digest or has expired."""
        if not hmac.compare_digest(self.digest, digest):
            raise UnauthenticatedError(BAD_KEY)
        self.ensure_live()

    def ensure_live(self) -> None:
        """Raise UnauthenticatedError if the key has expired since it was authenticated."""
        if has_expired(self.expires_at):
            raise UnauthenticatedError(BAD_KEY)

    def require(self, *scopes: Scope) -> frozenset[Scope]:
        """Return those of the scopes that the key has. Call it before lookups.

        Raises ForbiddenError if there is none.
        """
        granted = self.scopes.intersection(scopes)
        if not granted:
            raise ForbiddenError(f"This API key lacks the scope {' or '.join(scopes)}.")
        return granted


_of_key = operator.attrgetter(*ApiKeyPrincipal.__match_args__[:-2])


@dataclass(frozen=True, slots=True)
class LinkPrincipal(Principal):
    """An onboarding link: the person who opened its page, and who acts for its tenant only."""

    tenant_scope: UUID
    link_id: UUID = field()  # required here, unlike in Principal
    request_id: str | None = None
    client_address: str | None = None

    @property
    def actor(self) -> Actor:
        return Actor(
            "onboarding_link",
            str(self.link_id),
            "onboarding link",
            self.request_id,
            self.client_address,
        )

    def reauthorize(self, db: Session) -> None:
        """Check the link again inside a write transaction, in the same way as an API key.

        Raises NotFoundError if the link is revoked or expired, or its tenant is not active.
        """
        Lock.PRINCIPAL.share(db, self.tenant_scope)
        link = live_links().where(OnboardingLink.id == self.link_id)
        if db.scalar(link.with_only_columns(OnboardingLink.id)) is None:
            raise NotFoundError


@dataclass(frozen=True)
class OperatorPrincipal(Principal):
    """The person at the command line, who needs no key and may do everything.

    Only app/cli creates this principal.
    """

    name: str

    tenant_scope = None
    may_add_deleted = True
    key_id = None  # what the operator creates is in no key's family
    lock_id = None
    delegate_id = None

    @property
    def actor(self) -> Actor:
        return Actor("operator", None, self.name)

    def reauthorize(self, db: Session) -> None:
        """Do nothing: the operator has no key that could have been revoked."""


# Only these principals create keys, links and tenants. `made_by` is the key's id, or None for the
# operator.
Maker = ApiKeyPrincipal | OperatorPrincipal


@dataclass(frozen=True)
class SystemPrincipal(Principal):
    """Deputy itself, when it works for one tenant. It can't see any other tenant."""

    working_as: Actor
    tenant_scope: UUID

    @property
    def actor(self) -> Actor:
        return self.working_as

    def reauthorize(self, db: Session) -> None:
        """Do nothing: Deputy itself has no key that could have been revoked."""


def principal_at_counter(db: Session, lookup: str) -> tuple[int, ApiKeyPrincipal]:
    """Return the revocation counter, and the principal of the key with these lookup digits.

    The caller must check the key's digest and expiry (`ensure_valid`). Raises UnauthenticatedError
    for an unknown key, a revoked key, and a key of a deleted tenant.
    """
    row = db.execute(_BY_LOOKUP, {"lookup": lookup}).one_or_none()
    if row is None:
        raise UnauthenticatedError(BAD_KEY)
    return row.counter, ApiKeyPrincipal(
        key_id=row.id,
        lookup=row.lookup,
        digest=row.digest,
        name=row.name,
        scopes=from_bits(row.scope_bits),
        tenant_scope=row.tenant_id,
        expires_at=row.expires_at,
        permission_sets=None if row.permission_sets is None else frozenset(row.permission_sets),
        may_give=from_bits(row.may_give_bits),
    )


def key_is_live() -> ColumnElement[bool]:
    """Return the condition for keys that are neither revoked nor expired."""
    return and_(
        ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now())
    )


def has_expired(expires_at: datetime | None) -> bool:
    """Return whether a key with this expiry has expired. `key_is_live` is the same in SQL."""
    return expires_at is not None and expires_at <= now()


def live_links() -> Select[OnboardingLink, Tenant]:
    """Select the links whose onboarding page can be opened, with their tenants."""
    query = select(OnboardingLink, Tenant).join(Tenant)
    return query.where(
        OnboardingLink.revoked_at.is_(None),
        OnboardingLink.expires_at > now(),
        Tenant.status == TenantStatus.ACTIVE,
    )


# True for keys that are bound to no tenant or to a live one. A key may have been created while its
# tenant was being deleted.
_OF_NO_DELETED_TENANT = ~exists().where(
    Tenant.id == ApiKey.tenant_id, Tenant.deleted_at.is_not(None)
)

# Built once, because building a statement costs as much as running it. A request with a wrong key
# must cost little.
_BY_LOOKUP = select(*ApiKey.__table__.columns, REVOCATION_COUNTER.label("counter")).where(
    ApiKey.lookup == bindparam("lookup"), ApiKey.revoked_at.is_(None), _OF_NO_DELETED_TENANT
)
