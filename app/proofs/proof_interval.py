"""The interval at which a connection is proven.

It is REPROVE_EVERY, or longer if the share of the STS budget for routine proofs does not suffice.
"""

import threading
import time

from sqlalchemy import func, select

from app.config import Config
from app.log import logger
from app.store.database import Database
from app.store.models import IN_ROUTINE, Connection
from app.store.models.proof_schedule import Interval

_KEPT = 60.0  # seconds between two counts of the connections


class ProofInterval:
    """Computes the interval from the number of connections, counted once a minute.

    Safe to share among threads.
    """

    def __init__(self, db: Database, config: Config) -> None:
        self._db = db
        self._proofs_a_second = config.proofs.routine_proofs_a_second
        self._interval = Interval(config.proofs.reprove_every, config.proofs.reprove_every)
        self._until = 0.0
        self._counting = threading.Lock()

    def current(self) -> Interval:
        """Return the current interval. Raises StoreUnavailableError.

        It reads the database, so call it outside of transactions.
        """
        with self._counting:
            if time.monotonic() >= self._until:
                self._count()
            return self._interval

    def _count(self) -> None:
        routine = select(func.count()).where(IN_ROUTINE, Connection.due_at.is_not(None))
        with self._db.read(long=True) as db:
            connections = db.scalar(routine) or 0
        before = self._interval
        interval = Interval.for_connections(before.configured, connections, self._proofs_a_second)
        if interval.seconds not in {before.seconds, interval.configured}:
            logger.warning(
                "proofs.slowed",
                seconds=interval.seconds,
                wanted=interval.configured,
                connections=connections,
            )
        self._interval = interval
        self._until = time.monotonic() + _KEPT
