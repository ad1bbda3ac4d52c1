"""One tenant against the service of all the others: what it may make everybody else pay for is bounded."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy
import time_machine
from flask import Flask
from sqlalchemy import select

from app.access import Scope
from app.deployment import Configuration
from app.quotas import QuotaUse
from tests.attacks.routes import ROUTES, Route
from tests.cast import Api, World, path_of

BURST = 20  # of DEPUTY_TENANT_REVOKES, five a second unless set


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """It stands still unless a test moves it, so a slow machine counts the same."""
    with time_machine.travel(datetime.now(UTC), tick=False) as traveller:
        yield traveller


def mallory_of(world: World, connection: dict[str, Any]) -> Api:
    return world.key(*Scope, tenant={"id": connection["tenant_id"]})


def spare_key(api: Api) -> str:
    made = api("POST", "/v1/api-keys", {"name": "spare", "scopes": ["audit:read"]}, expect=201)
    return f"/v1/api-keys/{made['id']}"


# --- what stops issuing makes every process read again what it knows of all tenants ---


def test_a_tenant_that_revokes_without_a_pause_is_held_back(world: World, clock):
    mallory, neighbour = (mallory_of(world, world.connection()) for _ in range(2))
    spare = [spare_key(mallory) for _ in range(BURST + 3)]
    statuses = [mallory.raw("DELETE", path).status_code for path in spare]
    assert statuses == [204] * BURST + [429] * 3
    neighbour("DELETE", spare_key(neighbour), expect=204)
    world.admin("DELETE", spare[-1], expect=204)
    clock.shift(5)
    mallory("DELETE", spare[-2], expect=204)


STOPS: dict[str, Callable[[dict[str, Any], Api], Any]] = {
    "revoke a key": lambda _, api: api.raw("DELETE", spare_key(api)),
    "suspend a connection": lambda connection, api: api.raw(
        "POST", path_of(connection, "/suspend"), {"reason": "mischief"}
    ),
    "delete a connection": lambda connection, api: api.raw("DELETE", path_of(connection)),
    "suspend a tenant": lambda connection, api: api.raw(
        "POST", f"/v1/tenants/{connection['tenant_id']}/suspend", {"reason": "mischief"}
    ),
}


@pytest.mark.parametrize("what", STOPS)
def test_everything_that_stops_issuing_counts_together(world: World, clock, what):
    connection = world.connection()
    mallory = mallory_of(world, connection)
    for _ in range(BURST):
        mallory("DELETE", spare_key(mallory), expect=204)
    epoch = epoch_of(world.admin.app)
    response = STOPS[what](connection, mallory)
    assert (response.status_code, response.get_json()["code"]) == (429, "rate_limited")
    assert int(response.headers["Retry-After"]) >= 1
    assert epoch_of(world.admin.app) == epoch
    world.admin("POST", path_of(connection, "/credentials"))


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method != "GET"], ids=str)
def test_a_bound_key_moves_the_epoch_only_where_its_tenant_is_counted(world: World, route: Route):
    connection = world.connection()
    mallory = mallory_of(world, connection)
    key_id = spare_key(mallory).rpartition("/")[2]
    before, counted = epoch_of(world.admin.app), uses(world.admin.app, connection["tenant_id"])
    path = route.at(tenant_id=connection["tenant_id"], connection_id=connection["id"], key_id=key_id)
    mallory.raw(route.method, path, *([route.body] if route.body is not None else []))
    if epoch_of(world.admin.app) != before:
        assert uses(world.admin.app, connection["tenant_id"]) > counted, "nothing limits how often"


def epoch_of(app: Flask) -> int:
    with app.extensions["deputy"].db.read() as db:
        return db.scalars(select(Configuration.epoch)).one()


def uses(app: Flask, tenant_id: str) -> int:
    """How much of all its quotas a tenant has used."""
    query = select(
        sqlalchemy.func.coalesce(sqlalchemy.func.sum(QuotaUse.counted + QuotaUse.counted_before), 0)
    )
    with app.extensions["deputy"].db.read() as db:
        return db.scalar(query.where(QuotaUse.id == UUID(tenant_id)))
