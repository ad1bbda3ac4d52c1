"""A deployment, a clock that tests move, and a customer whose External ID is
replaced.
"""

import copy
import csv
import json
import secrets
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
from app.ids import new_external_id
from app.imports.import_file import COLUMNS
from app.store.database import SYSTEM
from app.store.models import Connection, ExternalIdRow
from app.store.models.external_id import ROTATING, ExternalIdState
from tests.cli.conftest import Cli
from tests.conftest import OPERATOR, make_config
from tests.model.stage import without_sockets
from tests.support.cast import UNSET, Api, Customer, World, path_of
from tests.support.databases import new_database
from tests.support.housekeeping import tidy

Json = dict[str, Any]


@pytest.fixture(scope="module")
def deployed(aws, vendor) -> Iterator[Flask]:
    """With a database of its own: whatever is due in it is of these tests."""
    with new_database() as url:
        with without_sockets(aws):
            app = create_app(make_config(url))
        yield app
        app.extensions["deputy"].db.engine.dispose()


@pytest.fixture(autouse=True)
def impatient(impatient) -> None:
    """Every test of this folder is."""


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """Stands still, on a whole second, until a test moves it."""
    with time_machine.travel(now().replace(microsecond=0), tick=False) as traveller:
        yield traveller


def accepting(trust, *external_ids):
    """The trust policy, with other External IDs."""
    other = copy.deepcopy(trust)
    other["Statement"][0]["Condition"]["StringEquals"]["sts:ExternalId"] = list(external_ids)
    return other


class Tenant:
    """A tenant, and roles in accounts of its customer's, all made as its kit says at that
    moment.
    """

    def __init__(self, services, world, clock):
        self.services, self.world, self.clock = services, world, clock
        self.made = world.tenant()
        self.path = f"/v1/tenants/{self.made['id']}/external-id/rotation"
        self._customers: dict[str, tuple[Customer, str]] = {}

    @property
    def kit(self):
        return self.world.kit(self.made)

    @property
    def trust(self):
        """The trust policy that the kit asks for now."""
        return self.kit["trust_policy"]

    @property
    def first_id(self):
        """The External ID that the tenant was created with."""
        return self.made["external_id"]

    @property
    def external_id(self):
        return self.world.admin("GET", f"/v1/tenants/{self.made['id']}")["external_id"]

    def connection(self, *, status="verified", trust=None, reading_itself=True):
        customer, kit = Customer(self.world.aws), self.kit
        make = customer.reading_itself if reading_itself else customer.role
        role_arn = make(kit["role_name"], trust or kit["trust_policy"])
        made = self.world.connect(self.made, role_arn, status=status)
        self._customers[made["id"]] = customer, kit["role_name"]
        return made

    def update_role(self, connection, trust=None):
        """As the kit says now."""
        customer, name = self._customers[connection["id"]]
        customer.retrust(name, trust or self.trust)

    def reprove(self, connection, trust=None):
        """Update the role, as the kit says now or to this trust policy, and verify it."""
        self.update_role(connection, trust)
        return self.verify(connection)

    def break_role(self, connection):
        foreign = accepting(self.trust, new_external_id())
        assert self.reprove(connection, foreign)["status"] == "broken"

    def suspend(self, connection):
        self.world.admin("POST", path_of(connection, "/suspend"), {"reason": "away"})

    def resume(self, connection):
        return self.world.admin("POST", path_of(connection, "/resume"), {"reason": "back"})

    def remove_role(self, connection):
        customer, name = self._customers[connection["id"]]
        customer.remove_role(name)

    def start(self, **wanted):
        return self.world.admin("POST", self.path, {"reason": "it is old", **wanted}, expect=201)

    def rotation(self):
        return self.world.admin("GET", self.path)

    def complete(self):
        return self.world.admin("POST", f"{self.path}/complete")

    def abandon(self):
        self.world.admin("DELETE", self.path, expect=204)

    def refused(self, method, step="", *, expect=409, code="conflict", **body):
        """The detail of the refusal of such a request."""
        path = self.path + step
        refused = self.world.admin.refused(method, path, body or UNSET, expect=expect, code=code)
        return refused["detail"]

    def state(self):
        found = self.rotation()
        return found["state"], found["connections"]["switched"], found["connections"]["waiting"]

    def verify(self, connection):
        return self.world.admin("POST", path_of(connection, "/verify"))

    def get(self, connection):
        return self.world.admin("GET", path_of(connection))

    def id_of(self, connection):
        return self.get(connection)["external_id"]

    def issue(self, connection):
        return self.world.admin("POST", path_of(connection, "/credentials"))

    def row(self, connection):
        with self.services.db.read() as db:
            return db.get(Connection, uuid.UUID(connection["id"]))

    def after(self, **time):
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

    def idle(self, **time):
        """So much later, and no background worker was there until then."""
        self.clock.shift(timedelta(**time))
        self.after()

    def switch(self, *connections):
        """Both proofs of it that a switch takes, at once and two minutes later."""
        for connection in connections:
            self.update_role(connection)
            self.verify(connection)
        self.after(minutes=2)

    def _next_due(self):
        with self.services.db.read() as db:
            return db.scalar(sqlalchemy.select(sqlalchemy.func.min(Connection.due_at)))

    def sent(self, connection):
        """The External IDs that the role was tried with, in order."""
        return [call.external_id for call in self.world.calls_for(connection["role_arn"])]

    def issued_ids(self):
        """Every External ID that any tenant had, and its state."""
        with self.services.db.read() as db:
            return {
                row.value: row.state.value for row in db.scalars(sqlalchemy.select(ExternalIdRow))
            }

    def events(self, **wanted):
        """The tenant's audit events, newest first."""
        return self.world.audit(tenant_id=self.made["id"], **wanted)

    def actions(self):
        """What the audit log says of the rotation, oldest first."""
        actions = [event["action"] for event in reversed(self.events())]
        wanted = ("rotation.", "external_id.", "connection.external_id_switched")
        return [action for action in actions if action.startswith(wanted)]


@pytest.fixture
def world(aws, deployed) -> World:
    _, key = deployed.extensions["deputy"].api_keys.create_key(
        OPERATOR, name="tests", scopes=ALL_SCOPES, tenant_id=None, expires_at=None
    )
    return World(aws, Api(deployed, key))


@pytest.fixture
def new_tenant(deployed, world, clock) -> Callable[[], Tenant]:
    services = deployed.extensions["deputy"]
    with services.db.write(SYSTEM) as db:  # what tests before this one left
        db.execute(sqlalchemy.update(Connection).values(due_at=None))
        rotating = sqlalchemy.update(ExternalIdRow).where(ROTATING)
        db.execute(rotating.values(state=ExternalIdState.RETIRED))
    return lambda: Tenant(services, world, clock)


@pytest.fixture
def tenant(new_tenant) -> Tenant:
    return new_tenant()


def import_rows(app, path, *rows, fails=0):
    """Import these rows; returns the report of each."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    done = Cli(app).raw(f"customers import {path} --yes --json")
    assert done.exit_code == fails, done.output
    return list(map(json.loads, done.stdout.splitlines()))


@pytest.fixture
def imported(deployed, tenant, tmp_path):
    """Makes a connection of the tenant's with an imported External ID; returns both."""
    reference = f"ref-{tenant.made['id']}"
    tenant.world.admin("PATCH", f"/v1/tenants/{tenant.made['id']}", {"reference": reference})

    def add(external_id=None):
        external_id = external_id or f"acme:{secrets.token_urlsafe(16)}"
        customer = Customer(tenant.world.aws)
        name = tenant.kit["role_name"]
        role_arn = customer.reading_itself(name, accepting(tenant.trust, external_id))
        row = {"reference": reference, "name": "Acme", "role_arn": role_arn}
        row["external_id"] = external_id
        [report] = import_rows(deployed, tmp_path / "customers.csv", row)
        assert (report["outcome"], report["status"]) == ("imported", "pending")
        [connection] = tenant.world.admin(
            "GET", f"/v1/tenants/{tenant.made['id']}/connections?limit=1"
        )["items"]
        tenant._customers[connection["id"]] = customer, name
        tenant.after()
        return connection, external_id

    return add
