"""A connection that was only searched for by its account: it is being looked for, and a visitor
may remove it.
"""

from datetime import timedelta
from uuid import UUID

import pytest
from bs4 import BeautifulSoup

from app.clock import now
from app.proofs.proof_queue import Claim
from app.store.database import SYSTEM
from app.store.models import Connection
from app.store.models.states import ConnectionStatus, StackState
from tests.attacks.evidence import on_sqlite
from tests.support.cast import Customer, path_of, without_external_id
from tests.web.conftest import Visitor, visit

pytestmark = on_sqlite  # nothing here depends on the database

FOREIGN = {"Sec-Fetch-Site": "cross-site"}


def text_of(found: BeautifulSoup) -> str:
    return " ".join(found.get_text(" ").split())


def items(visitor: Visitor) -> list[dict[str, object]]:
    return visitor.world.admin("GET", f"/v1/tenants/{visitor.tenant['id']}/connections")["items"]


def search(visitor: Visitor, account: str = "123456789012") -> dict[str, object]:
    assert visitor.paste(account).status_code == 303
    return next(one for one in items(visitor) if one["account_id"] == account)


def stop(visitor: Visitor, connection: dict[str, object], **options) -> int:
    return visitor.raw(f"/connections/{connection['id']}/stop", "POST", **options).status_code


def change(visitor: Visitor, connection: dict[str, object], **changes) -> None:
    with visitor.world.admin.app.extensions["deputy"].db.write(SYSTEM) as db:
        row = db.get(Connection, UUID(str(connection["id"])))
        for name, value in changes.items():
            setattr(row, name, value)


def test_what_a_visitor_removes_is_gone_audited_and_may_come_again(visitor: Visitor):
    made = search(visitor)
    visitor.world.admin("POST", path_of(made, "/verify"))  # with a proof, which goes along
    action = visitor.page().select_one("form[action$=stop]")["action"].removeprefix(visitor.path)
    answer = visitor.raw(action, "POST")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"{visitor.path}#status")
    assert items(visitor) == []
    event = visitor.world.audit(tenant_id=visitor.tenant["id"])[0]
    assert (event["action"], event["outcome"]) == ("connection.deleted", "ok")
    assert event["actor"]["kind"] == "onboarding_link"
    assert event["connection_id"] == made["id"]
    assert event["details"] == {"role_arn": made["role_arn"], "was": "pending", "version": 1}
    assert stop(visitor, made) == 404
    assert visitor.paste(visitor.world.role(visitor.tenant)).status_code == 303
    assert search(visitor)["id"] != made["id"]  # no trace of the first one forbids it


def insecure(visitor: Visitor, customer: Customer) -> dict[str, object]:
    made, kit = search(visitor, customer.account), visitor.world.kit(visitor.tenant)
    customer.role(kit["role_name"], without_external_id(kit["trust_policy"]))
    return visitor.world.admin("POST", path_of(made, "/verify"))


def proven(visitor: Visitor, customer: Customer) -> dict[str, object]:
    made = search(visitor, customer.account)
    visitor.world.role(visitor.tenant, customer)
    return visitor.world.admin("POST", path_of(made, "/verify"))


def broken(visitor: Visitor, customer: Customer) -> dict[str, object]:
    made = proven(visitor, customer)
    customer.remove_role(visitor.world.kit(visitor.tenant)["role_name"])
    return visitor.world.admin("POST", path_of(made, "/verify"))


def resumed(visitor: Visitor, customer: Customer) -> dict[str, object]:
    """Pending again, and proven once."""
    made = broken(visitor, customer)
    visitor.world.admin("POST", path_of(made, "/suspend"), {"reason": "x"})
    return visitor.world.admin("POST", path_of(made, "/resume"), {"reason": "x"})


def suspended(visitor: Visitor, customer: Customer) -> dict[str, object]:
    made = search(visitor, customer.account)
    return visitor.world.admin("POST", path_of(made, "/suspend"), {"reason": "x"})


def told_by_a_stack(visitor: Visitor, customer: Customer) -> dict[str, object]:
    made = search(visitor, customer.account)
    change(visitor, made, stack=StackState.MADE)
    return made


def given_by_its_arn(visitor: Visitor, customer: Customer) -> dict[str, object]:
    kit = visitor.world.kit(visitor.tenant)
    visitor.paste(f"arn:aws:iam::{customer.account}:role/{kit['role_name']}")
    return items(visitor)[0]


@pytest.mark.parametrize(
    "made",
    [insecure, resumed, suspended, told_by_a_stack, given_by_its_arn],
    ids=lambda f: f.__name__,
)
def test_no_other_connection_can_be_removed_through_a_link(visitor: Visitor, made):
    connection = made(visitor, Customer(visitor.world.aws))
    status = next(one for one in items(visitor) if one["id"] == connection["id"])["status"]
    assert visitor.page().select("form[action$=stop]") == []
    assert stop(visitor, connection) == 409
    event = visitor.world.audit(tenant_id=visitor.tenant["id"])[0]
    assert (event["action"], event["details"]["code"]) == ("connection.refused", "conflict")
    assert [one["status"] for one in items(visitor)] == [status]


def test_a_search_of_another_tenant_is_as_good_as_absent(visitor: Visitor):
    other = visit(visitor.world, visitor.world.tenant())
    theirs = search(other)
    found = visitor.raw(f"/connections/{theirs['id']}/stop", "POST")
    nothing = visitor.raw("/connections/01890000-0000-7000-8000-000000000000/stop", "POST")
    assert found.status_code == nothing.status_code == 404
    assert found.data == nothing.data
    assert "no longer on the list" in found.text
    assert len(items(other)) == 1


def test_another_site_can_not_remove_a_search(visitor: Visitor):
    made = search(visitor)
    assert stop(visitor, made, headers=FOREIGN) == 403
    assert len(items(visitor)) == 1


def test_removals_are_limited_for_each_link(visitor: Visitor):
    nowhere = {"id": "01890000-0000-7000-8000-000000000000"}
    assert [stop(visitor, nowhere) for _ in range(22)] == [404] * 20 + [429] * 2


def test_a_proof_of_a_search_that_was_removed_meanwhile_is_dropped(visitor: Visitor):
    made, services = search(visitor), visitor.world.admin.app.extensions["deputy"]
    lease = now() + timedelta(minutes=2)
    change(visitor, made, due_at=lease)
    claim = Claim(UUID(visitor.tenant["id"]), UUID(made["id"]), lease)
    assert stop(visitor, made) == 303
    assert not services.proof_queue.prove(claim)
    assert items(visitor) == []
    assert ConnectionStatus.DELETED.value not in str(visitor.page())
