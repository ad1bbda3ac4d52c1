"""Redis or Valkey, if there is one: what the processes of a deployment share, and can lose at any moment.

Everything in it is a hint. Whoever asks is answered as by an empty cache while it is away; that is logged once, and
once more when it is back.
"""

import secrets
import threading
import time
from collections.abc import Callable
from typing import TypeVar, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app import log

_log = log.get(__name__)

_ANSWER_SECONDS = 0.25  # a cache that is slower than this costs more than it saves
_LEAVE_ALONE_SECONDS = 2.0  # how long one that failed is not asked again
_POOL = 256  # connections, as many as a worker serves requests at once
# Only whoever holds the lock may give it back: by then it may have expired and be somebody else's.
_UNLOCK = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end"

Answer = TypeVar("Answer")


class SharedCache:
    """Small values with an expiry, and locks with one. Away, it has nothing and gives no lock; nothing raises."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(
            url,
            socket_connect_timeout=_ANSWER_SECONDS,
            socket_timeout=_ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
            max_connections=_POOL,
        )
        self._unlock = self.client.register_script(_UNLOCK)
        self.away = False
        self._refuses = False  # it answered, but took nothing
        self._changes = 0  # how often it went away or came back
        self._changing = threading.Lock()
        self._ask_again_at = 0.0

    def ask(self, ask: Callable[[], Answer], *, writes: bool = False) -> Answer | None:
        """What `ask` says over this cache's client, or None while the cache is away.

        `writes`: one that refused to be written to is back only once it is: a full one still answers questions.
        """
        if time.monotonic() < self._ask_again_at:
            return None
        seen = self._changes
        try:
            answer = ask()
        except (redis.RedisError, OSError) as error:
            self._is(True, seen, error=type(error).__name__)
            self._refuses = writes and isinstance(error, redis.ResponseError)
            return None
        if self.away and (writes or not self._refuses):
            self._is(False, seen)
        return answer

    def _is(self, away: bool, seen: int, **facts: str) -> None:  # noqa: FBT001  the one thing that it says
        """News of the cache, unless it was asked before the last news: that is older, however late the answer came."""
        with self._changing:
            if seen != self._changes:
                return
            if away:
                self._ask_again_at = time.monotonic() + _LEAVE_ALONE_SECONDS
            if away == self.away:
                return
            self.away, self._changes = away, self._changes + 1
        if away:
            _log.warning("cache.lost", **facts)
        else:
            _log.info("cache.back")

    def get(self, name: str) -> bytes | None:
        return self.ask(lambda: cast("bytes | None", self.client.get(name)))

    def put(self, name: str, value: bytes, seconds: float) -> None:
        self.ask(lambda: self.client.set(name, value, px=max(1, int(seconds * 1000))), writes=True)

    def forget(self, name: str) -> None:
        self.ask(lambda: self.client.delete(name))

    def lock(self, name: str, seconds: float) -> str | None:
        """A token to unlock with, or None: somebody else holds it, or the cache is away."""
        token = secrets.token_hex(8)
        taken = self.ask(lambda: self.client.set(name, token, nx=True, px=int(seconds * 1000)), writes=True)
        return token if taken else None

    def unlock(self, name: str, token: str) -> None:
        self.ask(lambda: self._unlock(keys=[name], args=[token]))
