"""A cache of sessions of customers' roles, which saves calls to AWS.

Sessions are kept in the process, and in the shared cache if there is one. They are sealed together
with their cache key, so a session can be opened only for a request with the same key. Three rules
reduce the calls to AWS and the time that requests wait:

- Only one call runs at a time for each cache key. Requests that arrive meanwhile share its result.
- A request waits about 1.5 s, because AWS SDKs give up on a credentials endpoint after 2 s. It then
  gets a 503. The call continues, and its result is cached for the next request.
- A session is good while enough of its lifetime is left (_GOOD_SECONDS). It is renewed in the
  background, at a random moment in the last fifth of the time that it is good. While AWS doesn't
  answer, the old session is still served.
"""

import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple, Self
from uuid import UUID

import orjson

from app import metrics
from app.aws.sts import Session
from app.cache.sealing import Sealer
from app.clock import timestamp
from app.concurrency.gevent import leaf_lock
from app.concurrency.single_flight import SingleFlight, result_of
from app.errors import AppError, AwsUnavailableError, RateLimitedError, TryLaterError
from app.issuing.authorization import VerifiedConnection

if TYPE_CHECKING:
    from app.cache.shared_cache import SharedCache

Source = Literal["sts", "cache"]
Fetch = Callable[[], Session]

_KEPT = 50_000  # maximum of sessions in a process, at about 1.5 kB each
_KEPT_OF_TENANT = 5_000  # maximum per tenant, so that it can't evict all sessions of others
# How many sessions are evicted when a tenant has reached its maximum. Each eviction searches all
# sessions, so it must evict many.
_CLEARED = 500

# A session is handed out only if so much of its lifetime is left. For a short session, half of the
# lifetime is enough. boto3 requests new credentials from 15 minutes before the end, and does not
# use the last 10 minutes. So a client survives ten minutes without Deputy if its session has 21
# minutes left. docs/reliability.md says how many calls to STS each minute costs.
_GOOD_SECONDS = 25 * 60
_LAST_RESORT_SECONDS = 60  # the remaining lifetime that is enough while AWS doesn't answer
_RENEW_EARLY = 0.2  # the renewal begins at random in this last part of the good time
_RETRY_SECONDS = (5.0, 10.0)  # range of the pause after a renewal that failed

_LOCK_SECONDS = 8.0  # expiry of a lock; a call to AWS with its retry takes less
# Pauses between reads of the shared cache while another process fetches: the first, how they grow,
# and the longest. Hundreds of requests may wait so, and each read costs this process time.
_FIRST_PAUSE, _PAUSE_GROWTH, _LONGEST_PAUSE = 0.02, 1.5, 0.15
_OTHERS_SECONDS = 1.2  # how long a process waits for another one before it calls AWS itself

# A larger difference means that the clock was set back. The times of concurrent requests differ by
# some seconds at most.
_SET_BACK_SECONDS = 60

_SLOW = "AWS did not answer in time; ask again in a moment, its answer will be here."


class CacheKey(NamedTuple):
    """The key of a cached session."""

    tenant_id: UUID  # for the tenant's maximum of sessions
    text: bytes  # everything that the session depends on, and the API key's id
    digest: bytes  # the SHA-256 of `text`

    @classmethod
    def of(
        cls, connection: VerifiedConnection, key_id: UUID, duration_seconds: int, policy: str | None
    ) -> Self:
        """Return the key of this session.

        It contains everything that the session depends on, and the id of the API key. So no request
        gets a session that was opened for a different request.
        """
        grant = connection.grant
        tenant = connection.tenant_id.hex, connection.tenant_resumed_at
        row = connection.connection_id.hex, connection.version
        role = grant.role_arn.text, grant.external_id, connection.role_unique_id
        text = orjson.dumps([*tenant, *row, *role, key_id.hex, duration_seconds, policy])
        return cls(connection.tenant_id, text, hashlib.sha256(text).digest())

    @property
    def shared_name(self) -> str:
        """The session's name in the shared cache."""
        return f"deputy:session:{self.digest.hex()}"


@dataclass(slots=True)
class _Kept:
    """A sealed session, with times in seconds since 1970."""

    sealed: bytes
    expires_at: float
    good_until: float
    renew_at: float
    tenant: int  # the hash of its tenant's id, which is smaller than the id

    def is_fresh(self, current_time: float) -> bool:
        return current_time < self.good_until and current_time < self.renew_at


class _Store:
    """The sealed sessions of this process, with a maximum in all and for each tenant.

    The least recently used sessions come first in the dict, and are evicted first. LRUCache and
    OrderedDict would take 60 to 200 bytes more for each session.
    """

    def __init__(self) -> None:
        self._sessions: dict[bytes, _Kept] = {}
        self._of_tenant: Counter[int] = Counter()
        self._lock = leaf_lock()

    def get(self, digest: bytes) -> _Kept | None:
        with self._lock:
            kept = self._sessions.pop(digest, None)
            if kept is not None:
                self._sessions[digest] = kept  # moves it to the end
            return kept

    def put(self, digest: bytes, kept: _Kept) -> None:
        with self._lock:
            self._remove(digest)
            if self._of_tenant[kept.tenant] >= _KEPT_OF_TENANT:
                sessions = self._sessions.items()
                own = [each for each, other in sessions if other.tenant == kept.tenant]
                for each in own[:_CLEARED]:
                    self._remove(each)
            if len(self._sessions) >= _KEPT:
                self._remove(next(iter(self._sessions)))
            self._sessions[digest] = kept
            self._of_tenant[kept.tenant] += 1

    def pop(self, digest: bytes) -> None:
        with self._lock:
            self._remove(digest)

    def _remove(self, digest: bytes) -> None:
        kept = self._sessions.pop(digest, None)
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
        self, key: CacheKey, fetch: Fetch, patience: float, current_time: float
    ) -> tuple[Session, Source]:
        """Return a session for this key, and its source.

        The source is "sts" if AWS opened the session for this request, and "cache" otherwise.
        `fetch` gets a session from AWS. `patience`: how many seconds the request can wait for AWS.
        `current_time`: in seconds since 1970. Raises AwsUnavailableError, also when AWS
        takes too long, and the errors of `fetch`.
        """
        self._watch_clock(current_time)
        held = self._held(key)
        if held is not None and held[0].is_fresh(current_time):
            return held[1], "cache"  # app/issuing/issue.py counts cache hits
        call, started = self._calls.join(key.digest, lambda: self._renew(key, fetch))
        if held is not None and current_time < held[0].good_until:
            return held[1], "cache"
        try:
            session, source = result_of(call, patience)
        except (TimeoutError, AwsUnavailableError, RateLimitedError) as error:
            if held is not None and current_time < held[0].expires_at - _LAST_RESORT_SECONDS:
                return held[1], "cache"
            if isinstance(error, TimeoutError):
                raise AwsUnavailableError(_SLOW) from error
            raise
        return session, source if started else "cache"

    def _watch_clock(self, current_time: float) -> None:
        """Drop all sessions if the clock was set back.

        Otherwise old sessions would seem younger, and be served after they expired.
        """
        if current_time > self._latest:
            self._latest = current_time
        elif current_time < self._latest - _SET_BACK_SECONDS:
            self._kept, self._latest = _Store(), current_time

    def _held(self, key: CacheKey) -> tuple[_Kept, Session] | None:
        kept = self._kept.get(key.digest)
        if kept is None or (opened := self._open(kept.sealed, key)) is None:
            return None
        return kept, opened[0]

    def _open(self, sealed: bytes, key: CacheKey) -> tuple[Session, float] | None:
        """Return the session, and the time until which it is good; None if it can't be opened."""
        secret = self._sealer.open(sealed, key.text)
        if secret is None:
            return None
        good_until, expires_at, key_id, secret_key, token, *role = orjson.loads(secret)
        expires_at = datetime.fromisoformat(expires_at)
        return Session(key_id, secret_key, token, expires_at, *role), good_until

    def _seal(self, session: Session, good_until: float, key: CacheKey) -> bytes:
        secrets = session.access_key_id, session.secret_access_key, session.session_token
        role = session.account_id, session.role_unique_id, session.name
        text = orjson.dumps([good_until, session.expires_at.isoformat(), *secrets, *role])
        return self._sealer.seal(text, key.text)

    def _renew(self, key: CacheKey, fetch: Fetch) -> tuple[Session, Source]:
        held = self._held(key)
        # A call for the same key may have ended just before this one was started.
        if held is not None and held[0].is_fresh(timestamp()):
            return held[1], "cache"
        try:
            return self._fetch_once(key, fetch)
        except TryLaterError:
            if held is not None:
                # S311: this random number is no secret
                held[0].renew_at = timestamp() + random.uniform(*_RETRY_SECONDS)  # noqa: S311
            raise
        except AppError:
            # The role refuses us, or was recreated. Its cached session must not be served.
            self._kept.pop(key.digest)
            if self._shared is not None:
                self._shared.forget(key.shared_name)
            raise

    def _fetch_once(self, key: CacheKey, fetch: Fetch) -> tuple[Session, Source]:
        """Fetch the session, unless another process puts it into the shared cache meanwhile."""
        if (shared := self._shared) is None:
            return self._keep(key, fetch()), "sts"
        lock, token = f"{key.shared_name}:lock", None
        deadline, pause = time.monotonic() + _OTHERS_SECONDS, _FIRST_PAUSE
        try:
            while True:
                # Another process may have stored its session since, and released the lock.
                if (session := self._adopt(shared, key)) is not None:
                    return session, "cache"
                if token is not None or shared.away or time.monotonic() > deadline:
                    return self._keep(key, fetch()), "sts"
                token = shared.lock(lock, _LOCK_SECONDS)
                if token is None:
                    time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
                    pause = min(pause * _PAUSE_GROWTH, _LONGEST_PAUSE)
        finally:
            if token is not None:
                shared.unlock(lock, token)

    def _adopt(self, shared: "SharedCache", key: CacheKey) -> Session | None:
        """Copy the session from the shared cache into this process, and return it.

        Return None if there is none, if it is no longer good, or if it does not expire later than
        this process's own.
        """
        sealed = shared.get(key.shared_name)
        if sealed is None or (opened := self._open(sealed, key)) is None:
            return None
        session, good_until = opened
        own = self._kept.get(key.digest)
        outlives_own = own is None or session.expires_at.timestamp() > own.expires_at
        if timestamp() >= good_until or not outlives_own:
            return None
        self._put(key, sealed, session, good_until)
        metrics.CACHE.labels("shared").inc()
        return session

    def _keep(self, key: CacheKey, session: Session) -> Session:
        """Store a session that AWS has just opened, in this process and in the shared cache."""
        metrics.CACHE.labels("nowhere").inc()
        current_time, expires_at = timestamp(), session.expires_at.timestamp()
        good_until = expires_at - min(_GOOD_SECONDS, (expires_at - current_time) / 2)
        sealed = self._seal(session, good_until, key)
        self._put(key, sealed, session, good_until)
        if self._shared is not None:
            self._shared.put(key.shared_name, sealed, good_until - current_time)
        return session

    def _put(self, key: CacheKey, sealed: bytes, session: Session, good_until: float) -> None:
        # S311: this random number is no secret
        early = random.uniform(0, _RENEW_EARLY) * (good_until - timestamp())  # noqa: S311
        expires_at, tenant = session.expires_at.timestamp(), hash(key.tenant_id)
        kept = _Kept(sealed, expires_at, good_until, good_until - early, tenant)
        self._kept.put(key.digest, kept)
