"""A process that has not heard yet of what another process did: it refuses nobody for what is
over.
"""

from collections.abc import Iterator

import pytest
from flask import Flask

from app.factory import create_app
from tests.attacks.evidence import problem
from tests.support.cast import Api, path_of


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
