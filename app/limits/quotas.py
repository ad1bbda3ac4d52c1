"""Quotas: how often roles are tried for a tenant, entered or checked through an onboarding link, and spoken of by stacks.

Such a request is rare and writes anyway, so it is counted in the database, by all processes together. What
is asked for all the time is counted in memory (app/limits/rates.py). The windows slide: what was counted in the last one
fades as the present one goes on.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Uuid, bindparam, delete, select, text
from sqlalchemy.orm import Session

from app.access.callers import Caller
from app.clock import now
from app.config import Config
from app.errors import RateLimitedError
from app.limits.rates import until_room
from app.store.database import Database
from app.store.models import QuotaUse

_MINUTE, _HOUR = 60, 3600
_STOP_BURST = 4  # seconds of TENANT_REVOKES that may come at once
_FORGOTTEN = 20  # rows, by whoever begins a window: more than are made, so that they don't pile up
# Made or found, the row is locked: of two first ones at once, the second waits and sees what the first one counted.
_LOCK = text(
    "INSERT INTO quota_uses (name, id, number, counted, counted_before) VALUES (:name, :id, 0, 0, 0)"
    " ON CONFLICT (name, id) DO UPDATE SET name = excluded.name"
).bindparams(bindparam("id", type_=Uuid()))


@dataclass(frozen=True, slots=True)
class _Quota:
    name: str
    amount: int
    seconds: int
    refusal: str

    def with_one_more(self, used: QuotaUse) -> tuple[int, int, int]:
        """The present window, what is counted in it then, and in the one before. Raises RateLimitedError."""
        present, passed = divmod(now().timestamp(), self.seconds)
        number, counted, before = int(present), used.counted, used.counted_before
        if used.number == number + 1:  # begun by a machine whose clock is a little ahead of ours
            number, passed = used.number, passed - self.seconds
        elif used.number != number:
            counted, before = 0, counted if used.number == number - 1 else 0
        if before * (self.seconds - passed) > (self.amount - counted - 1) * self.seconds:
            wait = until_room(self.amount, counted, before, passed, self.seconds)
            raise RateLimitedError(self.refusal, retry_after=max(1, math.ceil(wait)))
        return number, counted + 1, before


class Quotas:
    """Each method counts one attempt; or it raises RateLimitedError, and then nothing was counted or written."""

    def __init__(self, db: Database, config: Config) -> None:
        self._db = db
        tries, through_link = config.connection_rate, config.link_rate
        self._attempt = _Quota(
            "attempt",
            tries,
            _MINUTE,
            f"Roles of this tenant are tried too often: {tries} per minute at most.",
        )
        self._paste = _Quota(
            "paste",
            through_link,
            _HOUR,
            f"Roles are entered through this link too often: {through_link} per hour at most.",
        )
        self._again = _Quota(
            "again",
            through_link,
            _HOUR,
            f"Checks are asked for through this link too often: {through_link} per hour at most.",
        )
        self._end_search = _Quota(
            "end_search",
            through_link,
            _HOUR,
            f"Searches are ended through this link too often: {through_link} per hour at most.",
        )

        self._stop = _Quota(
            "stop",
            config.tenant_revokes * _STOP_BURST,
            _STOP_BURST,
            f"Keys of this tenant revoke, suspend and delete too often: {config.tenant_revokes} per second at most.",
        )

    def stop(self, caller: Caller) -> None:
        """One change by a bound key that stops issuing: TENANT_REVOKES a second for its tenant, four seconds' worth at once.

        Each moves the epoch, and then every process reads again what it knows of all tenants. Unbound keys have no limit.
        """
        if caller.tenant_id is not None:
            self._count(caller, (self._stop, caller.tenant_id))

    def attempt(self, caller: Caller, tenant_id: UUID) -> None:
        """One role to be tried for this tenant, CONNECTION_RATE a minute at most: it costs AWS calls, and a scanner many."""
        if caller.tenant_id not in {None, tenant_id}:
            return  # it will be told that there is no such tenant, and must not use up what that tenant has
        self._count(caller, (self._attempt, tenant_id))

    def paste(self, caller: Caller, tenant_id: UUID) -> None:
        """One role given through this onboarding link, LINK_RATE an hour at most; and an attempt."""
        self._count(caller, (self._paste, caller.key_id), (self._attempt, tenant_id))

    def check_again(self, caller: Caller, tenant_id: UUID) -> None:
        """One check asked for through this onboarding link, LINK_RATE an hour at most; and an attempt."""
        self._count(caller, (self._again, caller.key_id), (self._attempt, tenant_id))

    def stop_looking(self, caller: Caller) -> None:
        """One search ended through this onboarding link, LINK_RATE an hour at most."""
        self._count(caller, (self._end_search, caller.key_id))

    def _count(self, caller: Caller, *wanted: tuple[_Quota, UUID]) -> None:
        """One of each, or none. The attempt comes last everywhere, so that no two wait for each other's rows."""
        with self._db.read() as db:  # a flood that is refused must not queue among those who write
            for quota, who in wanted:
                _look(db, quota, who)
        with self._db.write(caller) as db:
            for quota, who in wanted:
                _take(db, quota, who)


_REFUSALS = "refusal"
# What a stack says when it is made, changed and deleted; whoever says more says nothing new, and would fill the log.
_MESSAGES = _Quota("registration", 20, _HOUR, "Stacks speak of this role too often.")
# Each one that takes effect makes every process read again what it knows, other tenants' connections too.
_REPORTS = _Quota("report", 60, _MINUTE, "Refusals are reported for this tenant too often.")


def keeps_message(db: Session, about: UUID) -> bool:
    """Whether one more message about this connection is to be kept, counted in the transaction at hand.

    `about`: the connection; the tenant, for Delete messages about roles that it has no connection to.
    """
    return _admits(_take, db, _MESSAGES, about)


def has_room_for_report(db: Session, tenant_id: UUID) -> bool:
    """Whether `heeds_report` would say yes. It reads only: a flood must not queue among those who write."""
    return _admits(_look, db, _REPORTS, tenant_id)


def heeds_report(db: Session, tenant_id: UUID) -> bool:
    """Whether one more report of a refusal takes effect for this tenant, counted in the transaction at hand."""
    return _admits(_take, db, _REPORTS, tenant_id)


def _admits(count: Callable[[Session, _Quota, UUID], None], db: Session, quota: _Quota, who: UUID) -> bool:
    try:
        count(db, quota, who)
    except RateLimitedError:
        return False
    return True


def _look(db: Session, quota: _Quota, who: UUID) -> None:
    """Raises RateLimitedError when there is no room for one more."""
    if (used := db.get(QuotaUse, (quota.name, who))) is not None:
        quota.with_one_more(used)


def _take(db: Session, quota: _Quota, who: UUID) -> None:
    db.execute(_LOCK, {"name": quota.name, "id": who})
    used = db.get_one(QuotaUse, (quota.name, who))
    used.number, used.counted, used.counted_before = quota.with_one_more(used)
    if used.counted == 1:
        _forget(db, quota.name, before=used.number - 1)


def count_refusals(db: Session, key_id: UUID, second: int, more: int, *, otherwise: int) -> int:
    """Count so many more refusals of a key in a clock second; how many were counted before.

    Machines' clocks differ a little, so the second before the latest is counted too. `otherwise`: what is said of one
    that is longer ago, which is not counted.
    """
    db.execute(_LOCK, {"name": _REFUSALS, "id": key_id})
    used = db.get_one(QuotaUse, (_REFUSALS, key_id))
    if second > used.number:
        used.counted_before = used.counted if second == used.number + 1 else 0
        used.number, used.counted = second, 0
        _forget(db, _REFUSALS, before=second - 1)
    before = used.counted
    if second == used.number:
        used.counted += more
    elif second == used.number - 1:
        before = used.counted_before
        used.counted_before += more
    else:
        before = otherwise
    return before


def _forget(db: Session, name: str, *, before: int) -> None:
    """Delete some rows that count for nothing any more, and wait for nobody who has one of them."""
    old = (
        select(QuotaUse.id)
        .where(QuotaUse.name == name, QuotaUse.number < before)
        .limit(_FORGOTTEN)
        .with_for_update(skip_locked=True)
    )
    query = delete(QuotaUse).where(QuotaUse.name == name, QuotaUse.id.in_(old))
    db.execute(query, execution_options={"synchronize_session": False})
