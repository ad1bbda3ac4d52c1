"""Principals: who calls, and what they may do.

A principal is checked when a request begins, and again in each transaction that the request writes
in (`Principal.reauthorize`).
"""

import hashlib
import hmac
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, bindparam, exists, or_, select
from sqlalchemy.orm import Session

from app.audit.events import Actor
from app.clock import now
from app.errors import ForbiddenError, NotFoundError, UnauthenticatedError
from app.identity.scopes import Scope, from_bits
from app.store import locks
from app.store.locks import Lock
from app.store.models import ApiKey, Configuration, OnboardingLink, Suspension, Tenant, TenantStatus

KEY = re.compile(r"dpk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})", re.ASCII)
_BAD_KEY = "This needs a valid API key: Authorization: Bearer dpk_…"

# Selected in the same statement as a row, to keep any change from coming between the two.
REVOCATION_COUNTER = select(Configuration.revocation_counter).scalar_subquery()


class Principal(ABC):
    """A program or a person that acts, or Deputy itself."""

    __slots__ = ()

    tenant_scope: UUID | None  # the only tenant that it may act for; None: any
    # The sets of the connections that it is for; None: any
    permission_sets: frozenset[str] | None = None
    link_id: UUID | None = None  # of an onboarding link
    may_add_deleted: bool = False  # whether it may add a deleted connection again

    @property
    @abstractmethod
    def actor(self) -> Actor:
        """The actor of its audit events."""

    @abstractmethod
    def reauthorize(self, db: Session) -> None:
        """Check the principal again inside a write transaction.

        Raises an AppError if it may not act any more.
        """

    @property
    def is_vendor(self) -> bool:
        """Return whether it acts for the vendor: it is confined to no tenant."""
        return self.tenant_scope is None

    def suspension(self, reason: str) -> Suspension:
        return Suspension(self.actor.kind, bound=not self.is_vendor, reason=reason)

    def covers(self, permission_sets: frozenset[str]) -> bool:
        """Return whether it is for all of these permission sets."""
        return self.permission_sets is None or permission_sets <= self.permission_sets

    def require_sets(self, permission_sets: frozenset[str]) -> None:
        """Require a key that is for all of these permission sets.

        Raises ForbiddenError.
        """
        if not self.covers(permission_sets):
            lacking = ", ".join(sorted(permission_sets - (self.permission_sets or frozenset())))
            raise ForbiddenError(
                f"This API key is not for a permission set that the role has: {lacking}."
            )

    def require_vendor(self) -> None:
        """Require a principal that is not confined to a tenant.

        It is for requests about all tenants or about the vendor. Raises ForbiddenError.
        """
        if not self.is_vendor:
            raise ForbiddenError("This API key is confined to one tenant.")


@dataclass(frozen=True, slots=True)
class ApiKeyPrincipal(Principal):
    """An API key. `for_request` adds the request in which it acts."""

    key_id: UUID
    lookup: str  # the digits by which the key is read again
    digest: bytes = field(repr=False)
    name: str
    scopes: frozenset[Scope]
    tenant_scope: UUID | None
    expires_at: datetime | None
    permission_sets: frozenset[str] | None = None
    may_give: frozenset[Scope] = frozenset()  # only for keys:delegate
    # Called in each of its write transactions
    on_write: Callable[[Session], None] | None = field(default=None, repr=False)
    request_id: str | None = None  # the request's fields come last, for `for_request`
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
        """The id of the lock that its writers share.

        For a bound key it is the tenant's. A bound key's whole family therefore has one lock.
        """
        return self.tenant_scope or self.key_id

    @property
    def delegate_id(self) -> UUID | None:
        """Its id, if the keys that it makes take their scopes from `may_give`, not from its own."""
        return None if Scope.KEYS_WRITE in self.scopes else self.key_id

    @property
    def giveable_scopes(self) -> frozenset[Scope]:
        """The scopes that keys of its making can have, or have in `may_give`.

        It sees and ends no other keys. An unbound key with keys:write may give keys:delegate: it
        could itself make every key that such a key makes.
        """
        if self.delegate_id:
            return self.may_give
        return self.scopes | {Scope.KEYS_DELEGATE} if self.is_vendor else self.scopes

    def reauthorize(self, db: Session) -> None:
        """Check the key again inside a write transaction.

        Raises UnauthenticatedError for a key that has expired or was revoked, and any error of
        `on_write`.

        Shares a lock until the transaction ends. A revocation waits for requests that write. A
        request that writes waits for a revocation, and sees it. No row is locked.
        """
        locks.share(db, Lock.CALLER, self.lock_id)
        key = select(ApiKey.id).where(
            ApiKey.id == self.key_id, key_is_live(), _OF_NO_DELETED_TENANT
        )
        if db.scalar(key) is None:
            raise UnauthenticatedError(_BAD_KEY)
        if self.on_write is not None:
            self.on_write(db)

    def for_request(self, request_id: str | None, client_address: str | None) -> "ApiKeyPrincipal":
        """Return the same principal for one request.

        dataclasses.replace takes four times as long.
        """
        # mypy can't infer a getter's results
        return ApiKeyPrincipal(*_of_key(self), request_id, client_address)  # type: ignore[call-arg]

    def ensure_live(self) -> None:
        """Ensure that the key has not expired since it was authenticated.

        Raises UnauthenticatedError.
        """
        if has_expired(self.expires_at):
            raise UnauthenticatedError(_BAD_KEY)

    def require(self, *scopes: Scope) -> None:
        """Require one of the scopes, before any lookup.

        Raises ForbiddenError.
        """
        if self.scopes.isdisjoint(scopes):
            raise ForbiddenError(f"This API key lacks the scope {' or '.join(scopes)}.")


_of_key = operator.attrgetter(*[field.name for field in fields(ApiKeyPrincipal)][:-2])


@dataclass(frozen=True, slots=True)
class LinkPrincipal(Principal):
    """An onboarding link: the person on its page, who acts for its tenant alone."""

    tenant_scope: UUID
    link_id: UUID = field()  # not Principal's default
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
        """Check the link again inside a write transaction, as an API key is checked.

        Raises NotFoundError.
        """
        locks.share(db, Lock.CALLER, self.tenant_scope)
        link = live_links().where(OnboardingLink.id == self.link_id)
        if db.scalar(link.with_only_columns(OnboardingLink.id)) is None:
            raise NotFoundError


@dataclass(frozen=True)
class OperatorPrincipal(Principal):
    """The person at the command line, who needs no key and may do everything.

    Only app/cli creates one.
    """

    name: str

    tenant_scope = None
    may_add_deleted = True
    key_id = None  # what it makes has no maker that could be revoked
    lock_id = None
    expires_at = None
    delegate_id = None
    giveable_scopes = frozenset(Scope)

    @property
    def actor(self) -> Actor:
        return Actor("operator", None, self.name)

    def reauthorize(self, db: Session) -> None:
        """Do nothing: no key could have been revoked."""


# Only these make keys, links and tenants. `made_by` has the key's id. None: the operator.
Maker = ApiKeyPrincipal | OperatorPrincipal


@dataclass(frozen=True)
class SystemPrincipal(Principal):
    """Deputy itself, working for one tenant and unable to see any other."""

    working_as: Actor
    tenant_scope: UUID

    @property
    def actor(self) -> Actor:
        return self.working_as

    def reauthorize(self, db: Session) -> None:
        """Do nothing: no key could have been revoked."""


def lookup_of(text: str) -> str:
    """Return the lookup digits in a key's text.

    Raises UnauthenticatedError for a text that does not have the form of a key.
    """
    match = KEY.fullmatch(text)
    if match is None:
        raise UnauthenticatedError(_BAD_KEY)
    return match[1]


def digest_of(text: str) -> bytes:
    """Return the stored hash of a key's text, or of a link's token.

    256 random bits need no slow hash and no salt.
    """
    return hashlib.sha256(text.encode("ascii")).digest()


def principal_at_counter(db: Session, lookup: str) -> tuple[int, ApiKeyPrincipal]:
    """Return the revocation counter, and the principal whose key has these digits.

    `authenticated` checks the key's digest and expiry. Raises UnauthenticatedError, also for a
    revoked key and for a key of a deleted tenant.
    """
    row = db.execute(_BY_LOOKUP, {"lookup": lookup}).one_or_none()
    if row is None:
        raise UnauthenticatedError(_BAD_KEY)
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


def authenticated(principal: ApiKeyPrincipal, digest: bytes) -> ApiKeyPrincipal:
    """Return the principal if the digest is its key's and the key has not expired.

    Raises UnauthenticatedError.
    """
    if not hmac.compare_digest(principal.digest, digest):
        raise UnauthenticatedError(_BAD_KEY)
    principal.ensure_live()
    return principal


def key_is_live() -> ColumnElement[bool]:
    """Return the condition for keys that are neither revoked nor expired."""
    return and_(
        ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now())
    )


def has_expired(expires_at: datetime | None) -> bool:
    """Return whether a key with this expiry has expired, as `key_is_live` says it in SQL."""
    return expires_at is not None and expires_at <= now()


def live_links() -> Select[OnboardingLink, Tenant]:
    """Select the onboarding links that open a page, with their tenants."""
    live = (
        OnboardingLink.revoked_at.is_(None),
        OnboardingLink.expires_at > now(),
        Tenant.status == TenantStatus.ACTIVE,
    )
    return select(OnboardingLink, Tenant).join(Tenant).where(*live)


# The condition for keys of no tenant and of tenants that are not deleted. A key may have been made
# while its tenant was being deleted.
_OF_NO_DELETED_TENANT = ~exists().where(
    Tenant.id == ApiKey.tenant_id, Tenant.deleted_at.is_not(None)
)

# Built once: building a statement costs as much as running it, and a wrong key must cost little.
_BY_LOOKUP = select(*ApiKey.__table__.columns, REVOCATION_COUNTER.label("counter")).where(
    ApiKey.lookup == bindparam("lookup"), ApiKey.revoked_at.is_(None), _OF_NO_DELETED_TENANT
)
