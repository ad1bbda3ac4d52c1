"""The circuit breaker: while AWS does not answer, most calls fail at once."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from app.aws.errors import AWS_ERRORS, Unavailable, classify, is_silence, outcome_of
from app.log import logger

_FAILURES = 10  # consecutive failures until the breaker opens
_OPEN_SECONDS = 3.0  # between two trial calls while the breaker is open


class Breaker:
    """A circuit breaker: while AWS does not answer, most calls fail at once.

    Otherwise each request would hold its place in the web process during its timeouts and its
    retry, and requests that need no AWS would get no place.

    It opens after ten consecutive failures, and closes after a success. While it is open, it lets
    one call through every three seconds. Each call without an answer counts as a failure.
    Consecutive throttled calls for one tenant count as one failure, because AWS limits the calls of
    each account, and may throttle that tenant's calls alone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._next_try = 0.0  # monotonic seconds; time of the next trial call while open
        self._throttled: str | None = None  # the tenant whose call was throttled last

    @property
    def is_open(self) -> bool:
        return self._failures >= _FAILURES

    @contextmanager
    def call(self, tenant: str) -> Iterator[None]:
        """Guard a call for this tenant, and raise an StsError instead of its errors.

        The few calls that read one role count as one. Raises Unavailable before the call while the
        breaker is open.
        """
        if self.is_open:
            with self._lock:
                if time.monotonic() < self._next_try:
                    raise Unavailable
                self._next_try = time.monotonic() + _OPEN_SECONDS  # this call is the trial call
        try:
            yield
        except AWS_ERRORS as error:
            if is_silence(error):
                self._failed(tenant if outcome_of(error) == "throttled" else None)
            else:
                self._answered()
            raise classify(error) from error
        self._answered()

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
        if self._failures:  # read without the lock, because most calls follow no failure
            with self._lock:
                was_open, self._failures = self.is_open, 0
            if was_open:
                logger.info("aws.back")
