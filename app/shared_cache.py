"""Redis or Valkey, if there is one: what the processes of a deployment share, and can lose at any moment.

Everything in it is a hint. Whoever asks is answered as by an empty cache while it is away; that is logged once, and
once more when it is back.
"""

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
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
        self._away = threading.Lock()  # held while it is away: only the first to find out says so
        self._ask_again_at = 0.0

    def ask(self, ask: Callable[[], Answer], *, writes: bool = False) -> Answer | None:
        """What `ask` says over this cache's client, or None while the cache is away.

        `writes`: it counts as back only once it takes what it is given; a full one still answers questions.
        """
        if time.monotonic() < self._ask_again_at:
            return None
        try:
            answer = ask()
        except (redis.RedisError, OSError) as error:
            self._ask_again_at = time.monotonic() + _LEAVE_ALONE_SECONDS
            if self._away.acquire(blocking=False):
                _log.warning("cache.lost", error=type(error).__name__)
            return None
        if writes and self._away.locked():
            with suppress(RuntimeError):  # another thread has said it already
                self._away.release()
                _log.info("cache.back")
        return answer

    @property
    def away(self) -> bool:
        return self._away.locked()

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
