"""Families: the keys and onboarding links that a key made, and what those keys made in turn.

A key that leaked may have made others, so revoking a key revokes its family. A replaced key belongs to its successor's
family: revoking the successor also revokes what the old key makes in its grace period. The search stops at a revoked
key, whose family was revoked with it.
"""

from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, ScalarSelect, Select, and_, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from app.access.callers import Caller, live_at
from app.clock import now
from app.store.database import Writer
from app.store.models import ApiKey, OnboardingLink

_SHOWN = 20
_NAMED = 100  # ids in an audit event
_BLIND: Any = {"synchronize_session": False}


def family(roots: Select[UUID]) -> CTE:
    """The ids of these keys and of their families. A key may be in its own family, as a key can replace itself."""
    found = roots.where(ApiKey.revoked_at.is_(None)).cte("family", recursive=True)
    made = aliased(ApiKey)
    next_ones = select(made.id).join(found, or_(made.made_by == found.c.id, made.replaced_by == found.c.id))
    return found.union(next_ones.where(made.revoked_at.is_(None)))


def family_ids(keys: Select[ApiKey]) -> Select[UUID]:
    return select(family(keys.with_only_columns(ApiKey.id)).c.id)


def _links_of(keys: CTE) -> ColumnElement[bool]:
    """Links that these keys made, expired ones too: their registration tokens are valid until the link is revoked."""
    return and_(OnboardingLink.made_by.in_(select(keys.c.id)), OnboardingLink.revoked_at.is_(None))


class FamilySummary(NamedTuple):
    """What revoking a key also revokes: how many live keys and links, and the first of the keys."""

    keys: int
    links: int
    some: list[ApiKey]


def summarize_family(db: Session, key_id: UUID) -> FamilySummary:
    at, found = now(), _family_of(key_id)
    keys = select(ApiKey).where(ApiKey.id.in_(select(found.c.id)), ApiKey.id != key_id, live_at(at))
    links = select(func.count()).where(_links_of(found), OnboardingLink.expires_at > at)
    number = db.scalar(keys.with_only_columns(func.count())) or 0
    first = list(db.scalars(keys.order_by(ApiKey.id).limit(_SHOWN)))
    return FamilySummary(number, db.scalar(links) or 0, first)


class LockingKeys(NamedTuple):
    """A writer whose transaction changes these keys: it locks their rows and the writer's own at once, by id.

    Two keys that revoke each other would otherwise be a deadlock: each holds its own row and waits for the other's. A
    key that is made meanwhile has a later id, so it is locked in order too.
    """

    writer: Writer
    keys: Select[UUID]  # read again until it finds no more: a key that is not locked yet may make another

    def admit(self, db: Session) -> None:
        wanted: ColumnElement[bool] = ApiKey.id.in_(self.keys)
        if isinstance(self.writer, Caller):
            wanted = or_(wanted, ApiKey.id == self.writer.key_id)
        query = select(ApiKey.id).where(wanted).order_by(ApiKey.id).with_for_update(key_share=True, of=ApiKey)
        locked: set[UUID] | None = None
        while (found := set(db.scalars(query))) != locked:
            locked = found
        self.writer.admit(db)


def _family_of(key_id: UUID) -> CTE:
    return family(select(ApiKey.id).where(ApiKey.id == key_id))


def revoke_family(db: Session, key_id: UUID) -> dict[str, Any]:
    """Revoke the key and its family, whose rows are locked. Returns details for the audit event."""
    at, found = now(), _family_of(key_id)
    # The links first, while the keys that made them can still be found.
    links = db.scalars(_locked(_links_of(found))).all()
    if links:
        db.execute(update(OnboardingLink).where(_links_of(found)).values(revoked_at=at), _BLIND)
    keys = update(ApiKey).where(ApiKey.id.in_(select(found.c.id))).values(revoked_at=at)
    revoked = db.execute(keys.returning(ApiKey.id, ApiKey.expires_at), _BLIND)
    live = [one for one, expires_at in revoked if one != key_id and (expires_at is None or expires_at > at)]
    return {
        "keys_revoked": len(live),
        "links_revoked": len(links),
        "api_key_ids": [str(one) for one in sorted(live)[:_NAMED]],
        "onboarding_link_ids": [str(one) for one in sorted(links)[:_NAMED]],
    }


def made_by(key_id: UUID | ScalarSelect[UUID]) -> ColumnElement[bool]:
    """Keys that this key made and that are not revoked."""
    return and_(ApiKey.made_by == key_id, ApiKey.revoked_at.is_(None))


def inherit(db: Session, old: UUID, successor: UUID) -> None:
    """Makes the successor the maker of what the old key made. The keys' rows are locked."""
    keys = update(ApiKey).where(made_by(old), ApiKey.id != successor)
    db.execute(keys.values(made_by=successor), _BLIND)
    links = and_(OnboardingLink.made_by == old, OnboardingLink.revoked_at.is_(None))
    db.scalars(_locked(links)).all()
    db.execute(update(OnboardingLink).where(links).values(made_by=successor), _BLIND)


def _locked(links: ColumnElement[bool]) -> Select[UUID]:
    """Locks links in the order of their ids. Everywhere, links are locked after keys and before tenants."""
    return select(OnboardingLink.id).where(links).order_by(OnboardingLink.id).with_for_update(of=OnboardingLink)
