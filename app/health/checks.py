"""Health checks: named questions about the deployment's state.

A check never runs twice at the same time. A finding is kept for some seconds, because readiness is
public, and anybody could use up our calls to AWS and the database. Requests that arrive while a
check runs wait for its finding.
"""

import enum
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from app.concurrency.single_flight import SingleFlight
from app.errors import StoreUnavailableError
from app.log import logger


class Status(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class HealthFinding(NamedTuple):
    """The result of a check.

    `seen` says in numbers and words what was observed. `next` says what to do, and is empty if
    there is nothing to do.
    """

    status: Status
    seen: str
    next: str = ""


ok = partial(HealthFinding, Status.OK)
# Something is wrong, but Deputy still works, at least for some time.
warning = partial(HealthFinding, Status.WARNING)
# A part of Deputy's service does not work.
failed = partial(HealthFinding, Status.FAILED)
# The check is not configured, or another check comes first.
skipped = partial(HealthFinding, Status.SKIPPED)

_NOT_YET = warning("No answer yet.", "Ask again in some seconds.")
_BROKEN = failed("The check itself failed.", "Look for check.failed in the log.")


@dataclass
class HealthCheck:
    """A check and its last finding. Safe to share among threads and greenlets."""

    name: str
    _look: Callable[[], HealthFinding]
    after: str = ""  # names of checks that must succeed before this one is useful
    seconds: float = 5.0  # how long a finding is kept
    needed: bool = False  # this process can't work while the check fails
    counts: Callable[[], bool] = lambda: True  # whether a finding may be kept or reused now

    def __post_init__(self) -> None:
        self._looks: SingleFlight[str, HealthFinding] = SingleFlight()
        self._last = (_NOT_YET, 0.0)  # the last finding, and the time until which it is kept

    def finding(self, patience: float | None = None) -> HealthFinding:
        """Return the kept finding, or a new one.

        After `patience` seconds (None: no timeout) return the previous finding.
        """
        if kept := self._kept():
            return kept
        look, _ = self._looks.join(self.name, lambda: self._kept() or self._look_again())
        try:
            return look.result(timeout=patience)
        except FutureTimeoutError:
            return self._last[0]

    def _kept(self) -> HealthFinding | None:
        finding, until = self._last
        return finding if time.monotonic() < until and self.counts() else None

    def _look_again(self) -> HealthFinding:
        try:
            finding = self._look()
        except StoreUnavailableError:
            finding = skipped("The database does not answer.")
        except Exception as error:  # noqa: BLE001
            # A bug in a check is kept as a finding too. Otherwise each request would repeat it.
            logger.error("check.failed", check=self.name, exc_info=error)
            finding = _BROKEN
        until = time.monotonic()
        if self.counts():
            until += self.seconds
        self._last = finding, until
        return finding
