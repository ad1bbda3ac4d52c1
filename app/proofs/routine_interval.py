"""How often connections are proven, within the budget of calls to STS."""

import threading
import time

from sqlalchemy import func, select

from app.config import Config, ProofConfig
from app.limits.limits import ROUTINE_SHARE
from app.log import logger
from app.store.database import Database
from app.store.models import IN_ROUTINE, Connection
from app.store.models.proof_schedule import Interval

_COUNTED_EVERY = 60.0  # seconds between two counts of the connections


class RoutineInterval:
    """Computes the interval from the number of connections, counted once a minute.

    Safe to share among threads.
    """

    def __init__(self, db: Database, config: Config) -> None:
        self._db = db
        self._proofs_a_second = routine_proofs_a_second(config.proofs)
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
        self._until = time.monotonic() + _COUNTED_EVERY


def proofs_a_second(config: ProofConfig) -> int:
    """Return the number of proofs per second that the STS budget allows.

    A proof makes five calls to STS, or six if a stranger is configured. Few proofs make one more
    call.
    """
    return max(1, config.sts_budget // (6 if config.stranger_role_arn else 5))


def routine_proofs_a_second(config: ProofConfig) -> float:
    """Return the number of routine proofs per second that their share of the STS budget allows.

    A routine proof makes three calls to STS, or four if a stranger is configured. The added 0.3
    allows for routine proofs that need a full proof.
    """
    return config.sts_budget * ROUTINE_SHARE / (4.3 if config.stranger_role_arn else 3.3)
