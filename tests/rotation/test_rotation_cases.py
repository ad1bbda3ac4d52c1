"""Single steps of a rotation, and what roles and people may do meanwhile."""

import copy
import json
import math
from datetime import timedelta
from uuid import UUID

import pytest
import sqlalchemy

from app.clock import now
from app.errors import NotFoundError
from app.ids import first_id_at, new_external_id
from app.limits import limits
from app.proofs.schedule import ProofInterval
from app.rotation.switch import plan_rotation
from app.store.database import SYSTEM
from app.store.models import Connection, ExternalIdRow, Rotation
from tests.rotation.conftest import Tenant, accepting
from tests.support.cast import Customer, path_of, without_external_id
from tests.support.versions import page_of

EMERGENCY = {"reason": "abused", "emergency": True}


def test_a_tenant_has_one_rotation_at_a_time_which_can_only_be_read_once_it_has_ended(tenant):
    steps = (("POST", "/complete"), ("DELETE", ""))
    for method, step in (("GET", ""), *steps):
        tenant.refused(method, step, expect=404, code="not_found")
    following = tenant.start()["next_external_id"]
    refused = tenant.refused("POST", reason="again")
    assert following in refused
    assert "ready" in refused
    assert tenant.rotation()["next_external_id"] == following
    tenant.complete()
    assert tenant.rotation()["state"] == "retired", "no role could still accept the old one"
    for method, step in steps:
        tenant.refused(method, step)


def test_a_bound_key_rotates_its_own_tenant_within_a_quota(tenant, new_tenant, monkeypatch):
    monkeypatch.setattr(limits, "ROTATIONS", limits.ROTATIONS._replace(most=3))
    own = tenant.world.key("tenants:write", tenant=tenant.made)
    own.refused("POST", new_tenant().path, {"reason": "x"}, expect=404, code="not_found")
    for rotation in range(3):
        own("POST", tenant.path, {"reason": "x"}, expect=201)
        if rotation == 0:  # one that is refused does not count
            own.refused("POST", tenant.path, {"reason": "x"}, expect=409, code="conflict")
        own("DELETE", tenant.path, expect=204)
    own.refused("POST", tenant.path, {"reason": "x"}, expect=429, code="rate_limited")
    tenant.start()  # the vendor still can
    for _ in range(2):
        emergency = own("POST", tenant.path, {"reason": "it leaked", "emergency": True})
        assert emergency["emergency"], "of the one that is open"


def test_a_rotation_is_the_latest_also_if_the_clock_of_an_earlier_one_was_ahead(tenant):
    tenant.start()
    with tenant.services.db.write(SYSTEM) as db:
        own = sqlalchemy.update(Rotation).filter_by(tenant_id=UUID(tenant.made["id"]))
        db.execute(own.values(id=first_id_at(now() + timedelta(hours=2))))
    tenant.abandon()
    following = tenant.start()["next_external_id"]
    assert tenant.rotation()["next_external_id"] == following
    assert tenant.complete()["state"] == "retired"
    assert tenant.external_id == following


def test_an_emergency_that_is_abandoned_gives_back_the_external_id_also_by_a_clock_that_is_behind(
    tenant, imported
):
    connection, (older, _) = tenant.connection(), imported()
    tenant.start()
    tenant.clock.shift(-3)
    tenant.world.admin("POST", tenant.path, EMERGENCY)
    tenant.abandon()
    assert tenant.get(connection)["issues"] is True
    assert tenant.get(older)["issues"] is True


def test_what_an_emergency_withdrew_for_good_no_later_rotation_gives_back(tenant, imported):
    """Also if the emergency's clock was ahead."""
    connection, _ = imported()
    tenant.clock.shift(3600)
    tenant.start(emergency=True)
    tenant.break_role(connection)
    tenant.complete()
    tenant.clock.shift(-3600)
    for emergency in (False, True):
        tenant.start(emergency=emergency)
        tenant.abandon()
    row = tenant.row(connection)
    with tenant.services.db.read() as db:
        assert db.get_one(ExternalIdRow, row.external_id_id).withdrawn_at is not None


def test_roles_that_accept_the_next_one_already_issue_soon_after_an_emergency(tenant):
    connection = tenant.connection()
    tenant.after(minutes=20)
    tenant.start()
    tenant.update_role(connection)  # nobody tells Deputy
    tenant.world.admin("POST", tenant.path, EMERGENCY)
    assert tenant.get(connection)["issues"] is False
    tenant.after(seconds=1)
    assert tenant.get(connection)["issues"] is True


def test_a_role_that_goes_back_to_the_old_external_id_is_told_so_by_a_diagnosis(tenant):
    connection, old = tenant.connection(), tenant.trust
    tenant.start()
    tenant.reprove(connection)
    tenant.after(minutes=3)
    assert tenant.id_of(connection) != tenant.first_id
    tenant.update_role(connection, old)
    found = tenant.world.admin("POST", path_of(connection, "/diagnose"))
    assert "accepts another of the tenant's External IDs" in found["conclusion"]


def test_a_tenant_that_is_deleted_before_its_role_is_tried_is_not_found(tenant):
    row = tenant.row(tenant.connection())
    tenant.world.admin("DELETE", f"/v1/tenants/{tenant.made['id']}", expect=204)
    with tenant.services.db.read() as db, pytest.raises(NotFoundError):
        plan_rotation(db, row)


def test_a_role_that_is_not_proven_is_tried_with_the_next_one_only_in_its_turn(tenant):
    """Once it accepts one, it is asked no more."""
    proven = tenant.connection()
    insecure = tenant.connection(status="insecure", trust=without_external_id(tenant.trust))
    tenant.start()
    with tenant.services.db.read() as db:
        assert plan_rotation(db, tenant.row(proven)).upcoming is not None
        assert plan_rotation(db, tenant.row(insecure)).upcoming is None


def test_the_kit_carries_both_and_then_the_new_one_alone(tenant):
    tenant.connection()
    before, made = tenant.kit, tenant.start()
    kit, both = tenant.kit, [made["external_id"], made["next_external_id"]]
    assert (before["next_external_id"], kit["next_external_id"]) == (None, made["next_external_id"])
    assert kit["trust_policy"] == accepting(before["trust_policy"], *both)
    for text in (
        kit["terraform"],
        kit["aws_cli"],
        kit["update"]["terraform"],
        kit["update"]["aws_cli"],
    ):
        assert all(one in text for one in both)
    for link in (kit["launch_stack_url"], kit["organization_launch_url"]):
        assert f"param_NextExternalId={made['next_external_id']}" in link
        assert len(link) < 2000
    tenant.abandon()
    assert tenant.kit == before


def test_a_rotation_is_not_completed_while_a_verified_connection_waits(tenant):
    first, second = tenant.connection(), tenant.connection()
    tenant.start()
    tenant.switch(first)
    assert tenant.refused("POST", "/complete").startswith("Verified connections that still have")
    tenant.idle(days=1)
    assert tenant.state() == ("open", 1, 1), "no deadline"
    assert tenant.issue(second)
    tenant.world.admin("DELETE", path_of(second), expect=204)
    assert tenant.state() == ("ready", 1, 0)
    tenant.after(minutes=15)
    tenant.idle(hours=23)
    assert tenant.state()[0] == "ready"
    tenant.idle(hours=1)
    assert tenant.state()[0] == "retiring", "a day after it was ready"
    [event] = tenant.events(action="rotation.completed")
    assert event["actor"]["kind"] == "worker"


def test_a_rotations_last_day_begins_again_when_a_connection_waits_again(tenant):
    first, before = tenant.connection(), tenant.trust
    tenant.start()
    tenant.switch(first)
    late = tenant.connection(trust=before)
    assert tenant.state() == ("open", 1, 1)
    tenant.idle(hours=20)
    tenant.switch(late)
    tenant.idle(hours=5)
    assert tenant.state()[0] == "ready", (
        "a day has passed since it was ready first, and not since it is again"
    )
    tenant.idle(hours=20)
    assert tenant.state()[0] == "retiring"


def test_a_role_that_refuses_in_between_begins_again(tenant):
    connection = tenant.connection()
    before = tenant.trust
    tenant.start()
    tenant.reprove(connection)
    tenant.after(minutes=1)
    tenant.reprove(connection, before)
    tenant.update_role(connection)
    tenant.after(minutes=1)
    tenant.verify(connection)
    assert tenant.state() == ("open", 0, 1), (
        "two minutes from the first acceptance, which was taken back"
    )
    tenant.after(minutes=3)
    assert tenant.state() == ("ready", 1, 0)


@pytest.mark.parametrize("readable", [True, False])
def test_a_pattern_that_only_the_next_one_fits_is_found(tenant, readable):
    """The role compares its own External ID exactly, and the next one by its beginning."""
    connection = tenant.connection(reading_itself=readable)
    following, trust = tenant.start()["next_external_id"], tenant.trust
    exact = accepting(trust, tenant.first_id)
    loose = copy.deepcopy(exact["Statement"][0])
    loose["Condition"].pop("StringEquals")
    loose["Condition"]["StringLike"] = {"sts:ExternalId": following[:20] + "*"}
    assert (
        tenant.reprove(connection, exact | {"Statement": [*exact["Statement"], loose]})["status"]
        == "insecure"
    )
    assert tenant.id_of(connection) == tenant.first_id


def test_a_role_that_was_given_the_next_one_alone_is_not_lost(tenant):
    """The customer replaced the External ID instead of adding one: waiting two minutes would be
    an outage.
    """
    connection = tenant.connection()
    following = tenant.start()["next_external_id"]
    assert tenant.reprove(connection, accepting(tenant.trust, following))["status"] == "verified"
    assert tenant.sent(connection).count(following) == 2, "in one proof"
    assert tenant.id_of(connection) == following
    assert tenant.issue(connection)


def test_a_new_connection_takes_the_next_one_if_its_role_accepts_it(tenant):
    following = tenant.start()["next_external_id"]
    connection = tenant.connection()
    assert connection["external_id"] == following
    assert tenant.state() == ("ready", 1, 0)
    assert "switched" in tenant.refused("DELETE")
    tenant.world.admin("DELETE", path_of(connection), expect=204)
    tenant.abandon()
    assert tenant.state()[0] == "abandoned", "a deleted connection has no role to lose"


def test_a_rotation_is_not_abandoned_once_a_connection_has_switched_also_if_that_one_has_stopped(
    tenant,
):
    """Its role may accept the next External ID alone by now, and nothing else would let it in
    again.
    """
    suspended, broken = tenant.connection(), tenant.connection()
    following = tenant.start()["next_external_id"]
    tenant.switch(suspended)
    tenant.suspend(suspended)
    tenant.refused("DELETE")
    tenant.world.admin("DELETE", path_of(suspended), expect=204)
    tenant.switch(broken)
    tenant.remove_role(broken)
    assert tenant.verify(broken)["status"] == "broken"
    assert tenant.state() == ("ready", 0, 0)
    assert "has switched" in tenant.refused("DELETE")
    assert tenant.issued_ids()[following] == "next"


def test_a_first_refusal_in_a_proof_that_a_rotation_made_due_breaks_nothing(tenant):
    """As in every proof that no person asked for, the mistake may be the vendor's."""
    connection = tenant.connection()
    tenant.after(hours=1)
    tenant.start()
    tenant.reprove(connection)
    tenant.remove_role(connection)
    tenant.after(minutes=2)
    latest = tenant.world.admin("GET", path_of(connection, "/proofs"))["items"][0]
    assert (latest["trigger"], latest["verdict"]) == ("rotation", "inconclusive")
    assert tenant.get(connection)["status"] == "verified"
    tenant.after(minutes=1)
    assert tenant.get(connection)["status"] == "broken", "the second refusal counts"


def test_in_an_emergency_a_new_connection_takes_no_other_than_the_next_one(tenant):
    before = tenant.trust
    tenant.start(emergency=True)
    connection = tenant.connection(trust=before, status="pending")
    assert tenant.first_id not in tenant.sent(connection)
    assert tenant.reprove(connection)["status"] == "verified"
    assert tenant.issue(connection)


def test_in_an_emergency_the_kit_gives_roles_the_next_one_alone(tenant):
    connection, before = tenant.connection(), tenant.first_id
    following = tenant.start(emergency=True)["next_external_id"]
    kit = tenant.kit
    assert (kit["external_id"], kit["next_external_id"]) == (following, None)
    for trust in (kit["trust_policy"], kit["update"]["trust_policy"]):
        assert before not in json.dumps(trust)
    assert before not in kit["launch_stack_url"] + kit["update"]["terraform"]
    assert tenant.reprove(connection)["status"] == "verified"
    assert tenant.state() == ("ready", 1, 0)


def test_the_page_asks_nothing_of_a_rotation_that_no_role_has_accepted(tenant):
    """The role is broken, and is told of its trust policy."""
    connection = tenant.connection()
    tenant.break_role(connection)
    following = tenant.start(emergency=True)["next_external_id"]
    page = page_of(tenant.world, tenant.made)
    assert page.find(id="rotation") is None
    assert following in page.find(id="trust-should-be").text


def test_a_connection_that_was_broken_or_pending_is_proven_with_the_current_one_first(tenant):
    connection = tenant.connection()
    before = tenant.trust
    foreign = accepting(before, new_external_id())
    pending = tenant.connection(trust=foreign, status="pending")
    tenant.after(seconds=1)
    assert tenant.reprove(connection, foreign)["status"] == "broken"
    following = tenant.start()["next_external_id"]
    assert tenant.state() == ("ready", 0, 0)
    tenant.update_role(connection, before)
    asked = len(tenant.sent(connection))
    assert tenant.verify(connection)["status"] == "verified"
    assert tenant.sent(connection)[asked] == tenant.first_id
    assert tenant.state() == ("open", 0, 1), "it waits now"
    assert tenant.reprove(pending)["external_id"] == tenant.first_id
    assert tenant.state() == ("open", 0, 2)
    tenant.break_role(connection)
    assert tenant.reprove(connection, accepting(before, following))["status"] == "verified"
    assert tenant.id_of(connection) == following


def test_an_insecure_connection_is_tried_with_the_current_one_then_the_next_one_or_its_own(tenant):
    lost, other = tenant.connection(), tenant.connection()
    trust = tenant.trust

    def tried_while_insecure():
        assert tenant.reprove(lost, without_external_id(trust))["status"] == "insecure"
        asked = len(tenant.sent(lost))
        tenant.break_role(lost)
        return tenant.sent(lost)[asked:]

    old = tenant.first_id
    following = tenant.start()["next_external_id"]
    assert tried_while_insecure() == [old, following]
    tenant.switch(other)
    assert tenant.complete()["state"] == "retiring"
    assert tried_while_insecure() == [following, old]


def test_a_broken_connection_is_proven_with_the_retiring_id_last_and_keeps_it_from_retiring(tenant):
    lost, other = tenant.connection(), tenant.connection()
    before = tenant.trust
    tenant.break_role(lost)
    old = tenant.start()["external_id"]
    tenant.switch(other)
    tenant.complete()
    assert tenant.reprove(lost, before)["status"] == "verified"
    assert tenant.id_of(lost) == old
    assert tenant.issue(lost)
    for said in ("retiring", "retired"):
        tenant.reprove(other)
        tenant.after(minutes=2)
        assert tenant.state()[0] == said
        tenant.reprove(lost)
        tenant.after(minutes=2)
    assert tenant.id_of(lost) == tenant.external_id
    assert tenant.issue(lost)


def test_a_connection_that_broke_within_a_day_keeps_its_external_id_from_retiring(tenant):
    """A faulty policy of the vendor's breaks all connections at once, and this one's role
    accepts no other ID.
    """
    connection, before = tenant.connection(), tenant.trust

    def break_it():
        tenant.break_role(connection)

    old = tenant.start()["external_id"]
    break_it()
    assert tenant.complete()["state"] == "retiring"
    tenant.update_role(connection, before)
    assert (tenant.verify(connection)["status"], tenant.id_of(connection)) == ("verified", old)
    break_it()
    tenant.idle(hours=23)
    assert tenant.state()[0] == "retiring"
    tenant.idle(hours=2)
    assert tenant.state()[0] == "retired"


@pytest.mark.parametrize("switched", [0, 1])
@pytest.mark.parametrize("lose", [Tenant.suspend, Tenant.break_role])
def test_a_rotation_that_leaves_a_proven_role_behind_does_not_complete_by_itself(
    tenant, lose, switched
):
    """Not even after a day in which the vendor's broker had lost a permission."""
    connection, before = tenant.connection(), tenant.trust
    others = [tenant.connection() for _ in range(switched)]
    tenant.start()
    tenant.switch(*others)
    lose(tenant, connection)
    assert tenant.state() == ("ready", switched, 0)
    tenant.idle(hours=1)
    for other in others:
        lose(tenant, other)
    tenant.idle(hours=26)
    tenant.idle(hours=2)
    assert tenant.state()[0] == "ready"
    tenant.update_role(connection, before)
    if lose is Tenant.suspend:
        tenant.resume(connection)
    assert tenant.verify(connection)["status"] == "verified"
    assert tenant.state()[0] == "open"
    tenant.break_role(connection)
    for days in (13, 2):
        assert tenant.state()[0] == "ready"
        tenant.idle(days=days)
    tenant.idle(hours=1)
    assert tenant.state()[0] != "ready", "a role that refuses for weeks is lost"


@pytest.mark.parametrize("is_suspended", [False, True])
def test_a_role_that_awaits_approval_is_not_left_behind_either(tenant, is_suspended):
    """Its proofs passed, so its External ID is not retired by the clock alone. Nobody searches for
    the role any more.
    """
    waiting = tenant.world.awaiting_approval(tenant.made)
    tenant.idle(days=16)
    tenant.start()
    if is_suspended:
        tenant.world.suspend(waiting)
    tenant.idle(hours=1)
    for _ in range(2):
        tenant.idle(days=2)
    assert tenant.state()[0] == "ready"
    if not is_suspended:
        tenant.world.admin("POST", path_of(waiting, "/approve"))
        assert tenant.verify(waiting)["status"] == "verified"
        assert tenant.state() == ("open", 0, 1)


def test_a_role_that_awaits_approval_is_left_behind_if_it_is_insecure(tenant):
    waiting = tenant.world.awaiting_approval(tenant.made)
    tenant.start()
    tenant.after(hours=1)
    customer = Customer(tenant.world.aws, waiting["account_id"])
    role_name = waiting["role_arn"].rpartition("/")[2]
    customer.retrust(role_name, without_external_id(tenant.trust))
    assert tenant.verify(waiting)["status"] == "insecure"
    tenant.idle(days=2)
    tenant.verify(waiting)
    assert tenant.state()[0] != "ready"


def test_a_rotation_of_a_tenant_without_proven_roles_completes_by_itself(tenant):
    tenant.connection(trust=accepting(tenant.trust, new_external_id()), status="pending")
    tenant.start()
    tenant.idle(hours=1)
    tenant.idle(hours=25)
    assert tenant.state()[0] != "ready"


def test_a_connection_that_became_insecure_within_a_day_keeps_the_retiring_one(tenant):
    left, other, before = tenant.connection(), tenant.connection(), tenant.trust
    tenant.start()
    tenant.switch(other)
    tenant.suspend(left)
    tenant.complete()
    tenant.update_role(other)
    tenant.resume(left)
    assert tenant.verify(left)["status"] == "verified"
    assert tenant.reprove(left, without_external_id(before))["status"] == "insecure"
    tenant.after(hours=2)
    assert tenant.state()[0] == "retiring", "the other one has refused it twice"


def test_a_connection_is_not_paired_with_a_retired_one_again(tenant):
    connection = tenant.connection()
    old_trust = tenant.trust
    tenant.suspend(connection)
    tenant.start()
    tenant.complete()
    assert tenant.state()[0] == "retired"
    resumed = tenant.resume(connection)
    assert resumed["status"] == "pending"
    detail = resumed["verification"]["checks"][0]["detail"]
    assert "retired" in detail
    assert "Update the role" in detail
    assert old_trust != tenant.trust
    assert tenant.reprove(connection)["status"] == "verified"
    assert tenant.id_of(connection) == tenant.external_id


def test_a_trust_policy_may_still_name_a_retired_one_and_is_told_to_remove_it(tenant):
    """It is nobody else's. To stop issuing would be the outage that a rotation avoids."""
    connection = tenant.connection()
    oldest = tenant.start()["external_id"]
    tenant.switch(connection)
    tenant.complete()
    tenant.start()
    assert tenant.issued_ids()[oldest] == "retired"
    seen = tenant.verify(connection)
    assert seen["status"] == "verified"
    assert {check["outcome"] for check in seen["verification"]["checks"]} == {"passed"}
    [warning] = seen["verification"]["warnings"]
    assert (warning["name"], oldest in warning["detail"]) == (
        "trust_policy_names_retired_external_id",
        True,
    )
    assert tenant.reprove(connection)["verification"]["warnings"] == []


def test_a_tenants_own_roles_are_tried_within_the_hour_also_in_a_fleet_with_a_longer_interval(
    new_tenant,
):
    tenant, neighbour = new_tenant(), new_tenant()
    connection, neighbours = tenant.connection(), neighbour.connection()

    def is_due_within_the_hour(step):
        late, soon = now() + timedelta(hours=10), now() + timedelta(hours=1)
        with tenant.services.db.write(SYSTEM) as db:
            db.execute(sqlalchemy.update(Connection).values(due_at=late))
        step()
        assert neighbour.row(neighbours).due_at == late
        return tenant.row(connection).due_at == soon

    assert is_due_within_the_hour(tenant.start)
    tenant.switch(connection)
    assert is_due_within_the_hour(tenant.complete)


def test_each_connection_is_tried_hourly_also_in_a_fleet_that_is_proven_every_ten_hours(
    tenant, imported, monkeypatch
):
    interval = tenant.services.proof_queue.interval
    monkeypatch.setattr(interval, "_interval", ProofInterval(3600, 36_000))
    monkeypatch.setattr(interval, "_until", math.inf)
    waiting, (older, _) = tenant.connection(), imported()
    tenant.after(minutes=20)
    following = tenant.start()["next_external_id"]
    tenant.after(hours=3, minutes=1)
    assert tenant.sent(waiting).count(following) == 3
    by_chance = tenant.sent(older).count(following)  # its slot of a routine proof may lie here
    tenant.world.admin("POST", tenant.path, EMERGENCY)
    tenant.after(hours=3, minutes=1)
    assert tenant.sent(waiting).count(following) == 7, "once at once"
    assert tenant.sent(older).count(following) == by_chance + 4
