"""What the page says of accounts that were not declared, and of roles that the vendor has to
approve.
"""

from tests.support.cast import Customer, path_of
from tests.web.conftest import visit

WRITES = "bucket-sync"


def test_a_role_in_an_account_that_is_not_declared_is_refused_and_says_whom_to_ask(world, visitor):
    path = f"/v1/tenants/{visitor.tenant['id']}"
    arn = world.role(visitor.tenant)
    world.admin("PATCH", path, {"accounts": [Customer(world.aws).account]})
    for given in (arn, arn.split(":")[4]):
        response = visitor.paste(given)
        assert response.status_code == 422
        assert "ask Example Vendor to add it" in response.text
    assert world.calls_for(arn) == []
    assert visitor.connections() == []


def test_the_page_says_that_a_role_that_may_write_waits_for_the_vendor(world):
    visitor = visit(world, world.tenant(), permission_set=WRITES)
    visitor.paste(world.role(visitor.tenant))
    [made] = visitor.connections()
    assert made["status"] == "pending"
    assert made["awaiting_approval"] is True
    assert visitor.steps() == ["done"] * 4 + ["now"]
    text = visitor.page().get_text()
    assert "so we must approve it before use" in text
    assert "you have nothing left to do" in text
    visitor.raw(f"/connections/{made['id']}/verify", "POST")
    assert visitor.connections()[0]["awaiting_approval"]
    world.admin("PATCH", path_of(made), {"permission_set": "inventory"})
    assert "because the role can then change data" not in visitor.page().get_text(), (
        "the other set only reads"
    )
    world.admin("POST", path_of(made, "/approve"))
    assert visitor.steps() == ["done"] * 5
