"""The Celery application for background workers.

Run `celery --app celery_app worker --beat`. `flask --app wsgi worker` needs no message broker.
docs/install.md says when Celery is the better choice.
"""

import functools
import gc
import os
import sys

gc.disable()  # as in wsgi.py

from app.background.celery_app import create_celery
from app.config import Config, ConfigError
from app.services import Services, begin

try:
    config = Config.from_environment()
except ConfigError as error:
    sys.exit(f"Deputy can't start with these settings:\n{error}")
if config.database.celery_url is None:
    sys.exit("DEPUTY_CELERY_URL is not set. Without a broker, run: flask --app wsgi worker")
begin(config)
# One for each process: a connection that a fork inherits belongs to the other process
_of_process = functools.cache(lambda _pid: Services(config))
celery = create_celery(config, lambda: _of_process(os.getpid()))

gc.freeze()
gc.enable()
