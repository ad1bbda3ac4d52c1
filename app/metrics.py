"""Metrics for Prometheus: what each process counts, and the address where they can be read
(METRICS_BIND).

No label holds a tenant, a role or a key: each has a fixed set of values. In web processes the
counts are in files that all of them share (gunicorn.conf.py), so they are of all web processes
together; a background worker counts for itself. The numbers of `deputy_issue_seconds` are also the
number of credentials that were issued.
"""

from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)
_HOURS = tuple(hours * 3600 for hours in (0.25, 0.5, 1, 1.5, 2, 4, 8, 24, 72))

_issue = Histogram("deputy_issue_seconds", "Time to issue credentials.", ["source"], buckets=_QUICK)
ISSUE_SECONDS = {source: _issue.labels(source) for source in ("sts", "cache")}
REQUEST_SECONDS = Histogram(
    "deputy_request_seconds", "Time of other requests.", ["route"], buckets=_QUICK
)
REFUSALS = Counter("deputy_refusals", "Requests that were refused, or that failed.", ["code"])
CACHE = Counter("deputy_session_cache", "Where sessions were found.", ["found"])
AWS_CALLS = Counter("deputy_aws_calls", "Calls to AWS, each attempt.", ["action", "outcome"])
PROOFS = Counter("deputy_proofs", "Proofs.", ["verdict", "trigger"])
_EXPOSED = "For how long a role that is not as proven may have been so, until that was found."
DRIFT = Histogram("deputy_drift_exposed_seconds", _EXPOSED, ["status"], buckets=_HOURS)
for _status in (
    "broken",
    "insecure",
):  # Prometheus sees no increase in a series that begins with its first count
    DRIFT.labels(_status)
_HELD = (
    "Time for which a transaction held the lock for writing to SQLite; without those of the audit"
    " log's batch."
)
WRITE_LOCK_SECONDS = Histogram("deputy_write_lock_seconds", _HELD, buckets=_QUICK)
POOL_WAIT = Histogram(
    "deputy_pool_wait_seconds", "Time to get a connection to the database.", buckets=_QUICK
)


def address(text: str) -> tuple[str, int]:
    """Accept `host:port`.

    An IPv6 address is in brackets. Raises ValueError.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("must be an address and a port, such as 127.0.0.1:9090.")
    return host.strip("[]"), int(port)


def serve(
    bind: tuple[str, int], more: Collector | None = None, *, shared: bool = False
) -> Callable[[], None]:
    """Serve the metrics, and those that `more` collects, on a thread. Returns what ends that.

    `shared`: of all processes that share PROMETHEUS_MULTIPROC_DIR, instead of this one. Raises
    OSError when the address can't be used.
    """
    registry = CollectorRegistry()
    if shared:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(REGISTRY)
    if more is not None:
        registry.register(more)
    server, thread = start_http_server(bind[1], bind[0], registry)

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end
