"""Prometheus metrics of the whole deployment, which each background worker exports.

They are read from the database, at most twice a minute. All background workers export the same
numbers, so a dashboard takes the highest.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from threading import Lock

from cachetools import TTLCache, cached
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import case, func, select

from app.clock import now, seconds_between
from app.errors import StoreUnavailableError
from app.services import Services
from app.store.models import Connection, ConnectionStatus, Tenant, TenantStatus
from app.webhooks import retention

_KEPT = 30.0  # seconds between two reads


class DeploymentMetrics(Collector):
    def __init__(self, services: Services) -> None:
        self._read = cached(TTLCache(1, _KEPT), lock=Lock())(partial(_read, services))

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the metrics, or none while the database is unavailable."""
        try:
            return self._read()
        except StoreUnavailableError:
            return []


def _read(services: Services) -> list[GaugeMetricFamily]:
    read_at = now()
    half = read_at - timedelta(seconds=services.config.proofs.proof_max_age / 2)
    proof_ages = select(
        func.count(),
        func.count(case((Connection.verified_at < half, Connection.id))),
        func.min(Connection.verified_at),
    ).where(
        Connection.status == ConnectionStatus.VERIFIED,
        Connection.tenant.has(Tenant.status == TenantStatus.ACTIVE),  # others are not proven
    )
    with services.db.read() as db:
        verified, past_half, oldest = db.execute(proof_ages).one()
    queue = services.proof_queue
    due = GaugeMetricFamily("deputy_due", "Connections that are due for a proof.", labels=["lane"])
    for urgency, number in queue.backlog().items():
        due.add_metric([urgency], number)
    return [
        due,
        *_of_webhooks(services, read_at),
        GaugeMetricFamily(
            "deputy_due_oldest_seconds",
            "For how long the longest due connection is due.",
            seconds_between(queue.oldest_due(), read_at),
        ),
        GaugeMetricFamily(
            "deputy_verified_connections", "Verified connections of active tenants.", verified
        ),
        GaugeMetricFamily(
            "deputy_proof_oldest_seconds",
            "Age of the oldest proof of a verified connection.",
            seconds_between(oldest, read_at),
        ),
        GaugeMetricFamily(
            "deputy_proofs_past_half_shelf_life_ratio",
            "Share of verified connections whose proof is past half of DEPUTY_PROOF_MAX_AGE.",
            past_half / max(1, verified),
        ),
    ]


def _of_webhooks(services: Services, read_at: datetime) -> list[GaugeMetricFamily]:
    return [
        GaugeMetricFamily(
            "deputy_webhook_due_oldest_seconds",
            "For how long the longest due webhook endpoint of the vendor's is due.",
            seconds_between(services.deliveries.oldest_due(), read_at),
        ),
        GaugeMetricFamily(
            "deputy_webhook_endpoints_disabled",
            "Webhook endpoints of the vendor's that Deputy disabled.",
            len(retention.stopped(services.db)),
        ),
    ]
