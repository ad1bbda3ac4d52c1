"""What the page says of how often a role was proven."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID

import pytest

from app.access import OnBehalf
from app.audit import WORKER
from app.clock import now
from app.store.models import Proof, Trigger, Verdict
from app.web.onboarding.progress import _ago, _proven
from tests.attacks.evidence import on_sqlite
from tests.support.cast import path_of
from tests.web.conftest import Visitor

FIRST = datetime(2030, 3, 4, 5, 6, 7, tzinfo=UTC)


def said(verdict: Verdict = Verdict.PROVEN, **of_proof) -> str:
    given = {"count": 1, "first_at": FIRST, "checked_at": now()} | of_proof
    return _proven(SimpleNamespace(proof=Proof(verdict=verdict, **given)))


def test_the_page_says_how_often_since_when_and_when_last_a_role_was_proven():
    an_hour_ago = now() - timedelta(hours=1, minutes=3)
    assert said() == "All checks passed. Proven just now."
    assert said(count=25, checked_at=an_hour_ago) == (
        "All checks passed. Proven 25 times since 4 March 2030, last 1 hour ago."
    )
    assert said(Verdict.INCONCLUSIVE, count=3) == "All checks passed."


@on_sqlite
def test_the_page_counts_the_proofs_that_were_made(visitor: Visitor):
    made = visitor.world.proven(visitor.tenant)
    services, tenant_id = visitor.world.admin.app.extensions["deputy"], UUID(made["tenant_id"])
    for _ in range(3):
        services.verification.verify(
            OnBehalf(WORKER, tenant_id), tenant_id, UUID(made["id"]), trigger=Trigger.SCHEDULED
        )
    [proofs] = visitor.world.admin("GET", path_of(made, "/proofs"))["items"]
    since = datetime.fromisoformat(proofs["first_at"])
    assert proofs["count"] == 4
    assert visitor.page().select(".steps li")[-1].small.text == (
        f"All checks passed. Proven 4 times since {since.day} {since:%B %Y}, last just now."
    )


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
