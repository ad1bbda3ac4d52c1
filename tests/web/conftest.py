"""A customer with an onboarding link in their browser, and no key."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from bs4 import BeautifulSoup
from flask import Flask
from playwright.sync_api import Browser, BrowserContext, Page
from werkzeug.serving import make_server

from app.services import Services
from app.store.database import SYSTEM
from app.store.models import Connection, ConnectionStatus
from tests.conftest import publish_templates
from tests.support.cast import World, path_of
from tests.support.rows import NO_ROLE, connection_rows

_numbers = itertools.count(100_000_000_000)


@pytest.fixture(autouse=True)
def impatient(impatient: None) -> None:
    """Every test of this folder is."""


@dataclass
class Visitor:
    """A browser with the link."""

    world: World
    tenant: dict[str, Any]
    path: str
    link_id: str

    @property
    def services(self) -> Services:
        return self.world.admin.app.extensions["deputy"]

    def raw(self, what: str = "", method: str = "GET", **options: Any) -> Any:
        return self.world.admin.app.test_client().open(
            f"{self.path}{what}", method=method, **options
        )

    def page(self, what: str = "") -> BeautifulSoup:
        response = self.raw(what)
        assert response.status_code == 200, response.text
        return BeautifulSoup(response.text, "html.parser")

    def paste(self, role_arn: str, **options: Any) -> Any:
        return self.raw("/connections", "POST", data={"role_arn": role_arn}, **options)

    def steps(self) -> list[str]:
        return [step["class"][0] for step in self.page().select(".steps li")]

    def summary(self) -> str:
        return text_of(self.page().find(id="summary"))

    def connections(self) -> list[dict[str, Any]]:
        """What the API lists, newest first."""
        path = f"/v1/tenants/{self.tenant['id']}/connections"
        return self.world.admin("GET", path)["items"]

    def verify(self, connection: dict[str, Any]) -> dict[str, Any]:
        return self.world.admin("POST", path_of(connection, "/verify"))

    def change(self, connection: dict[str, Any], **changes: object) -> None:
        """The row, by hand."""
        with self.services.db.write(SYSTEM) as db:
            row = db.get_one(Connection, UUID(connection["id"]))
            for name, value in changes.items():
                setattr(row, name, value)

    def rotate(self, **body: object) -> None:
        path = f"/v1/tenants/{self.tenant['id']}/external-id/rotation"
        self.world.admin("POST", path, body or {"reason": "x"}, expect=201)


def text_of(part: Any) -> str:
    return " ".join(part.get_text(" ").split())


@pytest.fixture
def visitor(world: World) -> Visitor:
    return visit(world, world.tenant())


def visit(world: World, tenant: dict[str, Any], **wanted: Any) -> Visitor:
    made = world.admin("POST", f"/v1/tenants/{tenant['id']}/onboarding-links", wanted, expect=201)
    base = world.admin.app.extensions["deputy"].config.service.public_url
    assert made["url"].startswith(f"{base}/onboard/")
    return Visitor(world, tenant, made["url"].removeprefix(base), made["id"])


@contextmanager
def served(app: Flask) -> Iterator[str]:
    """The service as browsers reach it."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def published(app: Flask) -> None:
    """The templates of the shipped permission sets are in the bucket, and recorded."""
    publish_templates(app)


@pytest.fixture
def url(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The visitor's page, served to browsers; it asks for its status ten times as often."""
    monkeypatch.setattr("app.web.onboarding.content._STATUS_SECONDS", {False: 0.3, True: 30})
    with served(visitor.world.admin.app) as base:
        yield f"{base}{visitor.path}"


@pytest.fixture(scope="session")
def browsing(chromium: Browser) -> Iterator[BrowserContext]:
    """Pages leave nothing in it for the next test, as they use neither cookies nor storage; one
    a test takes half a second.
    """
    with chromium.new_context() as context:
        yield context
        assert context.storage_state() == {"cookies": [], "origins": []}


@pytest.fixture
def browser_page(browsing: BrowserContext) -> Iterator[Page]:
    """A page that fails the test when the page's own policy, or a script of its own, is in its
    way.
    """
    page = browsing.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    for left in browsing.pages:
        left.close()
    assert said == []


def many(
    visitor: Visitor, status: ConnectionStatus = ConnectionStatus.VERIFIED, count: int = 100
) -> list[str]:
    """Rows without roles; their accounts' ids, newest first."""
    accounts = [f"{next(_numbers):012d}" for _ in range(count)]
    common = {"role_unique_id": NO_ROLE.unique_id, "status": status, "due_at": None}
    rows = [
        {"role_arn": f"{NO_ROLE.arn}-{account}", "account_id": account, **common}
        for account in accounts
    ]
    connection_rows(visitor.services.db, UUID(visitor.tenant["id"]), rows)
    return accounts[::-1]
