"""gunicorn's settings for the service: `gunicorn wsgi:app`. Flags on the command line win."""

import multiprocessing

bind = "0.0.0.0:8000"
workers = multiprocessing.cpu_count()
worker_class = "gthread"
threads = 16  # a verification waits on AWS for some seconds; the others go on meanwhile
timeout = 60
graceful_timeout = 20
keepalive = (
    65  # longer than a load balancer's 60 s, so that it is never us who closes an idle connection first
)
control_socket_disable = True
accesslog = None  # the application writes its own line for each request, with the route and never the path
