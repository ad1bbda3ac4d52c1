"""What the tests of the API over several processes share."""

from collections.abc import Callable

import pytest

from tests.support.cast import Api


@pytest.fixture
def start_api(start, valkey, admin) -> Callable[..., Api]:
    """`start_api(…)`: one more process of the service, with the same Valkey; the admin's API
    there.
    """
    valkey.revive()
    return lambda **settings: Api(start({}, cache_url=valkey.url, **settings), admin.key)
