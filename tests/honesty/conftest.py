"""One deployment for each database, which the tests of this folder share; a test that breaks one
has its own.
"""

from collections.abc import Iterator

import pytest

from tests.honesty.deployment import Deployment
from tests.honesty.front import Aws
from tests.support.databases import new_database


@pytest.fixture(scope="package")
def front() -> Iterator[Aws]:
    with Aws() as front:
        yield front


def _deployed(engine: str, front: Aws, folders: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = folders.mktemp(engine)
    with new_database(engine) as url, Deployment(folder, url, front, BODY_SECONDS="30") as service:
        yield service


@pytest.fixture(scope="package")
def on_sqlite(front: Aws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    yield from _deployed("sqlite", front, tmp_path_factory)


@pytest.fixture(scope="package")
def on_postgresql(front: Aws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    yield from _deployed("postgresql", front, tmp_path_factory)


@pytest.fixture(params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest) -> Deployment:
    deployment: Deployment = request.getfixturevalue(f"on_{request.param}")
    deployment.admin.close()  # it connects again: an earlier test may have killed its web process
    return deployment
