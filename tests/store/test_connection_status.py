"""The states of a connection: what each verdict makes of each of them."""

import pytest

from app.store.models.connection_status import ConnectionStatus, after_proof
from app.store.models.proof import Verdict

STATUSES = ("pending", "verified", "broken", "insecure", "ended")
# What a proof makes of each status: the verdict, whether the access has ended, whether the
# permission set is approved, and the statuses in their order
TABLE = [
    (Verdict.PROVEN, False, True, ("verified",) * 5),
    (Verdict.PROVEN, True, True, ("verified",) * 5),
    (Verdict.PROVEN, False, False, ("pending",) * 5),
    (Verdict.INSECURE, False, True, ("insecure",) * 5),
    (Verdict.INSECURE, True, False, ("insecure",) * 5),
    (Verdict.UNASSUMABLE, False, True, ("pending", *["broken"] * 4)),
    (Verdict.UNASSUMABLE, False, False, ("pending", *["broken"] * 4)),
    (Verdict.UNASSUMABLE, True, True, ("ended",) * 5),
    (Verdict.INCONCLUSIVE, False, True, STATUSES),
    (Verdict.INCONCLUSIVE, True, False, STATUSES),
]


@pytest.mark.parametrize(("verdict", "ended", "approved", "after"), TABLE)
def test_a_verdict_moves_each_status_as_the_table_says(verdict, ended, approved, after):
    """Suspended and deleted ones stay, whatever a proof found."""
    statuses = (*STATUSES, "suspended", "deleted")
    moved = [
        after_proof(ConnectionStatus(it), verdict, ended=ended, approved=approved)
        for it in statuses
    ]
    assert moved == [*after, "suspended", "deleted"]
