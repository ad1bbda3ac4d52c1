"""API keys: authenticate, create, list, replace, revoke.

A key's text is `dpk_<16 hex digits>_<43 characters>`. The digits find the row; the rest is 256
random bits.

A key makes, sees and revokes only keys that are no stronger. Their scopes are a subset of its own,
and they are bound to its tenant if it is bound. A key that it makes expires no later than itself.
Revoking a key revokes its family (app/identity/families.py). Replacing one hands its family to the
successor.

A key with keys:delegate makes, sees and revokes keys with the scopes in its `may_give`. They are
bound to tenants that its family made within the last 24 hours. A key makes, sees, replaces and
revokes a key with keys:delegate only if its own scopes include that key's `may_give`.
"""

import hmac
import secrets
from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Select, func, select

from app.audit import Actor, actions
from app.audit.details import KeyReference
from app.clock import now
from app.errors import ConflictError, ForbiddenError, ValidationFailedError
from app.identity import ensure_room, families, one_or_not_found, tenant_of
from app.identity.families import FamilySummary, Making
from app.identity.key_uses import KeyUses
from app.identity.principals import (
    KEY,
    ApiKeyPrincipal,
    Maker,
    OperatorPrincipal,
    authenticated,
    caller_at_counter,
    digest_of,
    is_live,
    live_at,
    lookup_of,
)
from app.identity.scopes import ALL_SCOPES, MAKES_KEYS, Scope, from_bits, to_bits
from app.ids import new_id
from app.settings.checks import DAY, WEEK
from app.settings.declarations import Limit
from app.store.database import Database, Session, until_committed
from app.store.models import ApiKey, Tenant
from app.store.pages import Page, page

GRACE_SECONDS = DAY  # how long a replaced key stays valid by default
GRACE_SECONDS_MAX = WEEK


def _lookup_of_strong(text: str) -> str:
    """Return the lookup digits of a full-strength key.

    Raises ValueError for a malformed key, and for one that is not random enough.
    """
    found = KEY.fullmatch(text)
    if found is None:
        raise ValueError(
            "A key is dpk_, 16 lowercase hex digits, _, and 43 characters of A-Z a-z 0-9 _ -."
        )
    if len(set(found[2])) < 16:  # random keys have fewer different characters about once in 10^11
        raise ValueError(
            "This key's secret part is not random; make one with: flask --app wsgi keys generate"
        )
    return found[1]


def generate_key() -> str:
    """Return a new key's text: 8 random bytes for the lookup, and 32 for the secret part."""
    return f"dpk_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"


class ApiKeys:
    """Creates, lists, replaces and revokes API keys.

    `limit`: of the live keys of one tenant. `sets`: the names of all permission sets.
    """

    def __init__(self, db: Database, uses: KeyUses, *, limit: Limit, sets: Collection[str]) -> None:
        self._db = db
        self._uses = uses
        self._limit = limit
        self._sets = sets

    def authenticate(
        self, text: str, request_id: str | None = None, client_address: str | None = None
    ) -> ApiKeyPrincipal:
        """Return the caller that a key's text belongs to.

        Raises UnauthenticatedError, with the same message for all reasons.
        """
        lookup = lookup_of(text)
        with self._db.read() as db:
            _, caller = caller_at_counter(db, lookup)
        caller = authenticated(caller, digest_of(text))
        self._uses.note(lookup)
        return caller.for_request(request_id, client_address)

    def create_key(
        self,
        caller: Maker,
        *,
        name: str,
        scopes: frozenset[Scope],
        may_give: frozenset[Scope] = frozenset(),
        tenant_id: UUID | None = None,
        expires_at: datetime | None = None,
        permission_sets: list[str] | None = None,
    ) -> tuple[ApiKey, str]:
        """Create a key, and return it with its text, which is shown this once.

        A bound that is not given is the caller's own.

        Raises ForbiddenError for a scope or a permission set that the caller can't give. Raises
        NotFoundError for a tenant that the caller can't see or make keys for. Raises
        ValidationFailedError for an unknown permission set, for fields that don't go together, and
        for an expiry that is past or later than the caller's own. Raises RateLimitedError when the
        tenant has TENANT_KEYS live keys.
        """
        _ensure_giveable(caller, scopes, may_give, tenant_id)
        if permission_sets is None and caller.permission_sets is not None:
            permission_sets = sorted(caller.permission_sets)
        if not set(permission_sets or ()) <= set(self._sets):
            message = f"Must be some of: {', '.join(sorted(self._sets))}."
            raise ValidationFailedError({"permission_sets": [message]})
        _ensure_no_wider(caller, permission_sets)
        tenant_id = tenant_id or caller.tenant_scope
        key = ApiKey(
            name=name,
            scope_bits=to_bits(scopes),
            may_give_bits=to_bits(may_give),
            tenant_id=tenant_id,
            expires_at=_bounded(expires_at, caller.expires_at),
            permission_sets=permission_sets,
            made_by=caller.key_id,
        )
        with self._db.write(Making(caller)) as db:
            _ensure_room(db, caller, tenant_id, self._limit)
            return _add(db, caller.actor, key, generate_key())

    def list_keys(self, caller: Maker, *, limit: int, after: UUID | None) -> Page[ApiKey]:
        with self._db.read() as db:
            return page(db, _visible(caller), ApiKey.id, limit=limit, after=after)

    def get_key(self, caller: Maker, key_id: UUID) -> tuple[ApiKey, FamilySummary]:
        """Return the key, and a summary of the family that is revoked with it.

        An expired key is returned as well, because its family may be live. Raises NotFoundError for
        a key that is absent, revoked, or stronger than the caller's.
        """
        with self._db.read() as db:
            key = one_or_not_found(db, _one_visible(caller, key_id))
            return key, families.summarize_family(db, key)

    @until_committed
    def revoke_key(self, caller: Maker, key_id: UUID) -> None:
        """Revoke a key and its family.

        From the commit on, requests with any of these keys and links are refused. Raises
        NotFoundError, and ForbiddenError for a key that the caller may see but not revoke.
        """
        query = _one_visible(caller, key_id)
        with self._db.read() as db:  # a request for an absent key must not wait for writers' locks
            _ensure_may_end(db, caller, one_or_not_found(db, query))
        with self._db.write(families.ending(caller, query)) as db:
            key = one_or_not_found(db, query)
            _ensure_may_end(db, caller, key)
            actions.KEY_REVOKED.record(
                db,
                caller.actor,
                {**_reference(key), **families.revoke_family(db, key)},
                tenant_id=key.tenant_id,
            )

    def replace_key(
        self, caller: Maker, key_id: UUID, *, grace_seconds: int = GRACE_SECONDS
    ) -> tuple[ApiKey, FamilySummary, str]:
        """Replace a key, and return its successor, the family, and the successor's text.

        The text is shown this once. The successor has the old key's name, scopes and bounds, and
        inherits its family. The old key expires after the grace period. The successor gets the
        lifetime that the old key was made with, but expires no later than the caller.

        Raises as revoke_key does, ConflictError for a key that was replaced, and RateLimitedError
        when the tenant has twice TENANT_KEYS live keys.
        """
        query = _one_visible(caller, key_id).where(live_at(now()))
        with self._db.write(families.replacing(caller, query)) as db:
            old = one_or_not_found(db, query)
            _ensure_may_end(db, caller, old)
            if old.replaced_by is not None:
                raise ConflictError("This key was replaced already; replace its successor.")
            successor = _successor(old, caller)
            families.inherit(db, old.id, successor.id, by=caller.key_id)
            # A tenant that has all its keys can replace them
            twice = self._limit._replace(most=2 * self._limit.amount)
            _ensure_room(db, caller, old.tenant_id, twice)
            ends = now() + timedelta(seconds=grace_seconds)
            old.replaced_by, old.expires_at = successor.id, _earlier(old.expires_at, ends)
            _, text = _add(db, caller.actor, successor, generate_key())
            actions.KEY_REPLACED.record(
                db,
                caller.actor,
                {
                    **_reference(old),
                    "successor_id": str(successor.id),
                    "grace_seconds": grace_seconds,
                },
                tenant_id=old.tenant_id,
            )
            return successor, families.summarize_family(db, successor), text

    # For the operator: flask --app wsgi keys …

    def install_key(self, operator: OperatorPrincipal, text: str, *, name: str) -> bool:
        """Install a given key with ALL_SCOPES, and return False if it is installed already.

        A revoked key stays revoked. Raises ValueError for a weak key.
        """
        lookup = _lookup_of_strong(text)
        with self._db.write(operator) as db:
            key = db.scalars(select(ApiKey).where(ApiKey.lookup == lookup)).one_or_none()
            if key is None:
                _add(db, operator.actor, ApiKey(name=name, scope_bits=to_bits(ALL_SCOPES)), text)
                return True
            if not is_live(key, now()) or not hmac.compare_digest(key.digest, digest_of(text)):
                raise ValueError(
                    "Another key has these hex digits, or this key is revoked or expired. Make a"
                    " new one."
                )
            return False

    def all_keys(self) -> list[ApiKey]:
        with self._db.read() as db:
            return list(db.scalars(select(ApiKey).order_by(ApiKey.id)))

    def family_of(self, key: ApiKey) -> FamilySummary:
        """Return a summary of the family that is revoked with this key."""
        with self._db.read() as db:
            return families.summarize_family(db, key)

    def readable_registrations(self, key: ApiKey) -> list[UUID]:
        """Return the live tenants whose registration token the key could read."""
        with self._db.read() as db:
            return list(db.scalars(families.readable_registrations(key)))


def _add(db: Session, actor: Actor, key: ApiKey, text: str) -> tuple[ApiKey, str]:
    key.lookup, key.digest = text[4:20], digest_of(text)
    db.add(key)
    db.flush()
    actions.KEY_CREATED.record(
        db,
        actor,
        {
            **_reference(key),
            "scopes": sorted(from_bits(key.scope_bits)),
            "may_give": sorted(from_bits(key.may_give_bits)) or None,
            "permission_sets": key.permission_sets,
        },
        tenant_id=key.tenant_id,
    )
    return key, text


def _reference(key: ApiKey) -> KeyReference:
    return {"api_key_id": str(key.id), "name": key.name}


def _successor(old: ApiKey, caller: Maker) -> ApiKey:
    lifetime = None if old.expires_at is None else old.expires_at - old.created_at
    return ApiKey(
        id=new_id(),
        name=old.name,
        scope_bits=old.scope_bits,
        may_give_bits=old.may_give_bits,
        tenant_id=old.tenant_id,
        permission_sets=old.permission_sets,
        made_by=caller.key_id,  # the caller got its text: revoking the caller revokes it too
        expires_at=_earlier(None if lifetime is None else now() + lifetime, caller.expires_at),
    )


def _earlier(one_time: datetime | None, other: datetime | None) -> datetime | None:
    return min((time for time in (one_time, other) if time is not None), default=None)


def _ensure_room(db: Session, caller: Maker, tenant_id: UUID | None, limit: Limit) -> None:
    """Lock the tenant, if there is one, and ensure that it may have another key.

    The lock keeps two requests from taking the last place. Raises NotFoundError for a tenant that
    the caller makes no keys for, and RateLimitedError for one that has too many keys.
    """
    if tenant_id is None:
        return
    tenant_of(db, caller, tenant_id, lock=True)
    if caller.delegate_id:  # checked after the wait for the lock, which may be long
        delegated = families.delegated_tenants(caller.delegate_id)
        one_or_not_found(db, delegated.where(Tenant.id == tenant_id))
    live = (
        select(func.count())
        .select_from(ApiKey)
        .where(ApiKey.tenant_id == tenant_id, live_at(now()))
    )
    ensure_room(db, live, limit)


def _ensure_may_end(db: Session, caller: Maker, key: ApiKey) -> None:
    """Ensure that the caller may revoke or replace this key.

    Raises ForbiddenError for a key of more permission sets. For a bound caller it also raises it
    for a key that the vendor made.
    """
    _ensure_no_wider(caller, key.permission_sets)
    own = select(ApiKey.id).where(ApiKey.id == key.made_by, ApiKey.tenant_id == caller.tenant_scope)
    if not caller.is_vendor and db.scalar(own) is None:
        raise ForbiddenError(
            "The vendor made this key; only a key that is bound to no tenant can end it."
        )


def _ensure_no_wider(caller: Maker, permission_sets: list[str] | None) -> None:
    mine = caller.permission_sets
    if mine is not None and (permission_sets is None or not mine.issuperset(permission_sets)):
        raise ForbiddenError("This API key covers fewer permission sets than that one.")


def _ensure_giveable(
    caller: Maker, scopes: frozenset[Scope], may_give: frozenset[Scope], tenant_id: UUID | None
) -> None:
    """Ensure that the caller may give these scopes.

    Raises ForbiddenError, and ValidationFailedError for a combination that no key can have.
    """
    if missing := (scopes | may_give) - caller.giveable_scopes:
        raise ForbiddenError(
            f"This API key can't give {', '.join(sorted(missing))} to another key."
        )
    if caller.delegate_id and tenant_id is None:
        raise ForbiddenError(
            "This API key makes only keys that are bound to a tenant: name it in tenant_id."
        )
    problems = {}
    if Scope.KEYS_DELEGATE not in scopes:
        problems = (
            {"may_give": "Only a key with the scope keys:delegate has this."} if may_give else {}
        )
    elif Scope.KEYS_WRITE in scopes:
        problems = {
            "scopes": "keys:delegate does not go together with keys:write: leave one of them out."
        }
    elif tenant_id is not None:
        problems = {
            "tenant_id": "A key with keys:delegate can't be bound to a tenant: leave it out."
        }
    elif not may_give or may_give & MAKES_KEYS:
        problems = {
            "may_give": (
                "keys:delegate needs the scopes that it may give here, without keys:write and"
                " keys:delegate."
            )
        }
    if problems:
        raise ValidationFailedError({field: [message] for field, message in problems.items()})


def _visible(caller: Maker) -> Select[ApiKey]:
    """Select the live keys that the caller could make, with any permission sets."""
    return _no_stronger(caller).where(live_at(now()))


def _one_visible(caller: Maker, key_id: UUID) -> Select[ApiKey]:
    """Select a key as `_visible` does, but also an expired one.

    A replaced key expires before its family.
    """
    return _no_stronger(caller).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))


def _no_stronger(caller: Maker) -> Select[ApiKey]:
    others = to_bits(frozenset(Scope) - caller.giveable_scopes)
    query = select(ApiKey).where(
        ApiKey.scope_bits.bitwise_or(ApiKey.may_give_bits).bitwise_and(others) == 0
    )
    if caller.delegate_id:
        return query.where(ApiKey.tenant_id.in_(families.delegated_tenants(caller.delegate_id)))
    return query if caller.is_vendor else query.where(ApiKey.tenant_id == caller.tenant_scope)


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
