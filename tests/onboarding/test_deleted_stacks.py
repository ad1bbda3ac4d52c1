"""A customer deletes the stack. No message says so, and Deputy notices by the role that is gone."""

from contextlib import closing
from uuid import UUID

import pytest
from flask import Flask

from app.clock import now
from app.store.models import Connection
from tests.attacks.evidence import on_sqlite
from tests.support.cast import Customer, World, path_of, root_client


@on_sqlite
@pytest.mark.usefixtures("published")
def test_a_deleted_stack_is_noticed_by_its_role(app: Flask, world: World):
    """No session was made before, so AWS is asked, and refuses: the connection is due, and the
    worker does the rest.
    """
    tenant, customer = world.tenant(), Customer(world.aws)
    kit = world.kit(tenant)
    made = world.connect(tenant, customer.launch(kit["launch_stack_url"]))
    with closing(root_client(world.aws, "cloudformation", customer.account)) as cloudformation:
        cloudformation.delete_stack(StackName=kit["stack_name"])
        assert cloudformation.list_stacks()["StackSummaries"][0]["StackStatus"] == "DELETE_COMPLETE"
    assert world.admin("GET", path_of(made))["status"] == "verified"
    world.admin.refused("POST", path_of(made, "/credentials"), {}, expect=409, code="role_refused")
    with app.extensions["deputy"].db.read() as db:
        assert db.get_one(Connection, UUID(made["id"])).due_at <= now()
    assert world.admin("POST", path_of(made, "/verify"))["status"] == "broken"
