"""Prometheus metrics of the whole fleet, which each background worker exports.

They are read from the database, at most twice a minute. All background workers export the same
numbers: a dashboard takes the highest.
"""

import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import case, func, select

from app.clock import now
from app.errors import StoreUnavailableError
from app.services import Services
from app.store.database import Session
from app.store.models import Connection, ConnectionStatus

_KEPT = 30.0  # seconds
_PAST_HALF = "Share of verified connections whose proof is past half of PROOF_MAX_AGE."


class FleetMetrics(Collector):
    def __init__(self, services: Services) -> None:
        self._services = services
        self._found: list[GaugeMetricFamily] = []
        self._until = 0.0

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the metrics, or none while the database is unavailable."""
        if time.monotonic() >= self._until:
            try:
                self._found = self._read()
            except StoreUnavailableError:
                return []
            self._until = time.monotonic() + _KEPT
        return self._found

    def _read(self) -> list[GaugeMetricFamily]:
        at, half = now(), timedelta(seconds=self._services.config.proofs.proof_max_age / 2)
        with self._services.db.read(long=True) as db:
            age = _proof_ages(db, at - half)
        queue = self._services.proof_queue
        due = GaugeMetricFamily(
            "deputy_due", "Connections that are due for a proof.", labels=["lane"]
        )
        for lane, number in queue.backlog().items():
            due.add_metric([lane], number)
        longest, past_half = _since(queue.oldest_due(), at), age.past_half / max(1, age.verified)
        return [
            due,
            _gauge(
                "due_oldest_seconds", "For how long the longest due connection is due.", longest
            ),
            _gauge("verified_connections", "Verified connections.", age.verified),
            _gauge(
                "proof_oldest_seconds",
                "Age of the oldest proof of a verified connection.",
                _since(age.oldest, at),
            ),
            _gauge("proofs_past_half_shelf_life_ratio", _PAST_HALF, past_half),
        ]


class _ProofAges(NamedTuple):
    """The numbers of verified connections and of proofs past half their shelf life.

    `oldest`: the time of the oldest proof.
    """

    verified: int
    past_half: int
    oldest: datetime | None


def _proof_ages(db: Session, half: datetime) -> _ProofAges:
    """Count the verified connections, and read the ages of their proofs.

    `half`: the time of half a shelf life ago.
    """
    counts = select(
        func.count(),
        func.count(case((Connection.verified_at < half, Connection.id))),
        func.min(Connection.verified_at),
    ).where(Connection.status == ConnectionStatus.VERIFIED)
    return _ProofAges(*db.execute(counts).one())


def _gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"deputy_{name}", words, value=value)


def _since(then: datetime | None, at: datetime) -> float:
    return 0.0 if then is None else max(0.0, (at - then).total_seconds())
