"""A customer with an onboarding link in their browser, and no key."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import BrowserContext, Page

from app.store.database import SYSTEM
from app.store.models import Connection, ConnectionStatus
from tests.client.people import served
from tests.conftest import publish_templates
from tests.support.cast import Api, Customer, World, path_of, without_external_id
from tests.support.rows import NO_ROLE, connection_rows

_numbers = itertools.count(100_000_000_000)


@pytest.fixture(autouse=True)
def impatient(impatient) -> None:
    """Every test of this folder is."""


@dataclass
class Visitor:
    """A browser with the link."""

    world: World
    tenant: dict
    path: str
    link_id: str

    @property
    def services(self):
        return self.world.admin.app.extensions["deputy"]

    def raw(self, what="", method="GET", **options):
        return self.world.admin.app.test_client().open(
            f"{self.path}{what}", method=method, **options
        )

    def page(self, what=""):
        response = self.raw(what)
        assert response.status_code == 200, response.text
        return BeautifulSoup(response.text, "html.parser")

    def paste(self, role_arn, **options):
        return self.raw("/connections", "POST", data={"role_arn": role_arn}, **options)

    def customer_and_kit(self):
        return Customer(self.world.aws), self.world.kit(self.tenant)

    def paste_insecure(self):
        """Enter a role that asks for no External ID."""
        customer, kit = self.customer_and_kit()
        self.paste(customer.role(kit["role_name"], without_external_id(kit["trust_policy"])))

    def steps(self):
        return [step["class"][0] for step in self.page().select(".steps li")]

    def summary(self):
        return text_of(self.page().find(id="summary"))

    def connections(self):
        """What the API lists, newest first."""
        path = f"/v1/tenants/{self.tenant['id']}/connections"
        return self.world.admin("GET", path)["items"]

    def verify(self, connection):
        return self.world.admin("POST", path_of(connection, "/verify"))

    def change(self, connection, **changes):
        """The row, by hand."""
        with self.services.db.write(SYSTEM) as db:
            row = db.get_one(Connection, UUID(connection["id"]))
            for name, value in changes.items():
                setattr(row, name, value)

    def rotate(self, **body):
        path = f"/v1/tenants/{self.tenant['id']}/external-id/rotation"
        self.world.admin("POST", path, body or {"reason": "x"}, expect=201)


def text_of(part):
    return " ".join(part.get_text(" ").split())


@pytest.fixture
def visitor(world) -> Visitor:
    return visit(world, world.tenant())


def visit(world, tenant, **wanted):
    made = world.admin("POST", f"/v1/tenants/{tenant['id']}/onboarding-links", wanted, expect=201)
    base = world.admin.app.extensions["deputy"].config.service.public_url
    assert made["url"].startswith(f"{base}/onboard/")
    return Visitor(world, tenant, made["url"].removeprefix(base), made["id"])


@pytest.fixture
def visiting(start, aws, admin) -> Callable[..., Visitor]:
    """`visiting(vendor_color=…)`: a link of a vendor with these settings; `link`: its fields."""

    def visiting(tenant=None, *, link=None, **settings):
        world = World(aws, Api(start({}, **settings), admin.key))
        return visit(world, tenant or world.tenant(), **(link or {}))

    return visiting


@pytest.fixture(scope="session")
def published(app) -> None:
    """The templates of the shipped permission sets are in the bucket, and recorded."""
    publish_templates(app)


@pytest.fixture
def url(visitor, monkeypatch) -> Iterator[str]:
    """The visitor's page, served to browsers; it asks for its status ten times as often."""
    monkeypatch.setattr("app.web.onboarding.page_data._STATUS_SECONDS", {False: 0.3, True: 30})
    with served(visitor.world.admin.app) as port:
        yield f"http://127.0.0.1:{port}{visitor.path}"


@pytest.fixture(scope="session")
def browsing(chromium) -> Iterator[BrowserContext]:
    """Pages leave nothing in it for the next test, as they use neither cookies nor storage; one
    a test takes half a second.
    """
    with chromium.new_context() as context:
        yield context
        assert context.storage_state() == {"cookies": [], "origins": []}


@pytest.fixture
def browser_page(browsing) -> Iterator[Page]:
    """A page that fails the test when the page's own policy, or a script of its own, is in its
    way.
    """
    page = browsing.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    for left in browsing.pages:
        left.close()
    assert said == []


def many(visitor, status=ConnectionStatus.VERIFIED, count=100):
    """Rows without roles; their accounts' ids, newest first."""
    accounts = [f"{next(_numbers):012d}" for _ in range(count)]
    common = {"role_unique_id": NO_ROLE.unique_id, "status": status, "due_at": None}
    rows = [
        {"role_arn": f"{NO_ROLE.arn}-{account}", "account_id": account, **common}
        for account in accounts
    ]
    connection_rows(visitor.services.db, UUID(visitor.tenant["id"]), rows)
    return accounts[::-1]
