"""Callers, and what they may do.

A caller is checked when a request begins, and again in each transaction that the request writes in
(`Caller.admit`).
"""

import enum
import functools
import hashlib
import hmac
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, bindparam, exists, or_, select
from sqlalchemy.orm import Session

from app.audit.events import Actor
from app.clock import now
from app.errors import ForbiddenError, NotFoundError, UnauthenticatedError
from app.store import locks
from app.store.locks import Lock
from app.store.models import ApiKey, Configuration, OnboardingLink, Suspension, Tenant, TenantStatus

KEY = re.compile(r"dpk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})", re.ASCII)
_BAD_KEY = "This needs a valid API key: Authorization: Bearer dpk_…"


class Scope(enum.StrEnum):
    """What a key may do.

    The order is the order of the bits in `api_keys.scope_bits`: append, never reorder.
    """

    TENANTS_READ = "tenants:read"
    TENANTS_WRITE = "tenants:write"
    CONNECTIONS_READ = "connections:read"
    CONNECTIONS_WRITE = "connections:write"
    CREDENTIALS_ISSUE = "credentials:issue"
    AUDIT_READ = "audit:read"
    WEBHOOKS_WRITE = "webhooks:write"
    KEYS_WRITE = "keys:write"
    KEYS_DELEGATE = "keys:delegate"


MAKES_KEYS = frozenset({Scope.KEYS_WRITE, Scope.KEYS_DELEGATE})
# The meaning of `all`. keys:delegate can't be combined with keys:write.
ALL_SCOPES = frozenset(Scope) - {Scope.KEYS_DELEGATE}

# Selected in the same statement as a row, to keep any change from coming between the two.
REVOCATION_COUNTER = select(Configuration.revocation_counter).scalar_subquery()
_BITS = {scope: 1 << place for place, scope in enumerate(Scope)}


def to_bits(scopes: Iterable[Scope]) -> int:
    return sum(_BITS[scope] for scope in set(scopes))


@functools.cache  # one for each combination of scopes that keys have
def from_bits(bits: int) -> frozenset[Scope]:
    return frozenset(scope for scope, bit in _BITS.items() if bits & bit)


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal of one request.

    It is an authenticated API key, an onboarding link (app/onboarding/page_links.py) or the
    operator.
    """

    key_id: UUID  # or the link's
    lookup: str  # the digits by which a key is read again; a link has none
    digest: bytes = field(repr=False)
    name: str
    scopes: frozenset[Scope]
    tenant_id: UUID | None
    expires_at: datetime | None
    kind: Literal["api_key", "onboarding_link", "operator"] = "api_key"
    permission_sets: frozenset[str] | None = (
        None  # it may issue for connections with these sets; None: with any
    )
    may_give: frozenset[Scope] = frozenset()  # only for keys:delegate
    # Called in each of its write transactions
    counts: Callable[[Session], None] | None = field(default=None, repr=False)
    request_id: str | None = None  # the request's fields come last, for `for_request`
    client_address: str | None = None

    @property
    def actor(self) -> Actor:
        return Actor(self.kind, str(self.key_id), self.name, self.request_id, self.client_address)

    @property
    def row_ids(self) -> tuple[UUID | None, ...]:
        """Row ids that this object depends on. Revoking any of them invalidates it."""
        return self.key_id, self.tenant_id

    @property
    def lock_id(self) -> UUID | None:
        """The id of the lock that its writers share.

        For a bound key and for a link it is the tenant's. A bound key's whole family therefore has
        one lock.
        """
        return self.tenant_id or self.key_id

    @property
    def delegates(self) -> bool:
        """Whether the keys that it makes take their scopes from `may_give`, not from its own."""
        return Scope.KEYS_WRITE not in self.scopes

    @property
    def giveable_scopes(self) -> frozenset[Scope]:
        """The scopes that keys of its making can have, or have in `may_give`.

        It sees and ends no other keys. An unbound key with keys:write may give keys:delegate: it
        could itself make every key that such a key makes.
        """
        if self.delegates:
            return self.may_give
        return self.scopes if self.tenant_id is not None else self.scopes | {Scope.KEYS_DELEGATE}

    def suspension(self, reason: str) -> Suspension:
        return Suspension(self.kind, bound=self.tenant_id is not None, reason=reason)

    def admit(self, db: Session) -> None:
        """Check the caller again inside a write transaction.

        Raises UnauthenticatedError for a key that has expired or was revoked, NotFoundError for
        such a link, and any error of `counts`.

        Shares a lock until the transaction ends. A revocation waits for requests that write. A
        request that writes waits for a revocation, and sees it. No row is locked.
        """
        locks.share(db, Lock.CALLER, self.lock_id)
        if self.kind == "onboarding_link":
            link = (
                live_links()
                .where(OnboardingLink.id == self.key_id)
                .with_only_columns(OnboardingLink.id)
            )
            if db.scalar(link) is None:
                raise NotFoundError
            return
        key = (
            _of_live_tenant()
            .where(ApiKey.id == self.key_id, live_at(now()))
            .with_only_columns(ApiKey.id)
        )
        if db.scalar(key) is None:
            raise UnauthenticatedError(_BAD_KEY)
        if self.counts is not None:
            self.counts(db)

    def for_request(self, request_id: str | None, client_address: str | None) -> "Caller":
        """Return the same caller for one request.

        dataclasses.replace takes four times as long.
        """
        # mypy can't infer a getter's results
        return Caller(*_of_key(self), request_id, client_address)  # type: ignore[call-arg]

    def ensure_live(self) -> None:
        """Ensure that the key has not expired since it was authenticated.

        Raises UnauthenticatedError.
        """
        if self.expires_at is not None and self.expires_at <= now():
            raise UnauthenticatedError(_BAD_KEY)

    def require(self, *scopes: Scope) -> None:
        """Require one of the scopes, before any lookup.

        Raises ForbiddenError.
        """
        if self.scopes.isdisjoint(scopes):
            raise ForbiddenError(f"This API key lacks the scope {' or '.join(scopes)}.")

    def covers(self, permission_sets: frozenset[str]) -> bool:
        """Return whether the key is for all of these permission sets."""
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

    def require_unbound(self) -> None:
        """Require a key that is not bound to a tenant.

        It is for requests about all tenants or about the vendor. Raises ForbiddenError.
        """
        if self.tenant_id is not None:
            raise ForbiddenError("This API key is confined to one tenant.")


_of_key = operator.attrgetter(*[field.name for field in fields(Caller)][:-2])


class OnBehalf(NamedTuple):
    """Deputy itself, working for one tenant and unable to see any other."""

    actor: Actor
    tenant_id: UUID

    def admit(self, db: Session) -> None:
        """Do nothing: no key could have been revoked."""


class Operator(Caller):
    """The person at the command line, who needs no key and may do everything.

    Only app/cli creates one.
    """

    __slots__ = ()

    def __init__(self, name: str) -> None:
        no_key: Any = None  # its keys and links then have no maker that could be revoked
        super().__init__(
            no_key,
            "",
            b"",
            name,
            frozenset(Scope),
            tenant_id=None,
            expires_at=None,
            kind="operator",
        )

    @property
    def actor(self) -> Actor:
        return Actor("operator", None, self.name)

    def admit(self, db: Session) -> None:
        """Do nothing: no key could have been revoked."""


AnyCaller = Caller | OnBehalf


def lookup_of(text: str) -> str:
    """Return the lookup digits in a key's text.

    Raises UnauthenticatedError for a text that does not have the form of a key.
    """
    found = KEY.fullmatch(text)
    if found is None:
        raise UnauthenticatedError(_BAD_KEY)
    return found[1]


def digest_of(text: str) -> bytes:
    """Return the stored hash of a key's text, or of a link's token.

    256 random bits need no slow hash and no salt.
    """
    return hashlib.sha256(text.encode("ascii")).digest()


def caller_at_counter(db: Session, lookup: str) -> tuple[int, Caller]:
    """Return the revocation counter, and the caller whose key has these digits.

    `authenticated` checks the key's digest and expiry. Raises UnauthenticatedError, also for a
    revoked key and for a key of a deleted tenant.
    """
    row = db.execute(_BY_LOOKUP, {"lookup": lookup}).one_or_none()
    if row is None:
        raise UnauthenticatedError(_BAD_KEY)
    return row.counter, Caller(
        key_id=row.id,
        lookup=row.lookup,
        digest=row.digest,
        name=row.name,
        scopes=from_bits(row.scope_bits),
        tenant_id=row.tenant_id,
        expires_at=row.expires_at,
        permission_sets=None if row.permission_sets is None else frozenset(row.permission_sets),
        may_give=from_bits(row.may_give_bits),
    )


def authenticated(caller: Caller, digest: bytes) -> Caller:
    """Return the caller if the digest is its key's and the key has not expired.

    Raises UnauthenticatedError.
    """
    if not hmac.compare_digest(caller.digest, digest):
        raise UnauthenticatedError(_BAD_KEY)
    caller.ensure_live()
    return caller


def live_at(at: datetime) -> ColumnElement[bool]:
    """Return the condition for keys that are neither revoked nor expired."""
    return and_(
        ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > at)
    )


def is_live(key: ApiKey, at: datetime) -> bool:
    """Return whether `live_at` holds for a key that was read."""
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > at)


def live_links() -> Select[OnboardingLink, Tenant]:
    """Select the onboarding links that open a page, with their tenants."""
    live = (
        OnboardingLink.revoked_at.is_(None),
        OnboardingLink.expires_at > now(),
        Tenant.status == TenantStatus.ACTIVE,
    )
    return select(OnboardingLink, Tenant).join(Tenant).where(*live)


def _of_live_tenant() -> Select[ApiKey]:
    """Select the keys of no tenant and of tenants that are not deleted.

    A key may have been made while its tenant was being deleted.
    """
    tenant_gone = exists().where(Tenant.id == ApiKey.tenant_id, Tenant.deleted_at.is_not(None))
    return select(ApiKey).where(~tenant_gone)


# Built once: building a statement costs as much as running it, and a wrong key must cost little.
_BY_LOOKUP = (
    _of_live_tenant()
    .where(ApiKey.lookup == bindparam("lookup"), ApiKey.revoked_at.is_(None))
    .with_only_columns(*ApiKey.__table__.columns, REVOCATION_COUNTER.label("counter"))
)
