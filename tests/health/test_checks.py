"""A check is asked once at a time, however many ask, and its finding is kept for as long as it
says.
"""

import threading
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from app.health.checks import Health, HealthCheck, Status, ok
from tests.support.rows import at_once
from tests.support.waiting import until


class Slow:
    """Looks that take until they are let go, and are counted."""

    def __init__(self):
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
    check, asked = HealthCheck("slow", slow, seconds=60), []

    def ask():
        asked.append(1)
        if len(asked) == 50:
            slow.go.set()
        return check.finding()

    assert {finding.seen for finding in at_once([ask] * 50)} == {"look 1"}


def test_a_finding_is_kept_for_its_seconds_and_then_looked_for_again(slow, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("app.health.checks.time.monotonic", lambda: clock[0])
    slow.go.set()
    check = HealthCheck("slow", slow, seconds=5)
    for clock[0], look in ((100.0, 1), (104.9, 1), (105.0, 2), (109.9, 2)):
        assert check.finding().seen == f"look {look}"


def test_a_finding_that_no_longer_counts_is_looked_for_again(slow):
    slow.go.set()
    counts = [True]
    check = HealthCheck("slow", slow, seconds=60, counts=lambda: counts[0])
    assert check.finding().seen == check.finding().seen == "look 1"
    counts[0] = False
    assert check.finding().seen == "look 2"
    counts[0] = True
    assert check.finding().seen == "look 3", "nor is one kept from that time"
    assert check.finding().seen == "look 3"


def test_a_check_that_is_needed_and_hangs_has_failed(slow):
    """A frozen database would hold the answer of /readyz, and the process would stay in use."""
    check = HealthCheck("slow", slow, needed=True)
    assert check.finding(patience=0.0).status is Status.FAILED
    slow.go.set()
    until(lambda: check.finding(patience=0.0).status is Status.OK)


def test_of_needed_checks_the_one_that_hangs_is_named_and_not_those_behind_it(slow, monkeypatch):
    monkeypatch.setattr("app.health.checks._PATIENCE_FOR_NEEDED", 0.1)
    checks = [HealthCheck(name, slow, needed=True) for name in ("first", "second")]
    assert [*Health([], checks).missing()] == ["first"]
    slow.go.set()
    until(lambda: Health([], checks).missing() == {})


def test_who_has_no_patience_is_told_what_was_found_before(slow):
    check = HealthCheck("slow", slow, seconds=0)
    assert check.finding(patience=0.0).status is Status.WARNING
    slow.go.set()
    until(lambda: check.finding(patience=0.0).seen.startswith("look"))
    slow.go.clear()
    assert check.finding(patience=0.0).seen.startswith("look")
    before = slow.looks
    assert [check.finding(patience=0.0).status for _ in range(20)] == [Status.OK] * 20
    assert slow.looks <= before + 1, "and begins no second look"


def test_a_check_with_a_bug_has_failed_and_is_not_asked_again_at_once():
    looks = []

    def look():
        looks.append(1)
        raise ValueError("a bug")

    check = HealthCheck("broken", look, seconds=60)
    with capture_logs() as logged:
        assert {check.finding().status for _ in range(3)} == {Status.FAILED}
    assert len(looks) == 1
    assert [(line["event"], line["check"]) for line in logged] == [("check.failed", "broken")]
