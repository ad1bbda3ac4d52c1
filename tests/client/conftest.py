"""Deputy over HTTP, in this process."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import time_machine
from flask import Flask

from app.factory import create_app
from app.identity.scopes import ALL_SCOPES
from tests.client.people import CLIENT, CustomerAccount, Deputy, served
from tests.conftest import OPERATOR, make_config
from tests.support.cast import Api, World
from tests.support.certificates import self_signed
from tests.support.databases import new_database

sys.path.insert(0, str(CLIENT))


@pytest.fixture(scope="session")
def app(aws, vendor) -> Iterator[Flask]:
    with new_database() as url:
        application = create_app(make_config(url))
        application.testing = False
        yield application
        application.extensions["deputy"].db.engine.dispose()


@pytest.fixture(scope="session")
def admin(app) -> Api:
    create = app.extensions["deputy"].api_keys.create_key
    return Api(app, create(OPERATOR, name="tests' admin", scopes=ALL_SCOPES)[1])


@pytest.fixture(scope="session")
def world(aws, admin) -> World:
    return World(aws, admin)


@pytest.fixture
def place(world) -> CustomerAccount:
    """Each test its own: Deputy answers the same request with the same session, and some tests
    live in the future.
    """
    return CustomerAccount(world)


@pytest.fixture(scope="session")
def _door(app) -> Iterator[Deputy]:
    door = Deputy(app)
    with served(door) as port:
        door.url = f"http://127.0.0.1:{port}"
        yield door


@pytest.fixture
def deputy(_door, monkeypatch) -> Deputy:
    """The service; DEPUTY_URL names it, and nothing else of the person's own Deputy is left."""
    for name in ("DEPUTY_API_KEY", "DEPUTY_API_KEY_FILE", "DEPUTY_CA_BUNDLE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DEPUTY_URL", _door.url)
    _door.requests.clear()
    _door.instead = lambda: None
    return _door


@pytest.fixture
def pauses(deputy, monkeypatch) -> list[float]:
    """How long the client would have slept, which it does not."""
    slept = []
    monkeypatch.setattr("deputy_client.service.sleep", slept.append)
    return slept


@dataclass
class Secure:
    url: str
    ca: Path


@pytest.fixture
def secure(_door, tmp_path) -> Iterator[Secure]:
    """The service over TLS, under a certificate that only `ca` vouches for."""
    ca, key = self_signed(tmp_path)
    with served(_door, ssl_context=(str(ca), str(key))) as port:
        yield Secure(f"https://localhost:{port}", ca)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """It goes on, from where a test moves it."""
    with time_machine.travel(datetime.now(UTC)) as traveller:
        yield traveller
