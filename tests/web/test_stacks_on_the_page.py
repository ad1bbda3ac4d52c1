"""What the page says of a stack that was rolled back or deleted, and of updating the role of one
that is there.
"""

from uuid import UUID

import pytest
from bs4 import BeautifulSoup

from app.store.database import SYSTEM
from app.store.models import Connection
from app.store.models.states import StackState
from tests.attacks.evidence import on_sqlite
from tests.support.cast import Customer, path_of, without_external_id
from tests.web.conftest import Visitor

pytestmark = on_sqlite  # nothing here depends on the database


def text_of(found: BeautifulSoup) -> str:
    return " ".join(found.get_text(" ").split())


def pasted(visitor: Visitor, customer: Customer) -> dict[str, object]:
    kit = visitor.world.kit(visitor.tenant)
    visitor.paste(f"arn:aws:iam::{customer.account}:role/{kit['role_name']}")
    [made, *_] = visitor.world.admin("GET", f"/v1/tenants/{visitor.tenant['id']}/connections")[
        "items"
    ]
    return made


def say(visitor: Visitor, connection: dict[str, object], stack: StackState) -> None:
    """As its message does; see tests/onboarding/test_registrations.py."""
    with visitor.world.admin.app.extensions["deputy"].db.write(SYSTEM) as db:
        db.get(Connection, UUID(str(connection["id"]))).stack = stack


def of_stack(visitor: Visitor, connection: dict[str, object], name: str | None) -> None:
    """As the stack of that name registers it."""
    stack_id = (
        name and f"arn:aws:cloudformation:us-east-1:{connection['account_id']}:stack/{name}/5f"
    )
    with visitor.world.admin.app.extensions["deputy"].db.write(SYSTEM) as db:
        db.get(Connection, UUID(str(connection["id"]))).stack_id = stack_id


def test_what_the_role_itself_shows_counts_for_more(visitor: Visitor):
    """It lets strangers in, so it is there."""
    customer, kit = Customer(visitor.world.aws), visitor.world.kit(visitor.tenant)
    made = pasted(visitor, customer)
    say(visitor, made, StackState.ROLLED_BACK)
    customer.role(kit["role_name"], without_external_id(kit["trust_policy"]))
    visitor.world.admin("POST", path_of(made, "/verify"))
    page = visitor.page()
    assert "Your role can be used without your External ID." in text_of(page.find(id="summary"))
    assert visitor.steps() == ["done", "done", "done", "failed", "todo"]


@pytest.mark.parametrize(
    ("stacks", "opened"),
    [
        ([None], []),
        (["{name}"], ["You launched a stack"]),
        (["an-own-name"], ["You launched a stack"]),
        (
            ["{name}-organization", "StackSet-{name}-organization-5f"],
            ["You launched a stack for a whole organization"],
        ),
        (["StackSet-an-own-one-5f"], []),
        (["{name}", None], []),
        (["{name}", "StackSet-{name}-organization-5f"], []),
    ],
)
def test_the_update_that_fits_how_the_roles_were_made_is_open(visitor: Visitor, stacks, opened):
    """None is where Deputy does not know it, or where they were made in several ways."""
    world, name = visitor.world, visitor.world.kit(visitor.tenant)["stack_name"]
    for stack in stacks:
        of_stack(visitor, world.connection(visitor.tenant), stack and stack.format(name=name))
    world.admin(
        "POST",
        f"/v1/tenants/{visitor.tenant['id']}/external-id/rotation",
        {"reason": "x"},
        expect=201,
    )
    found = visitor.page().select("#rotation details[open] > summary")
    assert [text_of(summary) for summary in found] == opened


def test_a_role_that_was_gone_may_have_come_back_in_another_way(visitor: Visitor):
    """The deletion of a stack sends no message."""
    world, customer, kit = (
        visitor.world,
        Customer(visitor.world.aws),
        visitor.world.kit(visitor.tenant),
    )
    made = world.connect(visitor.tenant, customer.role(kit["role_name"], kit["trust_policy"]))
    of_stack(visitor, made, kit["stack_name"])
    customer.remove_role(kit["role_name"])
    assert world.admin("POST", path_of(made, "/verify"))["status"] == "broken"
    customer.role(kit["role_name"], kit["trust_policy"])
    assert world.admin("POST", path_of(made, "/verify"))["status"] == "verified"
    world.admin(
        "POST",
        f"/v1/tenants/{visitor.tenant['id']}/external-id/rotation",
        {"reason": "x"},
        expect=201,
    )
    assert visitor.page().select("#rotation details[open]") == []
