"""A check is asked once at a time, however many ask, and its finding is kept for as long as it
says.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.health.checks import HealthCheck, KeptCheck, Status, ok
from tests.support.rows import at_once
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]


class Slow:
    """Looks that take until they are let go, and are counted."""

    def __init__(self) -> None:
        self.looks = 0
        self.go = threading.Event()

    def __call__(self):
        self.looks += 1
        assert self.go.wait(30)
        return ok(f"look {self.looks}")


@pytest.fixture
def slow() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.go.set()


def test_threads_that_ask_at_once_share_one_look(slow):
    kept = KeptCheck(HealthCheck("slow", slow, seconds=60))
    asked = [0]

    def ask():
        asked[0] += 1
        if asked[0] == 50:
            slow.go.set()
        return kept.finding()

    assert {found.seen for found in at_once([ask] * 50)} == {"look 1"}
    assert slow.looks == 1


GREENLETS = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent, threading
from app.health.checks import HealthCheck, KeptCheck, ok
looks = []
def look():
    looks.append(threading.get_ident())
    gevent.sleep(0.2)
    return ok("seen")
kept = KeptCheck(HealthCheck("slow", look, seconds=60))
greenlets = [gevent.spawn(kept.finding) for _ in range(500)]
gevent.joinall(greenlets, raise_error=True)
assert all(greenlet.value.seen == "seen" for greenlet in greenlets)
print(len(looks))
"""


def test_greenlets_that_ask_at_once_share_one_look():
    done = subprocess.run(
        [sys.executable, "-c", GREENLETS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_a_finding_is_kept_for_its_seconds_and_then_looked_for_again(slow, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("app.health.checks.time.monotonic", lambda: clock[0])
    slow.go.set()
    kept = KeptCheck(HealthCheck("slow", slow, seconds=5))
    seen = []
    for clock[0] in (100.0, 104.9, 105.0, 109.9):
        seen.append(kept.finding().seen)
    assert seen == ["look 1", "look 1", "look 2", "look 2"]


def test_a_finding_that_no_longer_counts_is_looked_for_again(slow):
    slow.go.set()
    counts = [True]
    kept = KeptCheck(HealthCheck("slow", slow, seconds=60, counts=lambda: counts[0]))
    assert kept.finding().seen == kept.finding().seen == "look 1"
    counts[0] = False
    assert kept.finding().seen == "look 2"
    counts[0] = True
    assert kept.finding().seen == "look 3", "nor is one kept from that time"
    assert kept.finding().seen == "look 3"


def test_who_has_no_patience_is_told_what_was_found_before(slow):
    kept = KeptCheck(HealthCheck("slow", slow, seconds=0))
    assert kept.finding(patience=0.0).status is Status.WARNING
    slow.go.set()
    until(lambda: kept.finding(patience=0.0).seen.startswith("look"))
    slow.go.clear()
    assert kept.finding(patience=0.0).seen.startswith("look")
    before = slow.looks
    assert [kept.finding(patience=0.0).status for _ in range(20)] == [Status.OK] * 20
    assert slow.looks <= before + 1, "and begins no second look"


def test_a_check_with_a_bug_has_failed_and_is_not_asked_again_at_once():
    looks = []

    def look():
        looks.append(1)
        raise ValueError("a bug")

    kept = KeptCheck(HealthCheck("broken", look, seconds=60))
    with capture_logs() as logged:
        assert {kept.finding().status for _ in range(3)} == {Status.FAILED}
    assert len(looks) == 1
    assert [(line["event"], line["check"]) for line in logged] == [("check.failed", "broken")]
