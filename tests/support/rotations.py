"""For processes whose clock tests can't move: what a rotation waits for is moved to the past in
the database.
"""

import time
from datetime import timedelta

from sqlalchemy import update

from app.clock import now
from app.store.database import SYSTEM
from app.store.models import Connection, ExternalIdCheck

# seconds: a proof that has been claimed is begun within them, and one that a killed process left
# comes again
_PAUSE = 2.0


class PassingMinutes:
    """Call it again and again: second proofs are due now, and leases of processes that were
    killed end now.
    """

    def __init__(self, database):
        self._database = database
        self._last = 0.0

    def __call__(self):
        if time.monotonic() < self._last + _PAUSE:
            return
        ago = now() - timedelta(minutes=3)
        with self._database.write(SYSTEM) as db:
            db.execute(
                update(ExternalIdCheck)
                .where(ExternalIdCheck.accepted_at > ago)
                .values(accepted_at=ago)
            )
            db.execute(
                update(ExternalIdCheck)
                .where(ExternalIdCheck.refused_at > ago)
                .values(refused_at=ago)
            )
            db.execute(update(Connection).where(Connection.due_at > now()).values(due_at=now()))
        self._last = time.monotonic()
