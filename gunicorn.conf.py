"""gunicorn's settings for the service: `gunicorn wsgi:app`. Flags on the command line win.

A web process (gunicorn's worker) serves each request on a greenlet, so a request that waits for AWS, the database or a
shared commit holds up no other. gevent must patch the standard library before anything imports it: gunicorn does so when
a web process starts, and then loads wsgi.py. So there is no preloading, and this file imports nothing of the service.
"""

import gc
import multiprocessing
from typing import Any

bind = "0.0.0.0:8000"
workers = multiprocessing.cpu_count()
worker_class = "app.http.sockets.WebProcess"  # gevent's worker with bounds on slow clients
worker_connections = 2000  # in each web process, which serves fewer requests at once: see app/http/sockets.py
preload_app = False
timeout = 60
graceful_timeout = 20
keepalive = 65  # longer than a load balancer's 60 s, so that the load balancer closes idle connections first
control_socket_disable = True
# By default gunicorn takes SCRIPT_NAME from a header of a proxy on this machine, shifts every path by it, and answers 500
# when it does not fit. The service's address is DEPUTY_PUBLIC_URL alone.
forwarder_headers = ""
accesslog = None  # the application logs each request, with the route instead of the path


def post_worker_init(_worker: Any) -> None:
    """Take what is loaded by now out of garbage collection: it stays, and scanning it would delay requests."""
    gc.collect()
    gc.freeze()
