"""The states of a connection: what each verdict makes of each of them."""

import itertools

import pytest

from app.store.models.states import ConnectionStatus, Verdict, after_proof

# What a proof makes of: pending, verified, broken, insecure, ended. Suspended and deleted stay,
# whatever it found.
STATUSES = ("pending", "verified", "broken", "insecure", "ended")
AFTER = {
    ("proven", "approved"): ("verified",) * 5,
    ("proven", "not approved"): ("pending",) * 5,
    ("insecure", "before the end"): ("insecure",) * 5,
    ("insecure", "after the end"): ("insecure",) * 5,
    ("unassumable", "before the end"): ("pending", "broken", "broken", "broken", "broken"),
    ("unassumable", "after the end"): ("ended",) * 5,
    ("inconclusive", "before the end"): STATUSES,
    ("inconclusive", "after the end"): STATUSES,
}


@pytest.mark.parametrize(("ended", "approved"), [*itertools.product((False, True), repeat=2)])
@pytest.mark.parametrize("verdict", Verdict)
def test_a_verdict_moves_each_status_as_the_table_says(
    verdict: Verdict, ended: bool, approved: bool
):
    circumstance = (
        ("approved" if approved else "not approved")
        if verdict is Verdict.PROVEN
        else ("after the end" if ended else "before the end")
    )
    found = [
        after_proof(ConnectionStatus(one), verdict, ended=ended, approved=approved)
        for one in STATUSES
    ]
    assert tuple(found) == AFTER[verdict.value, circumstance]
    for stopped in (ConnectionStatus.SUSPENDED, ConnectionStatus.DELETED):
        assert after_proof(stopped, verdict, ended=ended, approved=approved) is stopped
