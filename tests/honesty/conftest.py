"""A deployment and one with a shared cache, which the tests of this folder
share; a test that breaks one has its own.
"""

from collections.abc import Iterator

import pytest

from tests.honesty.deployment import Deployment
from tests.honesty.front import Aws
from tests.support.databases import new_database
from tests.support.valkey import Valkey

ISSUE_RATE = 60  # a second and key, where processes share a cache


@pytest.fixture(scope="package")
def front() -> Iterator[Aws]:
    with Aws() as front:
        yield front


@pytest.fixture(scope="package")
def deployment(front, tmp_path_factory) -> Iterator[Deployment]:
    settings = {
        "BODY_SECONDS": "30",
        "PUBLIC_URL": "https://deputy.example.com",
        "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    }
    folder = tmp_path_factory.mktemp("deployment")
    with new_database() as url, Deployment(folder, url, front, **settings) as service:
        yield service


@pytest.fixture
def service(deployment) -> Deployment:
    deployment.admin.close()  # it connects again: an earlier test may have killed its web process
    return deployment


@pytest.fixture(scope="package")
def with_valkey(front, tmp_path_factory) -> Iterator[tuple[Deployment, Valkey]]:
    valkey, folder = Valkey(), tmp_path_factory.mktemp("valkey")
    rate = str(ISSUE_RATE)
    with (
        new_database() as url,
        Deployment(folder, url, front, CACHE_URL=valkey.url, ISSUE_RATE=rate) as service,
    ):
        yield service, valkey
    valkey.kill()


@pytest.fixture
def valkey(with_valkey) -> Valkey:
    """The shared cache of `sharing`. An earlier test may have killed it."""
    with_valkey[1].revive()
    return with_valkey[1]


@pytest.fixture
def sharing(with_valkey, valkey) -> Deployment:
    """A deployment whose processes share a real Valkey."""
    with_valkey[0].admin.close()
    return with_valkey[0]
