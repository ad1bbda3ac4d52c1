"""What the page says while a tenant's External ID is replaced."""

import pytest

from tests.attacks.evidence import on_sqlite
from tests.support.cast import Customer
from tests.web.conftest import Visitor

pytestmark = on_sqlite  # nothing here depends on the database


@pytest.fixture
def rotation(visitor: Visitor) -> str:
    return f"/v1/tenants/{visitor.tenant['id']}/external-id/rotation"


def summary(visitor: Visitor) -> str:
    return visitor.page().select_one("#summary").get_text()


def test_a_page_without_a_rotation_says_nothing_of_one(visitor: Visitor, rotation: str):
    visitor.world.proven(visitor.tenant)
    assert visitor.page().select("#rotation") == []
    visitor.world.admin("POST", rotation, {"reason": "x"}, expect=201)
    assert visitor.page().select("#rotation")
    visitor.world.admin("DELETE", rotation, expect=204)
    assert visitor.page().select("#rotation") == []


def test_the_page_says_how_each_kind_of_role_is_updated_and_which_wait(visitor: Visitor, rotation: str):
    world = visitor.world
    first = world.proven(visitor.tenant)
    made = world.admin("POST", rotation, {"reason": "x"}, expect=201)
    second = world.proven(visitor.tenant)
    kit, page = world.kit(visitor.tenant), visitor.page()
    assert "update 1 role." in summary(visitor)
    assert page.select_one("#new-external-id").get_text() == made["next_external_id"]
    assert page.select_one("#next-external-id").get_text() == made["next_external_id"]
    assert page.select_one("#update-template").get_text() == kit["template_url"]
    assert page.select_one("#update-NextExternalId").get_text() == made["next_external_id"]
    assert page.select_one("#update-ExternalId").get_text() == made["external_id"]
    assert made["next_external_id"] in page.select_one("#update-stack").get_text()
    assert made["next_external_id"] in page.select_one("#update-organization").get_text()
    assert made["next_external_id"] in page.select_one("#rotation-trust").get_text()
    waiting = {
        row.select_one("th").get_text(strip=True)[:12]: "to be updated" in row.get_text()
        for row in page.select("tr")[1:]
    }
    assert waiting == {first["account_id"]: True, second["account_id"]: False}


def test_an_emergency_says_that_the_role_is_not_used(visitor: Visitor, rotation: str):
    visitor.world.proven(visitor.tenant)
    visitor.world.admin("POST", rotation, {"reason": "x", "emergency": True}, expect=201)
    assert summary(visitor) == "Your External ID was withdrawn: update your role to restore access."
    assert "does not use your role until the new one is accepted" in visitor.page().select_one("#rotation").get_text()


def test_at_the_end_the_page_asks_to_remove_the_old_external_id(visitor: Visitor, rotation: str):
    world = visitor.world
    world.admin("POST", rotation, {"reason": "x"}, expect=201)
    kit, customer = world.kit(visitor.tenant), Customer(world.aws)
    world.connect(visitor.tenant, customer.role(kit["role_name"], kit["trust_policy"]))
    assert (
        summary(visitor) == "Connected. Your External ID is being replaced: every connected role accepts the new one."
    )
    assert visitor.page().select("#update-template") == []
    made = world.admin("POST", f"{rotation}/complete")
    page = visitor.page()
    assert "remove the old one from your role" in summary(visitor)
    assert page.select_one("#update-ExternalId").get_text() == made["next_external_id"]
    assert page.select("#update-NextExternalId") == []
    assert "NextExternalId: empty" in page.select_one("#rotation").get_text()
    assert made["external_id"] not in page.get_text()
