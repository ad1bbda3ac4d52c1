"""Families: the keys and onboarding links that a key made, and those that these keys made in turn.

A key that leaked may have made others, so revoking a key revokes its family. A replaced key belongs
to its successor's family: revoking the successor also revokes the keys and links that the old key
makes in its grace period. The search stops at a revoked key, whose family was revoked with it.

Tenants that a key made are not revoked with it. The tenants of a key with keys:delegate are those
that it or a predecessor made. No other key of its family can make one, because it makes bound keys
only.
"""

from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    ScalarSelect,
    Select,
    and_,
    false,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.orm import Session, aliased

from app.audit.details import RevokedFamily
from app.clock import now
from app.errors import NotFoundError
from app.identity.principals import Maker, live_at
from app.identity.scopes import Scope, from_bits
from app.store import locks
from app.store.locks import Lock
from app.store.models import ApiKey, OnboardingLink, Tenant

DELEGATION_HOURS = (
    24  # after the creation of a tenant, a key with keys:delegate may make keys for it
)
_SHOWN = 20
_NAMED = 100  # upper bound of the ids in an audit event
_BLIND: Any = {"synchronize_session": False}


def family(roots: Select[UUID]) -> CTE:
    """Return the ids of these keys and of their families.

    A key may be in its own family, because a key can replace itself.
    """
    found = roots.where(ApiKey.revoked_at.is_(None)).cte("family", recursive=True)
    made = aliased(ApiKey)
    next_ones = select(made.id).join(
        found, or_(made.made_by == found.c.id, made.replaced_by == found.c.id)
    )
    return found.union(next_ones.where(made.revoked_at.is_(None)))


def _links_of(keys: CTE) -> ColumnElement[bool]:
    """Return the condition for links that these keys made.

    Expired links count: their registration tokens are valid until the link is revoked.
    """
    return and_(OnboardingLink.made_by.in_(select(keys.c.id)), OnboardingLink.revoked_at.is_(None))


class FamilySummary(NamedTuple):
    """How many live keys and links are revoked with a key, and the first of the keys.

    `registrations`: the number of live tenants whose registration token the key could read. These
    tokens stay valid.
    """

    keys: int
    links: int
    some: list[ApiKey]
    registrations: int


def _search_by_index(db: Session) -> None:
    """Make PostgreSQL search by index in this transaction.

    Until its statistics are renewed, it would read the whole table for each of thousands of new
    keys.
    """
    if db.get_bind().dialect.name == "postgresql":
        db.execute(text("SET LOCAL enable_seqscan = off"))


def summarize_family(db: Session, key: ApiKey) -> FamilySummary:
    _search_by_index(db)
    key_id = key.id
    at, found = now(), _family_of(key_id)
    keys = select(ApiKey).where(ApiKey.id.in_(select(found.c.id)), ApiKey.id != key_id, live_at(at))
    links = select(func.count()).where(_links_of(found), OnboardingLink.expires_at > at)
    number = db.scalar(keys.with_only_columns(func.count())) or 0
    first = list(db.scalars(keys.order_by(ApiKey.id).limit(_SHOWN)))
    return FamilySummary(number, db.scalar(links) or 0, first, _count_registrations(db, key))


def readable_registrations(key: ApiKey) -> Select[UUID]:
    """Select the live tenants whose registration token the key or its family could read.

    The token is in a tenant's kit.
    """
    live = select(Tenant.id).where(Tenant.deleted_at.is_(None)).order_by(Tenant.id)
    if Scope.CONNECTIONS_READ in from_bits(key.scope_bits):
        return live if key.tenant_id is None else live.where(Tenant.id == key.tenant_id)
    return live.where(
        _tenants_of(key.id) if Scope.CONNECTIONS_READ in from_bits(key.may_give_bits) else false()
    )


def delegated_tenants(key_id: UUID) -> Select[UUID]:
    """Select the live tenants for which this key, if it has keys:delegate, makes keys."""
    since = now() - timedelta(hours=DELEGATION_HOURS)
    return select(Tenant.id).where(
        _tenants_of(key_id), Tenant.created_at > since, Tenant.deleted_at.is_(None)
    )


def _tenants_of(key_id: UUID) -> ColumnElement[bool]:
    """Return the condition for tenants that this key or a predecessor made.

    Revoked predecessors count.
    """
    makers = select(ApiKey.id).where(ApiKey.id == key_id).cte("makers", recursive=True)
    makers = makers.union(select(ApiKey.id).join(makers, ApiKey.replaced_by == makers.c.id))
    return Tenant.made_by.in_(select(makers.c.id))


def _count_registrations(db: Session, key: ApiKey) -> int:
    return (
        db.scalar(
            select(func.count()).select_from(readable_registrations(key).order_by(None).subquery())
        )
        or 0
    )


class Making(NamedTuple):
    """A writer whose transaction makes a key or a link."""

    writer: Maker

    def reauthorize(self, db: Session) -> None:
        locks.share(db, Lock.MAKING)
        self.writer.reauthorize(db)


class Ending(NamedTuple):
    """A writer whose transaction ends keys or links, and waits for those who write with them.

    Only these keys and links are locked. A caller can't hold up a tenant whose keys and links it
    can't see.
    """

    writer: Maker
    lock_ids: Select[UUID]  # lock ids of the keys and links that end; no rows: nothing to end
    unbound: Select[UUID] | None = (
        None  # the keys bound to no tenant among those that are revoked or replaced
    )

    def reauthorize(self, db: Session) -> None:
        """Lock the keys and links that end, and check the writer again.

        Raises NotFoundError when there are none, and any error of the writer's `reauthorize`.
        """
        _search_by_index(db)
        if self.unbound is not None:
            # A bound key's family acts for its tenant alone, and the tenant's lock keeps it from
            # growing. An unbound key's family may reach all tenants. Nobody may make or replace a
            # key meanwhile: two keys that replace each other would form a ring.
            (locks.share if db.scalars(self.unbound).first() is None else locks.hold)(
                db, Lock.MAKING
            )
        lock_ids = db.scalars(self.lock_ids).all()
        if lock_ids:
            own = () if self.writer.lock_id is None else (self.writer.lock_id,)
            locks.hold(db, Lock.CALLER, *lock_ids, *own)
        self.writer.reauthorize(db)
        if not lock_ids:
            raise NotFoundError


def ending(writer: Maker, key: Select[ApiKey]) -> Ending:
    """Return the writer that revokes this key and its family."""
    return Ending(writer, _lock_ids(family(key.with_only_columns(ApiKey.id))), _unbound(key))


def replacing(writer: Maker, key: Select[ApiKey]) -> Ending:
    """Return the writer that replaces this key, and hands its family to the successor."""
    old = key.with_only_columns(ApiKey.id).scalar_subquery()
    changed = select(ApiKey.id).where(or_(ApiKey.id == old, made_by(old))).cte("changed")
    return Ending(writer, _lock_ids(changed), _unbound(key))


def _unbound(key: Select[ApiKey]) -> Select[UUID]:
    return key.where(ApiKey.tenant_id.is_(None)).with_only_columns(ApiKey.id)


def _lock_ids(keys: CTE) -> Select[UUID]:
    """Return the lock ids of these keys, and of the links that they made."""
    of_keys = select(func.coalesce(ApiKey.tenant_id, ApiKey.id).label("id")).where(
        ApiKey.id.in_(select(keys.c.id))
    )
    both = of_keys.union(select(OnboardingLink.tenant_id).where(_links_of(keys))).subquery()
    return select(both.c.id)


def _family_of(key_id: UUID) -> CTE:
    return family(select(ApiKey.id).where(ApiKey.id == key_id))


def revoke_family(db: Session, key: ApiKey) -> RevokedFamily:
    """Revoke the key and its family, in a transaction of `Ending`.

    Returns details for the audit event.
    """
    key_id, at, found = key.id, now(), _family_of(key.id)
    # The links go first: they are selected by unrevoked keys that made them.
    revoked_links = update(OnboardingLink).where(_links_of(found)).values(revoked_at=at)
    links = db.scalars(revoked_links.returning(OnboardingLink.id), execution_options=_BLIND).all()
    keys = update(ApiKey).where(ApiKey.id.in_(select(found.c.id))).values(revoked_at=at)
    revoked = db.execute(keys.returning(ApiKey.id, ApiKey.expires_at), execution_options=_BLIND)
    live = [
        one
        for one, expires_at in revoked
        if one != key_id and (expires_at is None or expires_at > at)
    ]
    return {
        "keys_revoked": len(live),
        "links_revoked": len(links),
        "registrations": _count_registrations(db, key),
        "api_key_ids": [str(one) for one in sorted(live)[:_NAMED]],
        "onboarding_link_ids": [str(one) for one in sorted(links)[:_NAMED]],
    }


def made_by(key_id: UUID | ScalarSelect[UUID]) -> ColumnElement[bool]:
    """Return the condition for unrevoked keys that this key made."""
    return and_(ApiKey.made_by == key_id, ApiKey.revoked_at.is_(None))


def inherit(db: Session, old: UUID, successor: UUID, *, by: UUID | None) -> None:
    """Make the successor the maker of the old key's keys and links.

    The key that requests the replacement stays with the old key, and so do its ancestors. Otherwise
    a child that replaces its maker would become both maker and child of the successor. Revoking the
    old key would not reach that ring.
    """
    keys = update(ApiKey).where(
        made_by(old), ApiKey.id != successor, ApiKey.id.not_in(select(_origins(by).c.id))
    )
    db.execute(keys.values(made_by=successor), execution_options=_BLIND)
    links = update(OnboardingLink).where(
        OnboardingLink.made_by == old, OnboardingLink.revoked_at.is_(None)
    )
    db.execute(links.values(made_by=successor), execution_options=_BLIND)


def _origins(key_id: UUID | None) -> CTE:
    """Return the ids of this key and of the keys in whose families it is."""
    columns = ApiKey.id, ApiKey.made_by, ApiKey.replaced_by
    found = select(*columns).where(ApiKey.id == key_id).cte("origins", recursive=True)
    origin = aliased(ApiKey)
    next_ones = select(origin.id, origin.made_by, origin.replaced_by)
    return found.union(
        next_ones.join(found, or_(origin.id == found.c.made_by, origin.id == found.c.replaced_by))
    )
