"""A circuit breaker around AWS: while AWS does not answer, most calls fail at once and few are
tried.

Without it, each request of such a minute would hold its place in the web process for its timeouts
and its retry, until requests that need no AWS found no place.

Throttling counts once for calls for the same tenant in a row: AWS may throttle the calls of one
tenant, and the other tenants must not suffer for it. Each call without an answer counts.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from app.aws.errors import AWS_ERRORS, Unavailable, is_silence, is_throttling
from app.log import logger

_FAILURES = 10  # in a row, until the breaker opens
_OPEN_SECONDS = 3.0  # until one call may try again


class Breaker:
    """Open after ten failures in a row; then one call every three seconds may try, until one
    succeeds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._next_try = 0.0  # while open: when the next call may try (monotonic seconds)
        self._throttled: str | None = None  # the tenant whose call was throttled last

    @property
    def is_open(self) -> bool:
        return self._failures >= _FAILURES

    @contextmanager
    def call(self, tenant: str) -> Iterator[None]:
        """Around one call for this tenant. Raises Unavailable before the call while AWS is
        silent.
        """
        self._admit()
        try:
            yield
        except AWS_ERRORS as error:
            if is_silence(error):
                self._failed(tenant if is_throttling(error) else None)
            else:
                self._answered()
            raise
        self._answered()

    def _admit(self) -> None:
        if not self.is_open:
            return
        with self._lock:
            if time.monotonic() < self._next_try:
                raise Unavailable
            self._next_try = time.monotonic() + _OPEN_SECONDS  # this call is the one that tries

    def _failed(self, throttled: str | None) -> None:
        with self._lock:
            if self._failures and throttled is not None and throttled == self._throttled:
                return
            self._throttled = throttled
            self._failures += 1
            self._next_try = time.monotonic() + _OPEN_SECONDS
            if self._failures == _FAILURES:
                logger.warning("aws.silent", failures=_FAILURES)

    def _answered(self) -> None:
        if self._failures:  # read without the lock: the hot path is the one without failures
            with self._lock:
                was_open, self._failures = self.is_open, 0
            if was_open:
                logger.info("aws.back")
