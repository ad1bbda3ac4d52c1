"""What the page says of how often a role was proven."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from app.clock import now
from app.store.models import Proof, Verdict
from app.web.onboarding.progress import _ago, _proven

FIRST = datetime(2030, 3, 4, 5, 6, 7, tzinfo=UTC)


def said(verdict: Verdict = Verdict.PROVEN, **of_proof) -> str:
    given = {"count": 1, "first_at": FIRST, "checked_at": now()} | of_proof
    return _proven(SimpleNamespace(proof=Proof(verdict=verdict, **given)))


def test_it_says_how_often_since_when_and_when_last():
    an_hour_ago = now() - timedelta(hours=1, minutes=3)
    assert said() == "All checks passed. Proven just now."
    assert said(count=25, checked_at=an_hour_ago) == (
        "All checks passed. Proven 25 times since 4 March 2030, last 1 hour ago."
    )
    assert said(Verdict.INCONCLUSIVE, count=3) == "All checks passed."


@pytest.mark.parametrize(
    ("passed", "words"),
    [
        (-5, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (7199, "1 hour ago"),
        (7200, "2 hours ago"),
        (200_000, "2 days ago"),
    ],
)
def test_the_time_that_has_passed_in_words(passed, words):
    assert _ago(now() - timedelta(seconds=passed, milliseconds=500)) == words
