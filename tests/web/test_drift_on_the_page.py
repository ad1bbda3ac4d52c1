"""What the page says of a role that was connected and lets strangers in since: what changed, in the customer's words."""

from tests.attacks.evidence import on_sqlite
from tests.support.cast import Customer, path_of, without_external_id
from tests.web.conftest import Visitor

CHANGED = "The role now accepts any External ID."
pytestmark = on_sqlite  # the words come from the same rows on both databases


def connect(visitor: Visitor) -> tuple[dict, Customer]:
    customer = Customer(visitor.world.aws)
    return visitor.world.connection(visitor.tenant, customer), customer


def loosen(visitor: Visitor, connection: dict, customer: Customer) -> None:
    kit = visitor.world.kit(visitor.tenant)
    customer.retrust(kit["role_name"], without_external_id(kit["trust_policy"]))
    assert visitor.world.admin("POST", path_of(connection, "/verify"))["why"] == CHANGED


def rows(visitor: Visitor) -> dict[str, list[str]]:
    """What stands beside each account: its status, and more words if there are any."""
    found = visitor.page().select("#live tbody tr")
    return {row.code.text: [said.text for said in row.select(".state > .pill, .state > small")] for row in found}


def test_the_headline_of_the_only_role_says_what_it_does_now(visitor: Visitor):
    loosen(visitor, *connect(visitor))
    assert visitor.page().find(id="summary").text == f"{CHANGED} Its trust policy needs a change."


def test_among_several_accounts_the_one_that_changed_says_what_its_role_does_now(visitor: Visitor):
    connect(visitor)
    connection, customer = connect(visitor)
    loosen(visitor, connection, customer)
    said = rows(visitor)
    assert said.pop(customer.account) == ["Needs a change", CHANGED]
    assert list(said.values()) == [["Connected"]]


def test_a_role_that_never_was_as_it_should_be_has_not_changed(visitor: Visitor):
    connect(visitor)
    kit, customer = visitor.world.kit(visitor.tenant), Customer(visitor.world.aws)
    visitor.paste(customer.role(kit["role_name"], without_external_id(kit["trust_policy"])))
    assert rows(visitor)[customer.account] == ["Needs a change", "The role accepts any External ID."]


def test_while_aws_is_unclear_the_page_speaks_of_no_answer_that_it_does_not_show(visitor: Visitor, faults):
    """The API points to `verification`, which the page does not have."""
    connection, customer = connect(visitor)
    loosen(visitor, connection, customer)
    faults.add("throttle", role_arn=connection["role_arn"])
    visitor.world.admin("POST", path_of(connection, "/verify"))
    assert visitor.page().find(id="summary").text.startswith("Your role can be used without your External ID.")
    connect(visitor)
    assert rows(visitor)[customer.account] == ["Needs a change"]
