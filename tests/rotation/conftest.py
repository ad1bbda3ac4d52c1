"""A deployment on each database, a clock that tests move, and a customer whose External ID is
replaced.
"""

import copy
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy
import time_machine
from flask import Flask

from app.clock import now
from app.factory import create_app
from app.identity.scopes import ALL_SCOPES
from app.services import Services
from app.store.database import SYSTEM
from app.store.models import Connection, ExternalIdRow
from sandbox.server import Sandbox
from tests.conftest import OPERATOR, make_config
from tests.model.stage import without_sockets
from tests.support.cast import Api, Customer, World, path_of
from tests.support.databases import new_database
from tests.support.housekeeping import tidy


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def deployed(request: pytest.FixtureRequest, aws: Sandbox, vendor: object) -> Iterator[Flask]:
    """With a database of its own: whatever is due in it is of these tests."""
    with new_database(request.param) as url:
        with without_sockets(aws):
            app = create_app(make_config(url))
        yield app
        app.extensions["deputy"].db.engine.dispose()


@pytest.fixture(autouse=True)
def impatient(impatient: None) -> None:
    """Every test of this folder is."""


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """Stands still, on a whole second, until a test moves it."""
    with time_machine.travel(now().replace(microsecond=0), tick=False) as traveller:
        yield traveller


def accepting(trust: dict[str, Any], *external_ids: str) -> dict[str, Any]:
    """The trust policy, with other External IDs."""
    other = copy.deepcopy(trust)
    other["Statement"][0]["Condition"]["StringEquals"]["sts:ExternalId"] = list(external_ids)
    return other


class Tenant:
    """A tenant, and roles in accounts of its customer's, all made as its kit says at that
    moment.
    """

    def __init__(self, services: Services, world: World, clock: time_machine.Traveller) -> None:
        self.services, self.world, self.clock = services, world, clock
        self.made = world.tenant()
        self.path = f"/v1/tenants/{self.made['id']}/external-id/rotation"
        self._customers: dict[str, tuple[Customer, str]] = {}

    @property
    def kit(self) -> dict[str, Any]:
        return self.world.kit(self.made)

    @property
    def external_id(self) -> str:
        return self.world.admin("GET", f"/v1/tenants/{self.made['id']}")["external_id"]

    def connection(
        self,
        *,
        status: str = "verified",
        trust: dict[str, Any] | None = None,
        reading_itself: bool = True,
    ) -> dict[str, Any]:
        customer, kit = Customer(self.world.aws), self.kit
        make = customer.reading_itself if reading_itself else customer.role
        role_arn = make(kit["role_name"], trust or kit["trust_policy"])
        made = self.world.connect(self.made, role_arn, status=status)
        self._customers[made["id"]] = customer, kit["role_name"]
        return made

    def update_role(self, connection: dict[str, Any], trust: dict[str, Any] | None = None) -> None:
        """As the kit says now."""
        customer, name = self._customers[connection["id"]]
        customer.retrust(name, trust or self.kit["trust_policy"])

    def remove_role(self, connection: dict[str, Any]) -> None:
        customer, name = self._customers[connection["id"]]
        customer.remove_role(name)

    def start(self, **wanted: Any) -> dict[str, Any]:
        return self.world.admin("POST", self.path, {"reason": "it is old", **wanted}, expect=201)

    def rotation(self) -> dict[str, Any]:
        return self.world.admin("GET", self.path)

    def complete(self) -> dict[str, Any]:
        return self.world.admin("POST", f"{self.path}/complete")

    def state(self) -> tuple[str, int, int]:
        found = self.rotation()
        return found["state"], found["connections"]["switched"], found["connections"]["waiting"]

    def verify(self, connection: dict[str, Any]) -> dict[str, Any]:
        return self.world.admin("POST", path_of(connection, "/verify"))

    def get(self, connection: dict[str, Any]) -> dict[str, Any]:
        return self.world.admin("GET", path_of(connection))

    def issue(self, connection: dict[str, Any]) -> dict[str, Any]:
        return self.world.admin("POST", path_of(connection, "/credentials"))

    def row(self, connection: dict[str, Any]) -> Connection:
        with self.services.db.read() as db:
            return db.get(Connection, uuid.UUID(connection["id"]))

    def after(self, **time: float) -> None:
        """So much later, with a background worker at work all the time: it does what is due when
        it is due.
        """
        until = now() + timedelta(**time)
        tidy(self.services.db, 0)
        while (due := self._next_due()) is not None and due <= until:
            self.clock.move_to(max(due, now()))
            queue = self.services.proof_queue
            claims = queue.claim(100) + queue.claim_routine(100)
            assert claims, "what is due is claimed"
            for claim in claims:
                queue.prove(claim)
        self.clock.move_to(until)
        tidy(self.services.db, 0)

    def idle(self, **time: float) -> None:
        """So much later, and no background worker was there until then."""
        self.clock.shift(timedelta(**time))
        self.after()

    def switch(self, *connections: dict[str, Any]) -> None:
        """Both proofs of it that a switch takes, at once and two minutes later."""
        for connection in connections:
            self.update_role(connection)
            self.verify(connection)
        self.after(minutes=2)

    def _next_due(self) -> Any:
        with self.services.db.read() as db:
            return db.scalar(sqlalchemy.select(sqlalchemy.func.min(Connection.due_at)))

    def sent(self, connection: dict[str, Any]) -> list[str | None]:
        """The External IDs that the role was tried with, in order."""
        return [call.external_id for call in self.world.calls_for(connection["role_arn"])]

    def issued_ids(self) -> dict[str, str]:
        """Every External ID that any tenant had, and its state."""
        with self.services.db.read() as db:
            return {
                row.value: row.state.value for row in db.scalars(sqlalchemy.select(ExternalIdRow))
            }

    def actions(self) -> list[str]:
        """What the audit log says of the rotation, oldest first."""
        events = self.world.audit(tenant_id=self.made["id"])
        wanted = ("rotation.", "external_id.", "connection.external_id_switched")
        return [event["action"] for event in reversed(events) if event["action"].startswith(wanted)]


@pytest.fixture
def world(aws: Any, deployed: Flask) -> World:
    _, key = deployed.extensions["deputy"].api_keys.create_key(
        OPERATOR, name="tests", scopes=ALL_SCOPES, tenant_id=None, expires_at=None
    )
    return World(aws, Api(deployed, key))


@pytest.fixture
def new_tenant(
    deployed: Flask, world: World, clock: time_machine.Traveller
) -> Callable[[], Tenant]:
    services = deployed.extensions["deputy"]
    with services.db.write(SYSTEM) as db:  # what tests before this one left
        db.execute(sqlalchemy.update(Connection).values(due_at=None))
    return lambda: Tenant(services, world, clock)


@pytest.fixture
def tenant(new_tenant: Callable[[], Tenant]) -> Tenant:
    return new_tenant()
