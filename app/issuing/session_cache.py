"""A cache of sessions of customers' roles, so that requests for the same session share one call.

Sessions are in the process, and in the shared cache if there is one. Both hold them sealed, under
everything that a request for one depends on, so that no session answers another request. Three
rules reduce the calls to AWS and the waiting of callers:

- One call runs at a time for each cache key. Requests that come meanwhile share its answer.
- A request waits about 1.5 s, because SDKs give up on a credentials endpoint after 2 s. It then
  gets a 503. The call goes on, and its answer is cached for the next request.
- A session is renewed in the background at a random moment of its last fifth. It is served on
  while AWS doesn't answer.
"""

import hashlib
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import orjson

from app import metrics
from app.aws.sts import Session
from app.cache.sealing import Sealer
from app.clock import now
from app.concurrency.gevent import leaf_lock
from app.concurrency.single_flight import SingleFlight
from app.errors import AppError, AwsUnavailableError, RateLimitedError, TryLaterError

if TYPE_CHECKING:
    from app.cache.shared_cache import SharedCache

Source = Literal["sts", "cache"]
Fetch = Callable[[], Session]

_KEPT = 50_000  # sessions, at about 1.5 kB each
_KEPT_OF_TENANT = 5_000  # limits one tenant's misses to evicting a tenth of the others' sessions
# sessions of a tenant, when it has reached its limit; finding them costs a pass over all sessions
_CLEARED = 500

# The remaining life that a session needs to be handed out: half its life, if the whole is short.
# boto3 asks for another from 15 minutes before the end, and refuses to use the last 10. So a
# program outlasts ten minutes without Deputy if its session has 21 minutes left.
# docs/reliability.md says what each minute costs in calls to STS.
_GOOD_SECONDS = 25 * 60
_LAST_RESORT_SECONDS = 60  # the remaining life needed while AWS doesn't answer
_RENEW_EARLY = 0.2  # share of the time that it is good, in which its renewal begins at random
_RETRY_SECONDS = (5.0, 10.0)  # after a renewal that failed

_LOCK_SECONDS = 8.0  # longer than a call to AWS with its retry takes
_LOOK_SECONDS = 0.02  # seconds between two looks while another process fetches
_OTHERS_SECONDS = 1.2  # seconds of waiting before a process asks AWS itself

_SET_BACK_SECONDS = (
    60  # more means that the clock was set back; concurrent requests are seconds apart
)

_SLOW = "AWS did not answer in time; ask again in a moment, its answer will be here."


class CacheKey:
    """The key of a cached session, which names everything that the session depends on.

    `text` includes the API key that the session is for. The tenant has a limited share of the
    cache.
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

    def is_fresh(self, at: float) -> bool:
        return at < self.good_until and at < self.renew_at


class _Store:
    """Sealed sessions by name, the least recently used first, with limits in all and by tenant.

    It is a dict, whose order is that of insertion. cachetools' LRU and OrderedDict take 60 to 200
    bytes more for each entry.
    """

    def __init__(self) -> None:
        self._sessions: dict[bytes, _Kept] = {}
        self._of_tenant: Counter[int] = Counter()
        self._lock = leaf_lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, name: bytes) -> _Kept | None:
        with self._lock:
            kept = self._sessions.pop(name, None)
            if kept is not None:
                self._sessions[name] = kept  # at the end
            return kept

    def put(self, name: bytes, kept: _Kept) -> None:
        with self._lock:
            self._remove(name)
            if self._of_tenant[kept.tenant] >= _KEPT_OF_TENANT:
                own = (
                    name for name, other in self._sessions.items() if other.tenant == kept.tenant
                )
                for oldest in tuple(itertools.islice(own, _CLEARED)):
                    self._remove(oldest)
            if len(self._sessions) >= _KEPT:
                self._remove(next(iter(self._sessions)))
            self._sessions[name] = kept
            self._of_tenant[kept.tenant] += 1

    def pop(self, name: bytes) -> None:
        with self._lock:
            self._remove(name)

    def _remove(self, name: bytes) -> None:
        kept = self._sessions.pop(name, None)
        if kept is not None:
            self._of_tenant[kept.tenant] -= 1
            if not self._of_tenant[kept.tenant]:
                del self._of_tenant[kept.tenant]


class SessionCache:
    """The cache of sessions. `obtain` is its entry point."""

    def __init__(self, secret_keys: tuple[str, ...], shared: "SharedCache | None") -> None:
        self._sealer = Sealer(secret_keys, "sessions")
        self._shared = shared
        self._kept = _Store()
        self._latest = 0.0  # the latest time that the clock has shown
        self._calls: SingleFlight[bytes, tuple[Session, Source]] = SingleFlight()

    def obtain(
        self, key: CacheKey, fetch: Fetch, patience: float, at: float | None = None
    ) -> tuple[Session, Source]:
        """Return a session for this key, and "sts" if this request made AWS open it, else "cache".

        `patience` is how many seconds the request can wait for AWS. `at` is the time in seconds
        since 1970, if the caller has it. Raises AwsUnavailableError, also when the answer takes too
        long, and what `fetch` raises.
        """
        at = at or now().timestamp()
        self._watch_clock(at)
        held = self._held(key)
        if held is not None and held[0].is_fresh(at):
            return held[1], "cache"  # the caller counts this hit
        call, started = self._calls.join(key.name, lambda: self._renewed(key, fetch))
        if held is not None and at < held[0].good_until:
            return held[1], "cache"
        try:
            session, source = call.result(timeout=max(0.0, patience))
        except FutureTimeoutError:
            failure: AppError = AwsUnavailableError(_SLOW)
        except (AwsUnavailableError, RateLimitedError) as error:
            failure = error
        else:
            return session, source if started else "cache"
        if held is not None and at < held[0].expires_at - _LAST_RESORT_SECONDS:
            return held[1], "cache"
        raise failure

    def _watch_clock(self, at: float) -> None:
        """Drop all sessions if the clock was set back.

        Otherwise they would seem younger than they are, and be served after they expired.
        """
        if at > self._latest:
            self._latest = at
        elif at < self._latest - _SET_BACK_SECONDS:
            self._kept, self._latest = _Store(), at

    def _held(self, key: CacheKey) -> tuple[_Kept, Session] | None:
        kept = self._kept.get(key.name)
        opened = None if kept is None else self._opened(kept.sealed, key)
        if kept is not None and opened is None:
            self._kept.pop(key.name)
        return None if kept is None or opened is None else (kept, opened[0])

    def _opened(self, sealed: bytes, key: CacheKey) -> tuple[Session, float] | None:
        secret = self._sealer.open(sealed, key.text)
        return None if secret is None else _unpacked(secret)

    def _renewed(self, key: CacheKey, fetch: Fetch) -> tuple[Session, Source]:
        held = self._held(key)
        # The request may have missed the end of an earlier call.
        if held is not None and held[0].is_fresh(now().timestamp()):
            return held[1], "cache"
        try:
            return self._fetched(key, fetch)
        except TryLaterError:
            if held is not None:
                # no secret
                held[0].renew_at = now().timestamp() + random.uniform(*_RETRY_SECONDS)  # noqa: S311
            raise
        except (
            AppError
        ):  # the role refuses us, or was made again: its cached session must not be served
            self._kept.pop(key.name)
            if self._shared is not None:
                self._shared.forget(_shared_name(key.name))
            raise

    def _fetched(self, key: CacheKey, fetch: Fetch) -> tuple[Session, Source]:
        if self._shared is None:
            return self._keep(key, fetch()), "sts"
        lock = f"{_shared_name(key.name)}:lock"
        deadline = time.monotonic() + _OTHERS_SECONDS
        while True:
            if (session := self._adopted(self._shared, key)) is not None:
                return session, "cache"
            token = self._shared.lock(lock, _LOCK_SECONDS)
            if token is not None or self._shared.away or time.monotonic() > deadline:
                break
            time.sleep(_LOOK_SECONDS)
        try:
            # The process that held the lock before may have stored its session since.
            if token is not None and (session := self._adopted(self._shared, key)) is not None:
                return session, "cache"
            return self._keep(key, fetch(), self._shared), "sts"
        finally:
            if token is not None:
                self._shared.unlock(lock, token)

    def _adopted(self, shared: "SharedCache", key: CacheKey) -> Session | None:
        """Return the shared cache's session.

        It must be good, and live longer than the session of this process. Otherwise return None.
        """
        sealed = shared.get(_shared_name(key.name))
        opened = None if sealed is None else self._opened(sealed, key)
        if sealed is None or opened is None:
            return None
        session, good_until = opened
        kept, own = _kept(sealed, session, good_until, key.tenant_id), self._kept.get(key.name)
        if now().timestamp() >= good_until or (
            own is not None and kept.expires_at <= own.expires_at
        ):
            return None
        self._kept.put(key.name, kept)
        metrics.CACHE.labels("shared").inc()
        return session

    def _keep(
        self, key: CacheKey, session: Session, shared: "SharedCache | None" = None
    ) -> Session:
        metrics.CACHE.labels("nowhere").inc()
        at, expires_at = now().timestamp(), session.expires_at.timestamp()
        good_until = expires_at - min(_GOOD_SECONDS, (expires_at - at) / 2)
        sealed = self._sealer.seal(_packed(session, good_until), key.text)
        self._kept.put(key.name, _kept(sealed, session, good_until, key.tenant_id))
        if shared is not None:
            shared.put(_shared_name(key.name), sealed, good_until - at)
        return session


def _kept(sealed: bytes, session: Session, good_until: float, tenant_id: UUID) -> _Kept:
    # no secret
    early = random.uniform(0, _RENEW_EARLY) * (good_until - now().timestamp())  # noqa: S311
    expires_at = session.expires_at.timestamp()
    return _Kept(sealed, expires_at, good_until, good_until - early, hash(tenant_id))


def _shared_name(name: bytes) -> str:
    return f"deputy:session:{name.hex()}"


def _packed(session: Session, good_until: float) -> bytes:
    secrets = (session.access_key_id, session.secret_access_key, session.session_token)
    role = (session.account_id, session.role_unique_id, session.name)
    return orjson.dumps([good_until, session.expires_at.isoformat(), *secrets, *role])


def _unpacked(secret: bytes) -> tuple[Session, float]:
    good_until, expires_at, access_key_id, secret_access_key, session_token, *role = orjson.loads(
        secret
    )
    session = Session(
        access_key_id, secret_access_key, session_token, datetime.fromisoformat(expires_at), *role
    )
    return session, good_until
