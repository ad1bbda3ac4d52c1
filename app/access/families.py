"""Families: the keys and onboarding links that a key made, and what those keys made in turn.

A key that leaked may have made others, so revoking one revokes its family. A key that was replaced belongs to its
successor's family: what it makes in its last days must not outlive a revocation of the successor. A revoked key ends
the search, as its family was revoked with it.
"""

from dataclasses import dataclass
from typing import Any
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
    """The ids of these keys and of all keys in their families. Keys may be in each other's: a key can replace itself."""
    found = roots.where(ApiKey.revoked_at.is_(None)).cte("family", recursive=True)
    made = aliased(ApiKey)
    next_ones = select(made.id).join(found, or_(made.made_by == found.c.id, made.replaced_by == found.c.id))
    return found.union(next_ones.where(made.revoked_at.is_(None)))


def key_ids(key_id: UUID) -> Select[UUID]:
    return select(ApiKey.id).where(ApiKey.id == key_id)


def links_of(keys: CTE) -> ColumnElement[bool]:
    """Links that these keys made. Also those that have expired: their registration tokens count until they are revoked."""
    return and_(OnboardingLink.made_by.in_(select(keys.c.id)), OnboardingLink.revoked_at.is_(None))


@dataclass(frozen=True, slots=True)
class Made:
    """What a key's revocation would revoke besides: how many live ones, and the first of the keys."""

    keys: int
    links: int
    some: list[ApiKey]


def made(db: Session, key_id: UUID) -> Made:
    at, found = now(), family(key_ids(key_id))
    keys = select(ApiKey).where(ApiKey.id.in_(select(found.c.id)), ApiKey.id != key_id, live_at(at))
    links = select(func.count()).where(links_of(found), OnboardingLink.expires_at > at)
    return Made(
        keys=db.scalar(keys.with_only_columns(func.count())) or 0,
        links=db.scalar(links) or 0,
        some=list(db.scalars(keys.order_by(ApiKey.id).limit(_SHOWN))),
    )


@dataclass(frozen=True, slots=True)
class Changing:
    """A writer whose transaction changes these keys. Their rows and the caller's own are locked at once, by id.

    Two keys that revoke each other, or one that revokes itself twice, would otherwise wait for each other: each holds
    its own row and wants the other's. What is made while this waits has a later id, so it is locked in order too.
    """

    writer: Writer
    keys: Select[UUID]  # read again until no more are found, as those that are not locked yet may make some

    def admit(self, db: Session) -> None:
        wanted: ColumnElement[bool] = ApiKey.id.in_(self.keys)
        if isinstance(self.writer, Caller):
            wanted = or_(wanted, ApiKey.id == self.writer.key_id)
        query = select(ApiKey.id).where(wanted).order_by(ApiKey.id).with_for_update(key_share=True, of=ApiKey)
        locked: set[UUID] | None = None
        while (found := set(db.scalars(query))) != locked:
            locked = found
        self.writer.admit(db)


def revoke_family(db: Session, key_id: UUID) -> dict[str, Any]:
    """Revoke the key and its family, whose rows are locked by now; what to say of it in the audit event."""
    at, found = now(), family(key_ids(key_id))
    ids = select(found.c.id)
    # The links first, while the keys that made them can still be found.
    links = db.scalars(_locked(links_of(found))).all()
    db.execute(update(OnboardingLink).where(links_of(found)).values(revoked_at=at), _BLIND)
    live = db.scalars(select(ApiKey.id).where(ApiKey.id.in_(ids), ApiKey.id != key_id, live_at(at))).all()
    db.execute(update(ApiKey).where(ApiKey.id.in_(ids)).values(revoked_at=at), _BLIND)
    return {
        "keys_revoked": len(live),
        "links_revoked": len(links),
        "api_key_ids": [str(one) for one in sorted(live)[:_NAMED]],
        "onboarding_link_ids": [str(one) for one in sorted(links)[:_NAMED]],
    }


def made_by(key_id: UUID | ScalarSelect[UUID]) -> ColumnElement[bool]:
    """Keys that this one made, without those that are revoked."""
    return and_(ApiKey.made_by == key_id, ApiKey.revoked_at.is_(None))


def inherit(db: Session, old: UUID, successor: UUID) -> None:
    """What the old key made was made by its successor from now on. The keys' rows are locked by now."""
    keys = update(ApiKey).where(made_by(old), ApiKey.id != successor)
    db.execute(keys.values(made_by=successor), _BLIND)
    links = and_(OnboardingLink.made_by == old, OnboardingLink.revoked_at.is_(None))
    db.scalars(_locked(links)).all()
    db.execute(update(OnboardingLink).where(links).values(made_by=successor), _BLIND)


def _locked(links: ColumnElement[bool]) -> Select[UUID]:
    """Links, in order of their ids, after keys and before tenants, as everywhere."""
    return select(OnboardingLink.id).where(links).order_by(OnboardingLink.id).with_for_update(of=OnboardingLink)
