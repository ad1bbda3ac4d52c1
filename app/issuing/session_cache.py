"""Sessions of customers' roles, kept while they are good: one call to AWS for everybody who asks the same.

In the process, and beyond it in the shared cache if there is one; sealed in both, under everything that the
question names, so that no session can answer another question. Three rules keep AWS and the callers apart:

- one flight per question: whoever asks while AWS is being asked waits for that answer, and for no other;
- nobody waits for long: SDKs give up on a credentials endpoint after 2 s, so a caller is told to come back, while
  the flight goes on and its answer is there when they do;
- a session is renewed before it has to be, at a random moment, and served on while AWS doesn't answer.
"""

import hashlib
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import orjson

from app.aws.sts import Session
from app.cache.sealing import Sealer
from app.cache.shared_cache import SharedCache
from app.clock import now
from app.concurrency.gevent import beside
from app.errors import AppError, AwsUnavailableError, RateLimitedError, TryLaterError
from app.ids import AccountId

Source = Literal["sts", "cache"]
Fetch = Callable[[], Session]

_KEPT = 50_000  # sessions, at about 1.5 kB each
_KEPT_OF_TENANT = 5_000  # so that one tenant's misses evict a tenth of the others' sessions at most
_CLEARED = 500  # of a tenant's sessions at once, when it has as many: looking for them costs a pass over all

# How much life a session must have left to be handed out. SDKs renew 10 to 15 minutes before the end, and would come
# back at every call for one that has less; half the life, where the whole is short.
_GOOD_SECONDS = 20 * 60
_LAST_RESORT_SECONDS = 60  # and while AWS doesn't answer
_RENEW_EARLY = 0.2  # of the time that it is good: where the random moment of its renewal lies
_RETRY_SECONDS = (5.0, 10.0)  # after a renewal that failed

_LOCK_SECONDS = 8.0  # longer than a call to AWS with its retry takes
_LOOK_SECONDS = 0.02  # how often those who wait for another process look
_OTHERS_SECONDS = 1.2  # how long they wait before they ask AWS themselves

_SLOW = "AWS did not answer in time; ask again in a moment, its answer will be here."


class CacheKey:
    """What a session answers, and whose share of the cache it takes.

    `text` names everything that the session depends on and whom it is for.
    """

    __slots__ = ("name", "tenant_id", "text")

    def __init__(self, tenant_id: UUID, text: bytes) -> None:
        self.tenant_id = tenant_id
        self.text = text
        self.name = hashlib.sha256(text).digest()


@dataclass(slots=True)
class _Kept:
    """A sealed session. Times are seconds since 1970."""

    sealed: bytes
    expires_at: float
    good_until: float
    renew_at: float
    tenant: int  # the hash of its tenant's id, which is smaller than the id


class _Store:
    """Sealed sessions by name, the least recently used first; of all tenants and of each one at most so many.

    A dict, as its order is that of insertion: cachetools' LRU and OrderedDict take 60 to 200 bytes more an entry.
    """

    def __init__(self) -> None:
        self._sessions: dict[bytes, _Kept] = {}
        self._of_tenant: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, name: bytes) -> _Kept | None:
        kept = self._sessions.pop(name, None)
        if kept is not None:
            self._sessions[name] = kept  # at the end
        return kept

    def put(self, name: bytes, kept: _Kept) -> None:
        self.pop(name)
        if self._of_tenant[kept.tenant] >= _KEPT_OF_TENANT:
            own = (name for name, other in self._sessions.items() if other.tenant == kept.tenant)
            for oldest in tuple(itertools.islice(own, _CLEARED)):
                self.pop(oldest)
        if len(self._sessions) >= _KEPT:
            self.pop(next(iter(self._sessions)))
        self._sessions[name] = kept
        self._of_tenant[kept.tenant] += 1

    def pop(self, name: bytes) -> None:
        kept = self._sessions.pop(name, None)
        if kept is not None:
            self._of_tenant[kept.tenant] -= 1
            if not self._of_tenant[kept.tenant]:
                del self._of_tenant[kept.tenant]


class SessionCache:
    """`obtain` is the way in."""

    def __init__(self, secret_keys: tuple[str, ...], shared: SharedCache | None) -> None:
        self._sealer = Sealer(secret_keys, "sessions")
        self._shared = shared
        self._kept = _Store()
        self._flights: dict[bytes, Future[tuple[Session, Source]]] = {}
        self._lock = threading.Lock()  # around the two above

    def obtain(self, question: CacheKey, fetch: Fetch, patience: float) -> tuple[Session, Source]:
        """A session that answers this question, and whether AWS was asked for it on this caller's behalf.

        `patience` is how many seconds the caller can wait for AWS. Raises AwsUnavailableError, also when the answer
        takes too long, and whatever `fetch` raises.
        """
        held = self._held(question)
        at = now().timestamp()
        if held is not None and at < held[0].good_until:
            if at >= held[0].renew_at:
                self._flight(question, fetch, held[0])
            return held[1], "cache"
        flight, mine = self._flight(question, fetch, held[0] if held else None)
        if flight is None:  # one has landed since
            return self.obtain(question, fetch, patience)
        try:
            session, source = flight.result(timeout=max(0.0, patience))
        except FutureTimeoutError:
            failure: AppError = AwsUnavailableError(_SLOW)
        except (AwsUnavailableError, RateLimitedError) as error:
            failure = error
        else:
            return session, source if mine else "cache"
        if held is not None and at < held[0].expires_at - _LAST_RESORT_SECONDS:
            return held[1], "cache"
        raise failure

    def _held(self, question: CacheKey) -> tuple[_Kept, Session] | None:
        with self._lock:
            kept = self._kept.get(question.name)
        if kept is None:
            return None
        opened = self._opened(kept.sealed, question)
        if opened is None:  # no use to anybody
            with self._lock:
                self._kept.pop(question.name)
            return None
        return kept, opened[0]

    def _opened(self, sealed: bytes, question: CacheKey) -> tuple[Session, float] | None:
        secret = self._sealer.open(sealed, question.text)
        return None if secret is None else _unpacked(secret)

    def _flight(
        self, question: CacheKey, fetch: Fetch, seen: _Kept | None
    ) -> "tuple[Future[tuple[Session, Source]] | None, bool]":
        """The flight for this question, and whether it was begun here; None if one has landed since `seen` was kept."""
        with self._lock:
            flight = self._flights.get(question.name)
            if flight is not None:
                return flight, False
            kept = self._kept.get(question.name)
            if kept is not None and kept is not seen:
                return None, False
            in_context = copy_context().run  # so that its log lines name the request
            flight = self._flights[question.name] = beside(in_context, self._fly, question, fetch)
            return flight, True

    def _fly(self, question: CacheKey, fetch: Fetch) -> tuple[Session, Source]:
        try:
            return self._asked(question, fetch)
        except TryLaterError:
            self._put_off(question.name)
            raise
        except AppError:  # the role refuses us, or is another: what is kept of it is over
            with self._lock:
                self._kept.pop(question.name)
            if self._shared is not None:
                self._shared.forget(_shared_name(question.name))
            raise
        finally:
            with self._lock:
                del self._flights[question.name]

    def _asked(self, question: CacheKey, fetch: Fetch) -> tuple[Session, Source]:
        if self._shared is None:
            return self._keep(question, fetch()), "sts"
        lock = f"{_shared_name(question.name)}:lock"
        deadline = time.monotonic() + _OTHERS_SECONDS
        while True:
            if (session := self._adopted(self._shared, question)) is not None:
                return session, "cache"
            token = self._shared.lock(lock, _LOCK_SECONDS)
            if token is not None or self._shared.away or time.monotonic() > deadline:
                break
            time.sleep(_LOOK_SECONDS)
        try:
            # Whoever held the lock before us may have put the answer there in between.
            if token is not None and (session := self._adopted(self._shared, question)) is not None:
                return session, "cache"
            return self._keep(question, fetch(), self._shared), "sts"
        finally:
            if token is not None:
                self._shared.unlock(lock, token)

    def _adopted(self, shared: SharedCache, question: CacheKey) -> Session | None:
        """The shared cache's session, if it is good and lives longer than our own."""
        sealed = shared.get(_shared_name(question.name))
        opened = None if sealed is None else self._opened(sealed, question)
        if sealed is None or opened is None:
            return None
        session, good_until = opened
        kept = _kept(sealed, session, good_until, question.tenant_id)
        with self._lock:
            own = self._kept.get(question.name)
            if now().timestamp() >= good_until or (own is not None and kept.expires_at <= own.expires_at):
                return None
            self._kept.put(question.name, kept)
        return session

    def _keep(self, question: CacheKey, session: Session, shared: SharedCache | None = None) -> Session:
        at, expires_at = now().timestamp(), session.expires_at.timestamp()
        good_until = expires_at - min(_GOOD_SECONDS, (expires_at - at) / 2)
        sealed = self._sealer.seal(_packed(session, good_until), question.text)
        with self._lock:
            self._kept.put(question.name, _kept(sealed, session, good_until, question.tenant_id))
        if shared is not None:
            shared.put(_shared_name(question.name), sealed, good_until - at)
        return session

    def _put_off(self, name: bytes) -> None:
        with self._lock:
            kept = self._kept.get(name)
            if kept is not None:
                kept.renew_at = now().timestamp() + random.uniform(*_RETRY_SECONDS)  # noqa: S311  no secret


def _kept(sealed: bytes, session: Session, good_until: float, tenant_id: UUID) -> _Kept:
    early = random.uniform(0, _RENEW_EARLY) * (good_until - now().timestamp())  # noqa: S311  no secret
    expires_at = session.expires_at.timestamp()
    return _Kept(sealed, expires_at, good_until, good_until - early, hash(tenant_id))


def _shared_name(name: bytes) -> str:
    return f"deputy:session:{name.hex()}"


def _packed(session: Session, good_until: float) -> bytes:
    return orjson.dumps(
        [
            good_until,
            session.expires_at.isoformat(),
            session.access_key_id,
            session.secret_access_key,
            session.session_token,
            session.account_id,
            session.role_unique_id,
            session.name,
        ]
    )


def _unpacked(secret: bytes) -> tuple[Session, float]:
    good_until, expires_at, *rest = orjson.loads(secret)
    access_key_id, secret_access_key, session_token, account_id, role_unique_id, name = rest
    session = Session(
        access_key_id=access_key_id,
        secret_access_key=secret_access_key,
        session_token=session_token,
        expires_at=datetime.fromisoformat(expires_at),
        account_id=AccountId(account_id),
        role_unique_id=role_unique_id,
        name=name,
    )
    return session, float(good_until)
