"""What the tests of the API over several processes share."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from app.factory import create_app
from tests.conftest import make_config
from tests.support.cast import Api


@pytest.fixture
def start_api(vendor, config, valkey, admin) -> Iterator[Callable[..., Api]]:
    """`start_api(…)`: one more process of the service, with the same Valkey; the admin's API
    there.
    """
    valkey.revive()
    with ExitStack() as ends:

        def begin(**settings):
            app = create_app(
                make_config(config.database.database_url, cache_url=valkey.url, **settings)
            )
            app.testing = False
            services = app.extensions["deputy"]
            ends.callback(services.db.engine.dispose)
            ends.callback(services.issuer._sessions._shared.client.close)
            return Api(app, admin.key)

        yield begin
