"""gunicorn's settings for the service: `gunicorn wsgi:app`. Flags on the command line win.

gevent's workers serve every request on a thread of their own making, so whatever waits (AWS, the database, a commit
that others share) holds up nobody else. For that the standard library must be patched before anything imports it:
gunicorn does so when a worker starts, and only then is wsgi.py loaded. So no preloading, and nothing imported here.
"""

import gc
import multiprocessing
from typing import Any

bind = "0.0.0.0:8000"
workers = multiprocessing.cpu_count()
worker_class = "app.http.sockets.Worker"  # gevent's, with bounds on what a client may keep waiting
worker_connections = 2000  # in each worker; the requests that it works at are fewer (app/http/sockets.py)
preload_app = False
timeout = 60
graceful_timeout = 20
keepalive = 65  # longer than a load balancer's 60 s, so that it is never us who closes an idle connection first
control_socket_disable = True
# No header moves the application, not even one that a proxy on this machine hands on: gunicorn takes SCRIPT_NAME from
# there, shifts every path by it, and answers 500 when it does not fit. The service's address is DEPUTY_PUBLIC_URL.
forwarder_headers = ""
accesslog = None  # the application writes its own line for each request, with the route and never the path


def post_worker_init(_worker: Any) -> None:
    """What was loaded by now is there for good: no collection has to look through it again, while requests wait."""
    gc.collect()
    gc.freeze()
