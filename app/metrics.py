"""The metrics for Prometheus, and the server for them at METRICS_BIND.

Every label has a fixed set of values, so no label contains a tenant, a role or a key. Web processes
share files for their counts (gunicorn.conf.py), so Prometheus reads the sums over all web
processes. A background worker serves its own counts. The count of `deputy_issue_seconds` is also
the number of issued credentials.
"""

from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)
_HOURS = (900, 1800, 3600, 5400, 7200, 14_400, 28_800, 86_400, 259_200)  # in seconds

_issue = Histogram("deputy_issue_seconds", "Time to issue credentials.", ["source"], buckets=_QUICK)
ISSUE_SECONDS = {"sts": _issue.labels("sts"), "cache": _issue.labels("cache")}
REQUEST_SECONDS = Histogram(
    "deputy_request_seconds", "Time of other requests.", ["route"], buckets=_QUICK
)
REFUSALS = Counter("deputy_refusals", "Requests that were refused, or that failed.", ["code"])
CACHE = Counter("deputy_session_cache", "Where sessions were found.", ["found"])
AWS_CALLS = Counter("deputy_aws_calls", "Calls to AWS, each attempt.", ["action", "outcome"])
WEBHOOK_ATTEMPTS = Counter("deputy_webhook_attempts", "Attempts to deliver.", ["outcome"])
PROOFS = Counter("deputy_proofs", "Proofs.", ["verdict", "trigger"])
_EXPOSED = "For how long a role that is not as proven may have been so, until that was found."
DRIFT = Histogram("deputy_drift_exposed_seconds", _EXPOSED, ["status"], buckets=_HOURS)
# The series must exist with 0: Prometheus sees no increase if a series begins with its first count
DRIFT.labels("broken")
DRIFT.labels("insecure")
POOL_WAIT = Histogram(
    "deputy_pool_wait_seconds", "Time to get a connection to the database.", buckets=_QUICK
)


def address(text: str) -> tuple[str, int]:
    """Accept `host:port`.

    An IPv6 address must be in brackets. Raises ValueError for any other text.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("must be an address and a port, such as 127.0.0.1:9090.")
    return host.strip("[]"), int(port)


def serve(
    bind: tuple[str, int], more: Collector | None = None, *, shared: bool = False
) -> Callable[[], None]:
    """Serve the metrics on a thread, and return a function that stops the server.

    `more`: a collector whose metrics are served too. `shared`: serve the metrics of all processes
    that share PROMETHEUS_MULTIPROC_DIR, instead of this process's. Raises OSError when the address
    can't be used.
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
