"""Which keys and onboarding links are revoked with a key: the key's family.

A family is the keys and links that a key created, directly or through those keys. A leaked key may
have been used to create others, so revoking a key revokes its family. A replaced key belongs to its
successor's family. So revoking the successor also revokes the keys and links that the old key
creates in its grace period. The search for a family stops at a revoked key, because its family was
revoked with it.

Tenants that a key or its family created stay when the key is revoked: they are customers, and
nobody can use them without another key.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, false, func, or_, select, text, true, update
from sqlalchemy.orm import Session

from app.audit.details import RevokedFamily
from app.clock import now
from app.errors import NotFoundError
from app.identity.principals import Maker, has_expired, key_is_live
from app.identity.scopes import Scope, from_bits
from app.store.database import Lock
from app.store.models import (
    ApiKey,
    DisabledBecause,
    EndpointStatus,
    OnboardingLink,
    Tenant,
    WebhookEndpoint,
)
from app.store.models.webhook import locked_endpoints

_SHOWN = 20  # maximum of keys in a FamilySummary
_NAMED = 100  # maximum of key ids, and of link ids, in an audit event
_BLIND: Any = {"synchronize_session": False}


def family(root: ColumnElement[bool]) -> Select[UUID]:
    """Select the ids of the keys with this condition, and of the keys in their families.

    A key may be in its own family, because a key can replace itself. A revoked key has no family.
    """
    unrevoked = ApiKey.revoked_at.is_(None)
    return _reachable(root, unrevoked, (ApiKey.made_by, "id"), (ApiKey.replaced_by, "id"))


def _reachable(
    root: ColumnElement[bool], condition: ColumnElement[bool], *steps: tuple[Any, str]
) -> Select[UUID]:
    """Select the ids of the root keys, and of all keys that a chain of steps reaches from them.

    A step `(column, name)` leads from a key to the keys whose `column` equals its column `name`.
    `condition`: holds for all of these keys.
    """
    columns = ApiKey.id, ApiKey.made_by, ApiKey.replaced_by
    keys = select(*columns).where(condition)
    reached = keys.where(root).cte(recursive=True)
    step = or_(*[column == reached.c[name] for column, name in steps])
    return select(reached.union(keys.join(reached, step)).c.id)


def _links_of(keys: Select[UUID]) -> ColumnElement[bool]:
    """Return the condition for unrevoked links that these keys created.

    It includes expired links, because their registration tokens are valid until the link is
    revoked.
    """
    return and_(OnboardingLink.made_by.in_(keys), OnboardingLink.revoked_at.is_(None))


class FamilySummary(NamedTuple):
    """The numbers of live keys and links that are revoked with a key, and some of these keys.

    `registrations`: the number of live tenants whose registration token the key can have read.
    Those tokens stay valid. `endpoints`: the number of webhook endpoints that are disabled.
    """

    keys: int
    links: int
    some: list[ApiKey]
    registrations: int
    endpoints: int


def _search_by_index(db: Session) -> None:
    """Make PostgreSQL search by index in this transaction.

    After thousands of keys were added, PostgreSQL's statistics are out of date for a while. It
    would then read the whole table once for each of these keys.
    """
    db.execute(text("SET LOCAL enable_seqscan = off"))


def _count(db: Session, query: Select[Any]) -> int:
    return db.scalars(query.with_only_columns(func.count())).one()


def summarize_family(db: Session, key: ApiKey) -> FamilySummary:
    _search_by_index(db)
    members = family(ApiKey.id == key.id)
    keys = select(ApiKey).where(ApiKey.id.in_(members), ApiKey.id != key.id, key_is_live())
    links = select(OnboardingLink).where(_links_of(members), OnboardingLink.expires_at > now())
    return FamilySummary(
        keys=_count(db, keys),
        links=_count(db, links),
        some=list(db.scalars(keys.order_by(ApiKey.id).limit(_SHOWN))),
        registrations=_count(db, readable_registrations(key)),
        endpoints=_count(db, select(WebhookEndpoint.id).where(_enabled(_chosen_by(members)))),
    )


def readable_registrations(key: ApiKey) -> Select[UUID]:
    """Select the live tenants whose registration token the key or its family can have read.

    The token is part of a tenant's onboarding kit.
    """
    live = select(Tenant.id).filter_by(deleted_at=None)
    if Scope.CONNECTIONS_READ in from_bits(key.scope_bits):
        return live if key.tenant_id is None else live.filter_by(id=key.tenant_id)
    if Scope.CONNECTIONS_READ in from_bits(key.may_give_bits):
        return live.where(created_tenants(key.id))
    return live.where(false())


def created_tenants(key_id: UUID) -> ColumnElement[bool]:
    """Return the condition for tenants that this key or a predecessor created.

    Revoked predecessors are included.
    """
    makers = _reachable(ApiKey.id == key_id, true(), (ApiKey.replaced_by, "id"))
    return Tenant.made_by.in_(makers)


class Making(NamedTuple):
    """The writer of a transaction that creates a key or a link."""

    writer: Maker

    def reauthorize(self, db: Session) -> None:
        Lock.MAKING.share(db)
        self.writer.reauthorize(db)


class Ending(NamedTuple):
    """The writer of a transaction that revokes or replaces keys, links or a tenant.

    The transaction waits for requests that write with what it ends, and locks nothing else. So a
    principal can't delay requests of a tenant whose keys and links it can't see.
    """

    writer: Maker
    lock_ids: Select[UUID]  # locks of what is ended; no rows if it does not exist
    # Selects the key that is revoked or replaced, if it is unbound
    unbound: Select[UUID] | None = None

    def reauthorize(self, db: Session) -> None:
        """Lock the keys and links, and call the writer's `reauthorize`.

        Raises NotFoundError when there is nothing to lock, and the errors of `reauthorize`.
        """
        _search_by_index(db)
        if self.unbound is not None:
            # All keys of a bound key's family share the tenant's lock, which keeps the family from
            # growing. An unbound key's family may have keys of all tenants. So while an unbound key
            # is revoked or replaced, no other key may be created or replaced. Otherwise two keys
            # that replace each other could become each other's successors.
            if db.scalars(self.unbound).first() is None:
                Lock.MAKING.share(db)
            else:
                Lock.MAKING.hold(db)
        lock_ids = db.scalars(self.lock_ids).all()
        if lock_ids:
            Lock.PRINCIPAL.hold(db, *filter(None, [*lock_ids, self.writer.lock_id]))
        self.writer.reauthorize(db)
        if not lock_ids:
            raise NotFoundError


def ending(writer: Maker, key: Select[ApiKey]) -> Ending:
    """Return the writer of a transaction that revokes this key and its family."""
    return _ending(writer, key, family(ApiKey.id.in_(key.with_only_columns(ApiKey.id))))


def replacing(writer: Maker, key: Select[ApiKey]) -> Ending:
    """Return the writer of a transaction that replaces this key.

    It does not wait for the rest of the key's family, which `inherit` does not change.
    """
    old = key.with_only_columns(ApiKey.id).scalar_subquery()
    children = and_(ApiKey.made_by == old, ApiKey.revoked_at.is_(None))
    return _ending(writer, key, select(ApiKey.id).where(or_(ApiKey.id == old, children)))


def _ending(writer: Maker, key: Select[ApiKey], keys: Select[UUID]) -> Ending:
    """Return a writer that locks these keys and the links that they created."""
    of_keys = select(func.coalesce(ApiKey.tenant_id, ApiKey.id).label("id")).where(
        ApiKey.id.in_(keys)
    )
    both = of_keys.union(select(OnboardingLink.tenant_id).where(_links_of(keys))).subquery()
    unbound = key.where(ApiKey.tenant_id.is_(None)).with_only_columns(ApiKey.id)
    return Ending(writer, select(both.c.id), unbound)


def revoke_family(db: Session, key: ApiKey) -> RevokedFamily:
    """Revoke the key and its family, in a transaction whose writer is an `Ending`.

    Return the details for the audit event.
    """
    revoked_at, members = now(), family(ApiKey.id == key.id)
    # The links are revoked first, because the query finds only links of unrevoked keys.
    revoked_links = update(OnboardingLink).where(_links_of(members)).values(revoked_at=revoked_at)
    links = db.scalars(revoked_links.returning(OnboardingLink.id), execution_options=_BLIND).all()
    endpoints = _end_endpoints(db, members, revoked_at)
    keys = update(ApiKey).where(ApiKey.id.in_(members)).values(revoked_at=revoked_at)
    revoked = db.execute(keys.returning(ApiKey.id, ApiKey.expires_at), execution_options=_BLIND)
    live = [row.id for row in revoked if row.id != key.id and not has_expired(row.expires_at)]
    return {
        "keys_revoked": len(live),
        "links_revoked": len(links),
        "registrations": _count(db, readable_registrations(key)),
        "api_key_ids": [*map(str, sorted(live)[:_NAMED])],
        "onboarding_link_ids": [*map(str, sorted(links)[:_NAMED])],
        "webhook_endpoints_disabled": len(endpoints),
        "webhook_endpoint_ids": [*map(str, sorted(endpoints)[:_NAMED])],
    }


def _chosen_by(keys: Select[UUID]) -> ColumnElement[bool]:
    """Return the condition for endpoints whose URL or secret these keys set."""
    return or_(WebhookEndpoint.url_by.in_(keys), WebhookEndpoint.secret_by.in_(keys))


def _enabled(chosen: ColumnElement[bool]) -> ColumnElement[bool]:
    return and_(chosen, WebhookEndpoint.status == EndpointStatus.ENABLED)


def _end_endpoints(db: Session, members: Select[UUID], revoked_at: datetime) -> Sequence[UUID]:
    """Disable the endpoints whose URL or secret these keys set. Drop old secrets that they set.

    Return the ids of the disabled endpoints.
    """
    chosen, by_old_secret = _chosen_by(members), WebhookEndpoint.old_secret_by.in_(members)
    # Disabled ones too, because another request may be enabling one
    db.execute(locked_endpoints(or_(chosen, by_old_secret)))
    disabled = (
        update(WebhookEndpoint)
        .where(_enabled(chosen))
        .values(
            status=EndpointStatus.DISABLED,
            disabled_at=revoked_at,
            disabled_because=DisabledBecause.REVOKED,
            due_at=revoked_at,
        )
    )
    ids = db.scalars(disabled.returning(WebhookEndpoint.id), execution_options=_BLIND).all()
    dropped = update(WebhookEndpoint).where(by_old_secret)
    dropped = dropped.values(old_secret=None, old_secret_ends_at=None)
    db.execute(dropped, execution_options=_BLIND)
    return ids


def was_revoked(db: Session, key_id: UUID | None) -> bool:
    query = select(ApiKey.id).where(ApiKey.id == key_id, ApiKey.revoked_at.is_not(None))
    return db.scalar(query) is not None


def inherit(db: Session, old: UUID, successor: UUID, *, by: UUID | None) -> None:
    """Record the successor as the creator of the keys and links that the old key created.

    `by`: the key that requests the replacement. Its own creator stays the same, and so do the
    creators of keys whose families contain it. Otherwise a key that replaces its creator would
    become both the creator and a child of the successor. Revoking the old key would then reach
    neither of them.
    """
    origins = _reachable(
        ApiKey.id == by, true(), (ApiKey.id, "made_by"), (ApiKey.id, "replaced_by")
    )
    keys = update(ApiKey).where(ApiKey.id != successor, ApiKey.id.not_in(origins))
    for children in (keys, update(OnboardingLink)):
        unrevoked = children.filter_by(made_by=old, revoked_at=None)
        db.execute(unrevoked.values(made_by=successor), execution_options=_BLIND)
    columns = "url_by", "secret_by", "old_secret_by"
    db.execute(locked_endpoints(or_(*[getattr(WebhookEndpoint, name) == old for name in columns])))
    for column in columns:
        endpoints = update(WebhookEndpoint).filter_by(**{column: old})
        db.execute(endpoints.values({column: successor}), execution_options=_BLIND)
