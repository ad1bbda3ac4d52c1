"""A customer deletes the stack. No message says so, and Deputy notices by the role that is gone."""

from contextlib import closing
from uuid import UUID

import pytest
from flask import Flask

from app.clock import now
from app.store.models import Connection
from tests.attacks.evidence import on_sqlite
from tests.conftest import publish_templates
from tests.support.cast import Api, Customer, World, path_of, root_client


def by_a_proof(admin: Api, connection: dict[str, object]) -> None:
    """The next message of the queue."""
    admin("POST", path_of(connection, "/verify"))


def by_issuing(admin: Api, connection: dict[str, object]) -> None:
    """No session was made before, so AWS is asked, and refuses."""
    admin.refused("POST", path_of(connection, "/credentials"), {}, expect=409, code="role_refused")


def by_a_report(admin: Api, connection: dict[str, object]) -> None:
    """A worker's session was refused."""
    admin("POST", path_of(connection, "/report-refused"), {}, expect=202)


@on_sqlite
@pytest.mark.parametrize("noticed", [by_a_proof, by_issuing, by_a_report], ids=lambda f: f.__name__)
def test_a_deleted_stack_is_noticed_by_its_role(app: Flask, world: World, noticed):
    publish_templates(app)
    tenant, customer = world.tenant(), Customer(world.aws)
    kit, services = world.kit(tenant), app.extensions["deputy"]
    made = world.connect(tenant, customer.launch(kit["launch_stack_url"]))
    with closing(root_client(world.aws, "cloudformation", customer.account)) as cloudformation:
        cloudformation.delete_stack(StackName=kit["stack_name"])
        assert cloudformation.list_stacks()["StackSummaries"][0]["StackStatus"] == "DELETE_COMPLETE"
    assert world.admin("GET", path_of(made))["status"] == "verified"
    noticed(world.admin, made)
    with services.db.read() as db:
        row = db.get_one(Connection, UUID(made["id"]))
    if noticed is not by_a_proof:  # it is due, and the worker does the rest
        assert row.due_at <= now()
        by_a_proof(world.admin, made)
    assert world.admin("GET", path_of(made))["status"] == "broken"
