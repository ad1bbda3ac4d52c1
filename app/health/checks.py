"""Checks: named questions about the deployment's state. One check runs once at a time, for all who ask.

A finding is kept for some seconds: readiness is public, and would otherwise let anybody use up our calls to AWS and the
database. Requests that arrive while a check runs wait for its finding.
"""

import enum
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass

from app import log
from app.concurrency.gevent import beside

_log = log.get(__name__)


class Status(enum.StrEnum):
    OK = "ok"
    DEGRADED = "degraded"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: `seen` in numbers and words, and `next`, what to do (empty when nothing is)."""

    status: Status
    seen: str
    next: str = ""


def ok(seen: str) -> Finding:
    return Finding(Status.OK, seen)


def degraded(seen: str, to_do: str) -> Finding:
    return Finding(Status.DEGRADED, seen, to_do)


_NOT_YET = degraded("No answer yet.", "Ask again in some seconds.")
_BROKEN = degraded("The check itself failed.", "Look for check.failed in the log.")


@dataclass(frozen=True, slots=True)
class Check:
    """`needed`: this process can't work without it. `counts`: whether a finding may be kept, or taken from memory, now."""

    name: str
    look: Callable[[], Finding]
    seconds: float  # for which a finding is kept
    needed: bool = False
    counts: Callable[[], bool] = lambda: True


class KeptCheck:
    """A check and its last finding. Safe to share among threads and greenlets."""

    def __init__(self, check: Check) -> None:
        self.check = check
        self._lock = threading.Lock()
        self._looking: Future[Finding] | None = None
        self._last: Finding | None = None
        self._until = 0.0

    def finding(self, patience: float | None = None) -> Finding:
        """The kept finding, or a fresh one. After `patience` seconds of waiting (None: no limit) the previous finding."""
        with self._lock:
            if self._looking is None:
                if self._last and time.monotonic() < self._until and self.check.counts():
                    return self._last
                self._looking = beside(self._look)
            looking = self._looking
        try:
            return looking.result(timeout=patience)
        except FutureTimeoutError:
            return self._last or _NOT_YET

    def _look(self) -> Finding:
        try:
            found = self.check.look()
        except Exception as error:  # noqa: BLE001  the finding of a failed check is kept as well, or each request would repeat it
            _log.error("check.failed", check=self.check.name, exc_info=error)
            found = _BROKEN
        kept = self.check.seconds if self.check.counts() else 0.0
        with self._lock:
            self._last, self._until, self._looking = found, time.monotonic() + kept, None
        return found
