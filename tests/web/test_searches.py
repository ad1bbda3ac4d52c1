"""A connection that was only searched for by its account: it is being looked for, and a visitor
may remove it.
"""

from datetime import timedelta
from uuid import UUID

import pytest

from app.clock import now
from app.proofs.proof_queue import Claim
from app.store.models import Trigger
from app.store.models.connection_status import ConnectionStatus, StackState
from tests.web.conftest import visit

FOREIGN = {"Sec-Fetch-Site": "cross-site"}


def search(visitor, account="123456789012"):
    assert visitor.paste(account).status_code == 303
    return next(one for one in visitor.connections() if one["account_id"] == account)


def stop(visitor, connection, **options):
    return visitor.raw(f"/connections/{connection['id']}/stop", "POST", **options).status_code


def test_an_account_may_be_entered_as_the_console_shows_it(visitor):
    assert visitor.paste("1234-5678-9012").status_code == 303
    assert visitor.connections()[0]["account_id"] == "123456789012"


def test_what_a_visitor_removes_is_gone_audited_and_may_come_again(visitor):
    made = search(visitor)
    visitor.verify(made)  # with a proof, which goes along
    assert stop(visitor, made, headers=FOREIGN) == 403, "another site can't"
    action = visitor.page().select_one("form[action$=stop]")["action"].removeprefix(visitor.path)
    answer = visitor.raw(action, "POST")
    assert answer.status_code == 303
    assert answer.headers["Location"] == f"{visitor.path}#status"
    assert visitor.connections() == []
    event = visitor.world.audit(tenant_id=visitor.tenant["id"])[0]
    assert event["action"] == "connection.deleted"
    assert event["outcome"] == "ok"
    assert event["actor"]["kind"] == "onboarding_link"
    assert event["connection_id"] == made["id"]
    assert event["details"] == {
        "role_arn": made["role_arn"],
        "was": "pending",
        "status": "deleted",
        "version": 1,
    }
    assert stop(visitor, made) == 404
    assert visitor.paste(visitor.world.role(visitor.tenant)).status_code == 303
    assert search(visitor)["id"] != made["id"]  # no trace of the first one forbids it


@pytest.mark.parametrize(
    "changes",
    [
        {"verified_at": now(), "role_unique_id": "AROAEXAMPLE"},  # proven before a suspension
        {"status": ConnectionStatus.SUSPENDED},
        {"stack": StackState.MADE},
        {"found_by_account": False},  # given by its ARN
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_no_other_connection_can_be_removed_through_a_link(visitor, changes):
    made = search(visitor)
    visitor.change(made, **changes)
    before = visitor.connections()
    assert visitor.page().select("form[action$=stop]") == []
    assert stop(visitor, made) == 409
    event = visitor.world.audit(tenant_id=visitor.tenant["id"])[0]
    assert event["action"] == "connection.refused"
    assert event["details"]["code"] == "conflict"
    assert visitor.connections() == before


def test_a_search_of_another_tenant_is_as_good_as_absent(visitor):
    other = visit(visitor.world, visitor.world.tenant())
    theirs = search(other)
    found = visitor.raw(f"/connections/{theirs['id']}/stop", "POST")
    nothing = visitor.raw("/connections/01890000-0000-7000-8000-000000000000/stop", "POST")
    assert found.status_code == nothing.status_code == 404
    assert found.data == nothing.data
    assert "no longer on the list" in found.text
    assert len(other.connections()) == 1


def test_removals_are_limited_for_each_link(visitor):
    nowhere = {"id": "01890000-0000-7000-8000-000000000000"}
    assert [stop(visitor, nowhere) for _ in range(22)] == [404] * 20 + [429] * 2


def test_a_proof_of_a_search_that_was_removed_meanwhile_is_dropped(visitor):
    made, services = search(visitor), visitor.services
    lease = now() + timedelta(minutes=2)
    visitor.change(made, due_at=lease)
    claim = Claim(UUID(visitor.tenant["id"]), UUID(made["id"]), lease, Trigger.REGISTERED, True)
    assert stop(visitor, made) == 303
    assert not services.proof_queue.prove(claim)
    assert visitor.connections() == []
    assert ConnectionStatus.DELETED.value not in str(visitor.page())
