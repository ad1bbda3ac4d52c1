"""Checks: small questions about the deployment's state, each with a name, asked once at a time for however many ask.

A check's finding is kept for some seconds. Readiness is public, and without that anybody could use up our calls to AWS
and the database's. Whoever asks while a check is under way waits for that very answer.
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
    """One question.

    `needed`: without it this process can do no work. `counts`: whether a finding may be kept now, and a kept one believed.
    """

    name: str
    look: Callable[[], Finding]
    seconds: float  # that a finding is kept
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
        """What was found lately, or is found now. After `patience` seconds (None: at the end) what was found before."""
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
        except Exception as error:  # noqa: BLE001  a bug of ours must not be asked for again and again either
            _log.error("check.failed", check=self.check.name, exc_info=error)
            found = _BROKEN
        kept = self.check.seconds if self.check.counts() else 0.0
        with self._lock:
            self._last, self._until, self._looking = found, time.monotonic() + kept, None
        return found
