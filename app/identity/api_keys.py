"""API keys: authenticate, create, list, replace, revoke.

Revoking a key revokes its family (app/identity/family_revocation.py). Replacing a key hands its
family to the successor. app/identity/delegation.py says which keys a key may create, see and
revoke.
"""

import hmac
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select

from app.audit import actions
from app.audit.details import KeyReference
from app.clock import now
from app.errors import ConflictError, NotFoundError, ValidationFailedError
from app.identity import ensure_room, family_revocation, one_or_not_found, tenant_of
from app.identity.delegation import (
    bounded_expiry,
    delegated_tenants,
    ensure_giveable,
    ensure_may_end,
    ensure_no_wider,
    no_stronger,
    one_visible,
)
from app.identity.family_revocation import FamilySummary, Making
from app.identity.key_text import digest_of, generate_key, lookup_of, lookup_of_operators_key
from app.identity.key_uses import KeyUses
from app.identity.principals import (
    ApiKeyPrincipal,
    Maker,
    OperatorPrincipal,
    has_expired,
    key_is_live,
    principal_at_counter,
)
from app.identity.scopes import ALL_SCOPES, Scope, from_bits, to_bits
from app.ids import new_id
from app.settings.setting_types import Limit
from app.settings.valid_values import DAY, WEEK
from app.store.database import Database, Lock, Session, until_committed
from app.store.keyset import Page, page, with_values
from app.store.models import ApiKey, Tenant

GRACE_SECONDS = DAY  # how long a replaced key stays valid by default
GRACE_SECONDS_MAX = WEEK
_LIFETIME_MAX = timedelta(days=365_000)  # a successor's, so that its expiry is a date


@dataclass
class ApiKeys:
    """Creates, lists, replaces and revokes API keys."""

    _db: Database
    _uses: KeyUses
    _limit: Limit  # the maximum of live keys per tenant
    _sets: Collection[str]  # the names of all permission sets

    def authenticate(
        self, text: str, request_id: str | None = None, client_address: str | None = None
    ) -> ApiKeyPrincipal:
        """Return the principal of the key with this text.

        Raises UnauthenticatedError, with the same message for every reason.
        """
        lookup = lookup_of(text)
        with self._db.read() as db:
            _, principal = principal_at_counter(db, lookup)
        return self._uses.use(principal, text, request_id, client_address)

    def create_key(
        self,
        principal: Maker,
        *,
        name: str,
        scopes: frozenset[Scope],
        may_give: frozenset[Scope] = frozenset(),
        tenant_id: UUID | None = None,
        expires_at: datetime | None = None,
        permission_sets: list[str] | None = None,
    ) -> tuple[ApiKey, str]:
        """Create a key. Return its row and its text, which can't be read again.

        `tenant_id`, `expires_at` and `permission_sets` default to the principal's own.

        Raises ForbiddenError for a scope or a permission set that the principal can't give. Raises
        NotFoundError for a tenant that the principal can't see or create keys for. Raises
        ValidationFailedError for an unknown permission set, for fields that can't be combined, and
        for an expiry that has passed or is later than the principal's own. Raises RateLimitedError
        when the tenant has TENANT_KEYS live keys.
        """
        ensure_giveable(principal, scopes, may_give, tenant_id)
        if permission_sets is None and principal.permission_sets is not None:
            permission_sets = sorted(principal.permission_sets)
        if not set(self._sets).issuperset(permission_sets or ()):
            message = f"Must be some of: {', '.join(sorted(self._sets))}."
            raise ValidationFailedError(permission_sets=message)
        ensure_no_wider(principal, permission_sets)
        tenant_id = tenant_id or principal.tenant_scope
        key = ApiKey(
            name=name,
            scope_bits=to_bits(scopes),
            may_give_bits=to_bits(may_give),
            tenant_id=tenant_id,
            permission_sets=permission_sets,
            made_by=principal.key_id,
        )
        with self._db.write(Making(principal)) as db:
            key.expires_at = bounded_expiry(expires_at, _expiry_of(db, principal))
            _ensure_room(db, principal, tenant_id, self._limit)
            return _add(db, principal, key, generate_key())

    def list_keys(self, principal: Maker, *, limit: int, after: UUID | None) -> Page[ApiKey]:
        with self._db.read() as db:
            query = no_stronger(principal).where(key_is_live())
            return page(db, query, ApiKey.id, limit=limit, after=after)

    def get_key(self, principal: Maker, key_id: UUID) -> tuple[ApiKey, FamilySummary]:
        """Return the key, and a summary of the family that would be revoked with it.

        An expired key is returned as well, because its family may be live. Raises NotFoundError for
        a key that does not exist, is revoked, or is stronger than the principal's.
        """
        with self._db.read() as db:
            key = one_or_not_found(db, one_visible(principal, key_id))
            return key, family_revocation.summarize_family(db, key)

    @until_committed
    def revoke_key(self, principal: Maker, key_id: UUID) -> None:
        """Revoke a key and its family.

        From the commit on, every request with one of these keys and links is refused. Raises
        NotFoundError, and ForbiddenError for a key that the principal may see but not revoke.
        """
        query = one_visible(principal, key_id)
        with self._db.read() as db:  # a request for an absent key must not wait for locks
            ensure_may_end(db, principal, one_or_not_found(db, query))
        with self._db.write(family_revocation.ending(principal, query)) as db:
            key = one_or_not_found(db, query)
            ensure_may_end(db, principal, key)
            actions.KEY_REVOKED.record(
                db,
                principal.actor,
                {**_reference(key), **family_revocation.revoke_family(db, key)},
                key.tenant_id,
            )

    def replace_key(
        self, principal: Maker, key_id: UUID, *, grace_seconds: int = GRACE_SECONDS
    ) -> tuple[ApiKey, FamilySummary, str]:
        """Replace a key. Return the successor, a summary of its family, and the successor's text.

        The text can't be read again. The successor has the old key's name, scopes, tenant and
        permission sets, and inherits its family. The old key expires after the grace period. The
        successor's lifetime is as long as the old key's was, but it does not expire later than the
        principal.

        Raises NotFoundError and ForbiddenError like `revoke_key`, ConflictError for a key that was
        replaced already, and RateLimitedError when the tenant has twice TENANT_KEYS live keys.
        """
        query = one_visible(principal, key_id)
        with self._db.write(family_revocation.replacing(principal, query)) as db:
            old = one_or_not_found(db, query)
            ensure_may_end(db, principal, old)
            if old.replaced_by is not None:
                raise ConflictError("This key was replaced already; replace its successor.")
            if has_expired(old.expires_at):
                raise NotFoundError
            # Twice the limit, so that a tenant that has reached the limit can replace all its keys
            twice = self._limit._replace(most=2 * self._limit.amount)
            _ensure_room(db, principal, old.tenant_id, twice)
            successor = _successor(old, principal, _expiry_of(db, principal))
            family_revocation.inherit(db, old.id, successor.id, by=principal.key_id)
            ends = now() + timedelta(seconds=grace_seconds)
            old.replaced_by, old.expires_at = successor.id, _earlier(old.expires_at, ends)
            _, text = _add(db, principal, successor, generate_key())
            actions.KEY_REPLACED.record(
                db,
                principal.actor,
                {
                    **_reference(old),
                    "successor_id": str(successor.id),
                    "grace_seconds": grace_seconds,
                },
                old.tenant_id,
            )
            return successor, family_revocation.summarize_family(db, successor), text

    # The methods below are for the operator's commands: flask --app wsgi keys …

    def install_key(self, operator: OperatorPrincipal, text: str, *, name: str) -> bool:
        """Install a key with this text and ALL_SCOPES. Return False if it was installed already.

        Raises ValueError for a malformed or weak key, and for a key that was revoked or expired.
        """
        lookup = lookup_of_operators_key(text)
        with self._db.write(operator) as db:
            Lock.MAKING.hold(db)  # init containers may install the same key at once
            key = db.scalar(select(ApiKey).filter_by(lookup=lookup))
            if key is None:
                _add(db, operator, ApiKey(name=name, scope_bits=to_bits(ALL_SCOPES)), text)
                return True
            ended = key.revoked_at is not None or has_expired(key.expires_at)
            if ended or not hmac.compare_digest(key.digest, digest_of(text)):
                raise ValueError(
                    "Another key has these hex digits, or this key is revoked or expired. Make a"
                    " new one."
                )
            return False

    def all_keys(self, **values: object) -> list[ApiKey]:
        """Return all keys with these column values, oldest first. A value of None means any."""
        with self._db.read() as db:
            return list(db.scalars(with_values(select(ApiKey), **values).order_by(ApiKey.id)))

    def ensure_created(self, principal: ApiKeyPrincipal, tenant_id: UUID) -> None:
        """Raise NotFoundError unless this key, or one that it succeeded, created the tenant."""
        own = select(Tenant.id).filter_by(id=tenant_id, deleted_at=None)
        with self._db.read() as db:
            one_or_not_found(db, own.where(family_revocation.created_tenants(principal.key_id)))

    def family_of(self, key: ApiKey) -> FamilySummary:
        """Return a summary of the family that would be revoked with this key."""
        with self._db.read() as db:
            return family_revocation.summarize_family(db, key)

    def readable_registrations(self, key: ApiKey) -> list[UUID]:
        """Return the ids of live tenants whose registration token the key can have read."""
        with self._db.read() as db:
            return list(db.scalars(family_revocation.readable_registrations(key)))


def _add(db: Session, principal: Maker, key: ApiKey, text: str) -> tuple[ApiKey, str]:
    key.lookup, key.digest = lookup_of(text), digest_of(text)
    db.add(key)
    db.flush()
    actions.KEY_CREATED.record(
        db,
        principal.actor,
        {
            **_reference(key),
            "scopes": sorted(from_bits(key.scope_bits)),
            "may_give": sorted(from_bits(key.may_give_bits)) or None,
            "permission_sets": key.permission_sets,
        },
        key.tenant_id,
    )
    return key, text


def _reference(key: ApiKey) -> KeyReference:
    return {"api_key_id": str(key.id), "name": key.name}


def _expiry_of(db: Session, principal: Maker) -> datetime | None:
    """Return when the principal's key expires. A replacement may have ended it meanwhile."""
    return db.scalar(select(ApiKey.expires_at).filter_by(id=principal.key_id))


def _successor(old: ApiKey, principal: Maker, limit: datetime | None) -> ApiKey:
    expires_at = old.expires_at and now() + min(old.expires_at - old.created_at, _LIFETIME_MAX)
    return ApiKey(
        id=new_id(),
        name=old.name,
        scope_bits=old.scope_bits,
        may_give_bits=old.may_give_bits,
        tenant_id=old.tenant_id,
        permission_sets=old.permission_sets,
        made_by=principal.key_id,  # it got the text, so its revocation must revoke the successor
        expires_at=_earlier(expires_at, limit),
    )


def _earlier(*times: datetime | None) -> datetime | None:
    return min(filter(None, times), default=None)


def _ensure_room(db: Session, principal: Maker, tenant_id: UUID | None, limit: Limit) -> None:
    """Lock the tenant, if there is one, and ensure that it may have another key.

    The lock keeps two concurrent requests from exceeding the limit together. Raises NotFoundError
    for a tenant that the principal can't create keys for, and RateLimitedError when the tenant has
    too many keys.
    """
    if tenant_id is None:
        return
    tenant_of(db, principal, tenant_id, lock=True)
    if principal.delegate_id:  # checked after the lock, because the wait may be long
        delegated = delegated_tenants(principal.delegate_id)
        one_or_not_found(db, delegated.filter_by(id=tenant_id))
    live = select(func.count(ApiKey.id)).where(ApiKey.tenant_id == tenant_id, key_is_live())
    ensure_room(db, live, limit)
