"""gunicorn's settings for the service. Flags on the command line override them.

Run `gunicorn wsgi:app`. A web process (gunicorn's worker) serves each request on a greenlet. So a
request that waits for AWS, the database or a shared commit does not delay others.

gevent must patch the standard library before anything imports it. gunicorn has it patched when a
web process starts, and then loads wsgi.py. So do not preload, and do not import the service in this
file.
"""

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from typing import Any

bind = "0.0.0.0:8000"
workers = multiprocessing.cpu_count()
worker_class = "app.http.sockets.WebProcess"  # gevent's worker class, with limits for slow clients
# For each web process, which serves fewer requests at once (app/http/sockets.py)
worker_connections = 2000
preload_app = False
timeout = 60
graceful_timeout = 20
# Bytes: a proxy may forward a client's certificate. All fields together may have 32 KiB.
limit_request_field_size = 16_384
# longer than a load balancer's 60 s, so that the load balancer closes idle connections first
keepalive = 65
control_socket_disable = True
# By default gunicorn takes SCRIPT_NAME from a header of a proxy on this machine. gunicorn then
# strips it from every path, and answers 500 to a path that does not begin with it. Only
# DEPUTY_PUBLIC_URL sets the service's address.
forwarder_headers = ""
accesslog = None  # the application logs each request, with the route instead of the path


def on_starting(_server: Any) -> None:
    """Serve the metrics of all web processes from the first process, which serves no requests.

    prometheus-client looks for PROMETHEUS_MULTIPROC_DIR when it is imported, so the import is
    lazy. app/metrics.py imports no other module of the service.
    """
    # gunicorn reads this file before the service reads its settings
    environ = os.environ  # noqa: TID251
    if not (bind := environ.get("DEPUTY_METRICS_BIND")):
        return
    # The counts are mapped files: on a disk that is full, SIGBUS would kill every web process. So
    # they are in memory, where the system offers that.
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
    environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="deputy-metrics-", dir=shared)
    from app import metrics  # noqa: PLC0415

    # The web processes of a killed gunicorn keep the address until they notice. So retry, as
    # gunicorn does with its own address.
    tries = 5
    while True:
        tries -= 1
        try:
            metrics.serve(metrics.address(bind), shared=True)
        except (ValueError, OSError) as error:
            if isinstance(error, ValueError) or not tries:
                sys.exit(f"DEPUTY_METRICS_BIND={bind} can't be used: {error}")
            time.sleep(1)
        else:
            return


def on_reload(server: Any) -> None:
    """Import the service's modules again at SIGHUP, as they may be those of a new release.

    The first process imports `worker_class` and the metrics, and web processes inherit what it has
    imported. prometheus-client refuses to register the metrics of the same client twice.
    """
    for name in [*sys.modules]:
        if name.partition(".")[0] in {"app", "prometheus_client"}:
            del sys.modules[name]
    server.worker_class = server.cfg.worker_class


def post_worker_init(_worker: Any) -> None:
    """Log the release that a web process runs.

    gunicorn calls this after it has loaded the service and set up the log.
    """
    from app import VERSION  # noqa: PLC0415
    from app.log import logger  # noqa: PLC0415

    logger.info("process.started", kind="web", version=VERSION)


def on_exit(_server: Any) -> None:
    """Remove the folder of the metrics' counts.

    Its path is in the environment, because gunicorn reads this file again after each SIGHUP.
    """
    environ = os.environ  # noqa: TID251
    if environ.get("DEPUTY_METRICS_BIND"):
        shutil.rmtree(environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
