"""A pytest plugin: the fixtures that tests of several folders share.

A folder whose tests are all `impatient` overrides that fixture in its conftest.py, with `autouse`;
a file names it in its `pytestmark`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.outbound import addresses
from app.store.database import Database
from tests.support.databases import new_database
from tests.support.rows import ByHand
from tests.support.valkey import Valkey


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """A file's own. Revive it first if a test of the file may have killed it."""
    server = Valkey()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def database(database_url) -> Iterator[Database]:
    """An engine of the file's own, on the database that all tests share."""
    with _opened(database_url) as made:
        yield made


@pytest.fixture(scope="module")
def by_hand(database_url) -> ByHand:
    """A SQL prompt on the database that all tests share."""
    return ByHand(database_url)


@pytest.fixture
def own_database() -> Iterator[Database]:
    """The test's own: it holds only what the test wrote."""
    with new_database() as url, _opened(url) as made:
        yield made


@pytest.fixture
def impatient(monkeypatch) -> None:
    """A role that refuses its own External ID is not tried again, and a call that failed is
    tried again at once.
    """
    monkeypatch.setattr("app.connections.connections.PATIENCE", 0.0)
    monkeypatch.setattr("app.aws.query_api.PAUSE", 0)


@contextmanager
def _opened(url):
    made = Database(url)
    yield made
    made.engine.dispose()


@pytest.fixture
def names(monkeypatch) -> dict[str, list[str]]:
    """The addresses of names on the internet, which a test may change. This machine knows none."""
    answers = {f"{name}.example.com": ["93.184.215.14"] for name in ("app", "other")}

    def resolve_name(name, port):
        if name not in answers:
            raise OSError
        return [(None, None, None, "", (address, port)) for address in answers[name]]

    monkeypatch.setattr(addresses, "resolve_name", resolve_name)
    return answers
