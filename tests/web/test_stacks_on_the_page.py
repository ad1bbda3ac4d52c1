"""What the page says of a stack that was rolled back or deleted, and of updating the role of one that is there."""

from uuid import UUID

import pytest
from bs4 import BeautifulSoup

from app.store.database import SYSTEM
from app.store.models import Connection
from app.store.models.states import ConnectionStatus, StackState
from tests.support.cast import Customer, path_of, without_external_id
from tests.web.conftest import Visitor, many

GONE = {StackState.ROLLED_BACK: "was rolled back", StackState.DELETED: "was deleted"}
every_end = pytest.mark.parametrize(("stack", "words"), GONE.items())


def text_of(found: BeautifulSoup) -> str:
    return " ".join(found.get_text(" ").split())


def pasted(visitor: Visitor, customer: Customer) -> dict[str, object]:
    kit = visitor.world.kit(visitor.tenant)
    visitor.paste(f"arn:aws:iam::{customer.account}:role/{kit['role_name']}")
    [made, *_] = visitor.world.admin("GET", f"/v1/tenants/{visitor.tenant['id']}/connections")["items"]
    return made


def say(visitor: Visitor, connection: dict[str, object], stack: StackState) -> None:
    """As its message does; see tests/onboarding/test_registrations.py."""
    with visitor.world.admin.app.extensions["deputy"].db.write(SYSTEM) as db:
        db.get(Connection, UUID(str(connection["id"]))).stack = stack


def of_stack(visitor: Visitor, connection: dict[str, object], name: str | None) -> None:
    """As the stack of that name registers it."""
    stack_id = name and f"arn:aws:cloudformation:us-east-1:{connection['account_id']}:stack/{name}/5f"
    with visitor.world.admin.app.extensions["deputy"].db.write(SYSTEM) as db:
        db.get(Connection, UUID(str(connection["id"]))).stack_id = stack_id


@every_end
def test_a_stack_that_ended_does_not_read_as_a_refusal(visitor: Visitor, stack, words):
    made = pasted(visitor, Customer(visitor.world.aws))
    assert "AWS refused us" in text_of(visitor.page().find(id="live"))
    say(visitor, made, stack)
    page = visitor.page()
    assert text_of(page.find(id="summary")) == f"Your stack {words}."
    assert visitor.steps() == ["failed", "todo", "todo", "todo", "todo"]
    assert text_of(page.select_one(".advice h3")) == f"The stack {words}"
    assert "AWS refused us" not in text_of(page.find(id="live"))
    assert page.find(id="trust-should-be") is None


@every_end
def test_of_a_role_that_still_lets_us_in_it_is_not_said_that_all_is_done(visitor: Visitor, stack, words):
    """A stack says so before its role goes."""
    made = visitor.world.connection(visitor.tenant)
    say(visitor, made, stack)
    assert text_of(visitor.page().find(id="summary")) == f"Your stack {words}."
    assert visitor.page().select(".connected") == []
    assert "every 3s" in visitor.raw().text


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
        (["{name}-organization", "StackSet-{name}-organization-5f"], ["You launched a stack for a whole organization"]),
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
    world.admin("POST", f"/v1/tenants/{visitor.tenant['id']}/external-id/rotation", {"reason": "x"}, expect=201)
    found = visitor.page().select("#rotation details[open] > summary")
    assert [text_of(summary) for summary in found] == opened


def test_a_role_that_was_gone_may_have_come_back_in_another_way(visitor: Visitor):
    """The deletion of a stack sends no message."""
    world, customer, kit = visitor.world, Customer(visitor.world.aws), visitor.world.kit(visitor.tenant)
    made = world.connect(visitor.tenant, customer.role(kit["role_name"], kit["trust_policy"]))
    of_stack(visitor, made, kit["stack_name"])
    customer.remove_role(kit["role_name"])
    assert world.admin("POST", path_of(made, "/verify"))["status"] == "broken"
    customer.role(kit["role_name"], kit["trust_policy"])
    assert world.admin("POST", path_of(made, "/verify"))["status"] == "verified"
    world.admin("POST", f"/v1/tenants/{visitor.tenant['id']}/external-id/rotation", {"reason": "x"}, expect=201)
    assert visitor.page().select("#rotation details[open]") == []


def test_among_many_each_is_named(visitor: Visitor):
    many(visitor, ConnectionStatus.VERIFIED, 2)
    first, second = Customer(visitor.world.aws), Customer(visitor.world.aws)
    say(visitor, pasted(visitor, first), StackState.ROLLED_BACK)
    say(visitor, pasted(visitor, second), StackState.DELETED)
    page = visitor.page()
    assert [pill.text for pill in page.select(".pill")][:2] == ["Stack deleted", "Rolled back"]
    assert [text_of(said).split(":")[0] for said in page.select(".advice .where")] == [
        f"Account {first.account}",
        f"Account {second.account}",
    ]
