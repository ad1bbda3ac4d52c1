"""The services of one process, with a database that no other test uses."""

from contextlib import contextmanager

from app.services import Services
from tests.conftest import make_config
from tests.support.databases import new_database


@contextmanager
def own_services(**settings):
    with new_database() as url:
        services = Services(make_config(url, **settings))
        try:
            yield services
        finally:
            services.db.engine.dispose()
