"""Delegation: which keys a key may create, see and revoke.

A key creates, sees and revokes only keys that are not stronger. The scopes of those keys are a
subset of its own. If it is bound to a tenant, they are bound to the same tenant. A key that it
creates does not expire later than itself.

A key with keys:delegate creates, sees and revokes keys with the scopes in its `may_give`. Those
keys are bound to tenants that it or a predecessor created within the last 24 hours. A key creates,
sees, replaces and revokes a key with keys:delegate only if its own scopes include that key's
`may_give`.
"""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Select, select

from app.clock import now
from app.errors import ForbiddenError, ValidationFailedError
from app.identity.family_revocation import created_tenants
from app.identity.principals import Maker, OperatorPrincipal
from app.identity.scopes import MAKES_KEYS, Scope, to_bits
from app.store.database import Session
from app.store.models import ApiKey, Tenant

DELEGATION_HOURS = 24  # how long a key with keys:delegate may create keys for a new tenant


def ensure_may_end(db: Session, principal: Maker, key: ApiKey) -> None:
    """Ensure that the principal may revoke or replace this key.

    Raises ForbiddenError for a key with permission sets that the principal lacks. Raises it also
    when the principal is bound to a tenant and the vendor created the key.
    """
    ensure_no_wider(principal, key.permission_sets)
    own = select(ApiKey.id).filter_by(id=key.made_by, tenant_id=principal.tenant_scope)
    if not principal.is_vendor and db.scalar(own) is None:
        raise ForbiddenError(
            "The vendor made this key; only a key that is bound to no tenant can end it."
        )


def ensure_no_wider(principal: Maker, permission_sets: list[str] | None) -> None:
    mine = principal.permission_sets
    if mine is not None and (permission_sets is None or not mine.issuperset(permission_sets)):
        raise ForbiddenError("This API key covers fewer permission sets than that one.")


def _giveable_scopes(principal: Maker) -> frozenset[Scope]:
    """Return the scopes that keys may get from this principal, as scopes or in their `may_give`.

    A key can't see or revoke keys with other scopes. An unbound key with keys:write may also give
    keys:delegate, because it could create every key that the other key creates.
    """
    if isinstance(principal, OperatorPrincipal):
        return frozenset(Scope)
    if principal.delegate_id:
        return principal.may_give
    return principal.scopes | {Scope.KEYS_DELEGATE} if principal.is_vendor else principal.scopes


def ensure_giveable(
    principal: Maker, scopes: frozenset[Scope], may_give: frozenset[Scope], tenant_id: UUID | None
) -> None:
    """Ensure that the principal may create a key with these scopes.

    Raises ForbiddenError, and ValidationFailedError for a combination that no key can have.
    """
    if missing := (scopes | may_give) - _giveable_scopes(principal):
        raise ForbiddenError(
            f"This API key can't give {', '.join(sorted(missing))} to another key."
        )
    if principal.delegate_id and tenant_id is None:
        raise ForbiddenError(
            "This API key makes only keys that are bound to a tenant: name it in tenant_id."
        )
    if Scope.KEYS_DELEGATE in scopes:
        if Scope.KEYS_WRITE in scopes:
            raise ValidationFailedError(
                scopes="keys:delegate does not go together with keys:write: leave one of them out."
            )
        if tenant_id is not None:
            raise ValidationFailedError(
                tenant_id="A key with keys:delegate can't be bound to a tenant: leave it out."
            )
        if not may_give or may_give & MAKES_KEYS:
            raise ValidationFailedError(
                may_give=(
                    "keys:delegate needs the scopes that it may give here, without keys:write and"
                    " keys:delegate."
                )
            )
    elif may_give:
        raise ValidationFailedError(may_give="Only a key with the scope keys:delegate has this.")


def one_visible(principal: Maker, key_id: UUID) -> Select[ApiKey]:
    """Select a key that the principal can see, even if the key has expired.

    A replaced key may have expired while its family is live.
    """
    return no_stronger(principal).filter_by(id=key_id, revoked_at=None)


def no_stronger(principal: Maker) -> Select[ApiKey]:
    others = to_bits(frozenset(Scope) - _giveable_scopes(principal))
    query = select(ApiKey).where(
        ApiKey.scope_bits.bitwise_or(ApiKey.may_give_bits).bitwise_and(others) == 0
    )
    if principal.delegate_id:
        return query.where(ApiKey.tenant_id.in_(delegated_tenants(principal.delegate_id)))
    return query if principal.is_vendor else query.filter_by(tenant_id=principal.tenant_scope)


def bounded_expiry(expires_at: datetime | None, limit: datetime | None) -> datetime | None:
    if expires_at is None:
        return limit
    if expires_at <= now():
        raise ValidationFailedError(expires_at="This time has passed.")
    if limit is not None and expires_at > limit:
        message = f"At most {limit.isoformat()}, when the key in use expires."
        raise ValidationFailedError(expires_at=message)
    return expires_at


def delegated_tenants(key_id: UUID) -> Select[UUID]:
    """Select the live tenants for which this key may create keys, if it has keys:delegate."""
    since = now() - timedelta(hours=DELEGATION_HOURS)
    return select(Tenant.id).where(
        created_tenants(key_id), Tenant.created_at > since, Tenant.deleted_at.is_(None)
    )
