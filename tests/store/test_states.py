"""The states of a connection: what each verdict makes of each of them."""

import pytest

from app.store.models.states import ConnectionStatus, Verdict, after_proof

STATUSES = ("pending", "verified", "broken", "insecure", "ended")
BEFORE_THE_END, AFTER_THE_END = {"ended": False}, {"ended": True}
# What a proof makes of each status: the verdict, what is so, and the statuses in their order
TABLE = [
    (Verdict.PROVEN, BEFORE_THE_END, True, ("verified",) * 5),
    (Verdict.PROVEN, AFTER_THE_END, True, ("verified",) * 5),
    (Verdict.PROVEN, BEFORE_THE_END, False, ("pending",) * 5),
    (Verdict.INSECURE, BEFORE_THE_END, True, ("insecure",) * 5),
    (Verdict.INSECURE, AFTER_THE_END, False, ("insecure",) * 5),
    (Verdict.UNASSUMABLE, BEFORE_THE_END, True, ("pending", *["broken"] * 4)),
    (Verdict.UNASSUMABLE, BEFORE_THE_END, False, ("pending", *["broken"] * 4)),
    (Verdict.UNASSUMABLE, AFTER_THE_END, True, ("ended",) * 5),
    (Verdict.INCONCLUSIVE, BEFORE_THE_END, True, STATUSES),
    (Verdict.INCONCLUSIVE, AFTER_THE_END, False, STATUSES),
]


@pytest.mark.parametrize(("verdict", "end", "approved", "after"), TABLE)
def test_a_verdict_moves_each_status_as_the_table_says(verdict, end, approved, after):
    """Suspended and deleted ones stay, whatever a proof found."""
    statuses = (*STATUSES, "suspended", "deleted")
    moved = [
        after_proof(ConnectionStatus(it), verdict, approved=approved, **end) for it in statuses
    ]
    assert moved == [*after, "suspended", "deleted"]
