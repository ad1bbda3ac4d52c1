"""What the page says of a stack that was rolled back or deleted, and of updating the role of one
that is there.
"""

import pytest

from app.store.models.connection_status import StackState
from tests.support.cast import without_external_id
from tests.web.conftest import text_of


def stack_of(connection, name):
    """The id of the stack of that name, as it registers the role."""
    account = connection["account_id"]
    return name and f"arn:aws:cloudformation:us-east-1:{account}:stack/{name}/5f"


def test_what_the_role_itself_shows_counts_for_more(visitor):
    """It lets others in, so it is there."""
    customer, kit = visitor.customer_and_kit()
    visitor.paste(f"arn:aws:iam::{customer.account}:role/{kit['role_name']}")
    [made] = visitor.connections()
    visitor.change(made, stack=StackState.ROLLED_BACK)
    customer.role(kit["role_name"], without_external_id(kit["trust_policy"]))
    visitor.verify(made)
    assert "Your role can be used without your External ID." in visitor.summary()
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
    ],
)
def test_the_update_that_fits_how_the_roles_were_made_is_open(visitor, stacks, opened):
    """None is where Deputy does not know it, or where they were made in several ways. Of a single
    role without a stack the page does not say that its stack is done.
    """
    world, name = visitor.world, visitor.world.kit(visitor.tenant)["stack_name"]
    for stack in stacks:
        made = world.connection(visitor.tenant)
        visitor.change(made, stack_id=stack_of(made, stack and stack.format(name=name)))
    if len(stacks) == 1:
        first = "Your stack" if stacks[0] else "Your role"
        assert text_of(visitor.page().select_one(".steps .words")).startswith(f"{first} : done.")
    visitor.rotate()
    shown = visitor.page().select("#rotation details[open] > summary")
    assert [text_of(summary) for summary in shown] == opened


def test_a_role_that_was_gone_may_have_come_back_in_another_way(visitor):
    """The deletion of a stack sends no message."""
    customer, kit = visitor.customer_and_kit()
    made = visitor.world.connect(
        visitor.tenant, customer.role(kit["role_name"], kit["trust_policy"])
    )
    visitor.change(made, stack_id=stack_of(made, kit["stack_name"]))
    customer.remove_role(kit["role_name"])
    assert visitor.verify(made)["status"] == "broken"
    customer.role(kit["role_name"], kit["trust_policy"])
    assert visitor.verify(made)["status"] == "verified"
    visitor.rotate()
    assert visitor.page().select("#rotation details[open]") == []
