"""A process that has not heard yet of what another process did: it refuses nobody for what is
over.
"""

from collections.abc import Iterator
from unittest.mock import Mock

import pytest
from flask import Flask

from app.errors import StoreUnavailableError
from app.factory import create_app
from tests.attacks.evidence import problem
from tests.support.cast import Api, path_of
from tests.support.waiting import until


@pytest.fixture(scope="module")
def another(aws, vendor, config) -> Iterator[Flask]:
    made = create_app(config)
    yield made
    made.extensions["deputy"].db.engine.dispose()


@pytest.fixture
def known(world, customer, another):
    """A verified connection, its role's customer, and another process that has issued for it and
    remembers it.
    """
    tenant = world.tenant()
    connection = world.connect(tenant, world.role(tenant, customer))
    there = Api(another, world.worker(tenant).key)
    there("POST", path_of(connection, "/credentials"))
    return connection, customer, there


def asked(there, connection):
    """For a session that is not in memory."""
    return there.raw("POST", path_of(connection, "/credentials"), {"duration_seconds": 901})


def make_again(world, customer, connection):
    kit = world.kit({"id": connection["tenant_id"]})
    customer.remove_role(kit["role_name"])
    customer.role(kit["role_name"], kit["trust_policy"])


def test_a_role_that_was_made_again_and_proven_elsewhere_is_issued_for(world, known):
    connection, customer, there = known
    make_again(world, customer, connection)
    assert world.verify(connection)["status"] == "verified"
    assert asked(there, connection).status_code == 200


def test_what_was_suspended_elsewhere_is_suspended_although_the_role_refuses(world, known):
    connection, customer, there = known
    customer.remove_role(world.kit({"id": connection["tenant_id"]})["role_name"])
    world.suspend(connection)
    problem(asked(there, connection), 409, "suspended")


def test_a_role_that_was_made_again_and_not_proven_is_refused_in_words(world, known):
    connection, customer, there = known
    make_again(world, customer, connection)
    refused = problem(asked(there, connection), 409, "connection_not_verified")
    assert (
        refused["detail"] == "The role was deleted and made again since it was proven; verify it."
    )


def new_key(world, tenant):
    """A key to issue with, and its id."""
    body = {"name": "a program", "scopes": ["credentials:issue"], "tenant_id": tenant["id"]}
    return world.admin("POST", "/v1/api-keys", body, expect=201)


STOPS = {
    "connection": (lambda world, connection, _: world.suspend(connection), 409),
    "deletion": (
        lambda world, connection, _: world.admin("DELETE", path_of(connection), expect=204),
        404,
    ),
    "key": (
        lambda world, _, key: world.admin("DELETE", f"/v1/api-keys/{key['id']}", expect=204),
        401,
    ),
}


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize(
    ("fault", "stopped"),
    [*(("throttle", stopped) for stopped in STOPS), ("policy", "key"), ("old proof", "key")],
)
def test_what_was_stopped_elsewhere_is_refused_although_no_issuance_succeeds_here(
    world, another, by_hand, fault, stopped
):
    """A process learns of revocations with its commits, and a request that fails has none."""
    tenant = world.tenant()
    connection = world.connect(tenant, world.role(tenant))
    made = new_key(world, tenant)
    there = Api(another, made["key"])
    ask = {"duration_seconds": 901}
    if fault == "policy":
        ask["session_policy"] = {"Version": "2012-10-17", "Statement": "v1"}
    else:
        world.aws.faults.add("throttle", role_arn=connection["role_arn"])
    if fault == "old proof":
        by_hand(
            "UPDATE connections SET verified_at = '2020-01-01 00:00:00' WHERE role_arn = :arn",
            arn=connection["role_arn"],
        )
    failing = there.raw("POST", path_of(connection, "/credentials"), ask)
    assert failing.status_code in {422, 503}, failing.json
    stop, status = STOPS[stopped]
    stop(world, connection, made)

    def refused_without_aws():
        calls = len(world.calls_for(connection["role_arn"]))
        answer = there.raw("POST", path_of(connection, "/credentials"), ask)
        return (
            answer.status_code == status and len(world.calls_for(connection["role_arn"])) == calls
        )

    until(refused_without_aws, "after a second", seconds=10)


def test_a_key_that_was_revoked_elsewhere_is_refused_although_nothing_can_be_recorded_here(
    world, another, monkeypatch
):
    tenant = world.tenant()
    connection = world.connect(tenant, world.role(tenant))
    made = new_key(world, tenant)
    there = Api(another, made["key"])
    there("POST", path_of(connection, "/credentials"))
    full = StoreUnavailableError("The disk is full.")
    monkeypatch.setattr(
        another.extensions["deputy"].audit._group, "_commit", Mock(side_effect=full)
    )
    assert asked(there, connection).status_code == 503
    world.admin("DELETE", f"/v1/api-keys/{made['id']}", expect=204)
    until(lambda: asked(there, connection).status_code == 401, "after a second", seconds=10)
