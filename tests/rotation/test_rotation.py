"""A tenant's External ID is replaced without an outage: proofs decide each step. More
cases are in test_rotation_cases.py and test_rotation_retires.py.
"""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.exc import IntegrityError

from app.aws.sts import Sts, Unavailable
from app.factory import create_app
from app.identity import WORKER, SystemPrincipal, tenant_of
from app.ids import new_external_id
from app.rotation import rotations as rotation
from app.rotation.rotations import settle_all
from app.store.database import SYSTEM
from app.store.models import Connection, ExternalIdCheck, Rotation, Tenant as Tenants, Trigger
from tests.conftest import make_config
from tests.rotation.conftest import accepting
from tests.support.cast import Api, path_of
from tests.support.rows import at_once
from tests.support.waiting import until, waiting_for_locks

RETIRED_WARNING = "Not every role was seen to refuse it."
# No question about locks or triggers


def test_a_rotation_makes_the_next_external_id_and_says_how_far_it_is(tenant):
    connection = tenant.connection()
    made = tenant.start()
    assert made == tenant.rotation()
    following = made.pop("next_external_id")
    assert following not in {tenant.first_id, None}
    assert tenant.issued_ids()[following] == "next"
    assert made.pop("started_at")
    assert made == {
        "state": "open",
        "emergency": False,
        "external_id": tenant.first_id,
        "connections": {"total": 1, "switched": 0, "waiting": 1},
    }
    assert tenant.external_id == tenant.id_of(connection) == tenant.first_id
    [event] = tenant.events(action="rotation.started")
    assert event["details"] == {
        "external_id": tenant.first_id,
        "next_external_id": following,
        "reason": "it is old",
        "emergency": False,
    }


def test_of_several_rotations_that_start_at_once_one_does(tenant):
    start = partial(tenant.world.admin.raw, "POST", tenant.path, {"reason": "x"})
    statuses = sorted(answer.status_code for answer in at_once([start] * 4))
    assert statuses == [201, 409, 409, 409]


def test_of_several_abandonments_that_start_at_once_one_takes_effect(tenant):
    tenant.start()
    abandon = partial(tenant.world.admin.raw, "DELETE", tenant.path)
    statuses = sorted(answer.status_code for answer in at_once([abandon] * 4))
    assert statuses == [204, 409, 409, 409]


def test_a_full_rotation_takes_proofs_alone_and_interrupts_nothing(tenant):
    connection = tenant.connection()
    old, following = tenant.first_id, tenant.start()["next_external_id"]

    def issued():
        sessions.append(tenant.issue(connection))
        return tenant.id_of(connection)

    sessions, version = [], tenant.row(connection).version
    tenant.after(hours=2)
    assert tenant.sent(connection).count(following) >= 2, "it is tried hourly"
    assert (issued(), tenant.state()) == (old, ("open", 0, 1))
    tenant.reprove(connection)
    assert (issued(), tenant.state()) == (old, ("open", 0, 1))
    tenant.after(minutes=1)
    tenant.verify(connection)
    assert (issued(), tenant.state()) == (old, ("open", 0, 1)), (
        "a person does not shorten the two minutes"
    )
    tenant.after(minutes=2)
    assert (issued(), tenant.state()) == (following, ("ready", 1, 0))
    assert tenant.row(connection).version == version + 1
    assert sessions[1] == sessions[2] != sessions[3], "the old pair's is dropped"
    latest = tenant.world.admin("GET", path_of(connection, "/proofs"))["items"][0]
    assert (latest["trigger"], latest["count"]) == ("rotation", 1), (
        "a proof with another ID counts up no earlier one"
    )
    assert tenant.external_id == old, "new connections would still be given it"
    assert tenant.complete()["state"] == "retiring"
    assert (tenant.external_id, tenant.kit["next_external_id"]) == (following, None)
    tenant.after(hours=1)
    assert tenant.state()[0] == "retiring", "the role accepts the old one"
    tenant.reprove(connection)
    tenant.after(seconds=59)
    tenant.verify(connection)
    assert tenant.state()[0] == "retiring", "two refusals count only if they are a minute apart"
    tenant.after(minutes=2)
    assert (issued(), tenant.state()[0]) == (following, "retired")
    assert tenant.issued_ids()[old] == "retired"
    assert tenant.actions() == [
        *("rotation.started", "connection.external_id_switched", "rotation.ready"),
        *("rotation.completed", "external_id.retired"),
    ]
    [event] = tenant.events(action="external_id.retired")
    assert event["details"] == {"external_id": old, "next_external_id": following}
    [event] = tenant.events(action="connection.external_id_switched")
    assert (event["connection_id"], event["details"]) == (
        connection["id"],
        {"external_id": following},
    )
    known = tenant.issued_ids()
    strangers = [
        sent
        for sent in tenant.sent(connection)
        if sent is not None and sent not in {old, following}
    ]
    assert strangers
    assert not [sent for sent in strangers if sent in known], "a stranger's ID was issued to nobody"


def test_the_two_minutes_run_from_the_first_acceptance_though_more_proofs_come_in_between(
    tenant, monkeypatch
):
    connection = tenant.connection()
    following = tenant.start()["next_external_id"]
    tenant.reprove(connection)
    tenant.clock.shift(60)
    tenant.verify(connection)
    tenant.clock.shift(59)
    probe = Sts.probe_own

    def throttled(sts, grant, *read):
        if grant.external_id == following:
            raise Unavailable("Throttling")
        return probe(sts, grant, *read)

    with monkeypatch.context() as patch:
        patch.setattr(Sts, "probe_own", throttled)
        tenant.verify(connection)
    assert tenant.state() == ("open", 0, 1)
    tenant.clock.shift(1)
    tenant.verify(connection)
    assert tenant.state() == ("ready", 1, 0)


@pytest.mark.parametrize("meanwhile", ["broken", "suspended"])
def test_what_a_role_accepted_before_its_connection_was_stopped_does_not_shorten_the_two_minutes(
    tenant, meanwhile
):
    """Its repair is a change that IAM still has to spread."""
    connection = tenant.connection()
    tenant.start()
    both = tenant.trust
    tenant.reprove(connection)
    if meanwhile == "suspended":
        tenant.suspend(connection)
    else:
        tenant.reprove(connection, accepting(both, new_external_id()))
    assert tenant.get(connection)["status"] == meanwhile
    tenant.clock.shift(timedelta(minutes=10))
    tenant.update_role(connection)
    if meanwhile == "suspended":
        tenant.resume(connection)
    for _ in range(3):
        assert tenant.verify(connection)["status"] == "verified"
    assert tenant.state() == ("open", 0, 1)
    tenant.after(minutes=4)
    assert tenant.state() == ("ready", 1, 0)


def test_a_rotation_can_be_abandoned_as_long_as_nothing_has_switched(tenant):
    connection = tenant.connection()
    following = tenant.start()["next_external_id"]
    tenant.reprove(connection)
    tenant.abandon()
    assert tenant.state() == ("abandoned", 0, 0)
    assert tenant.issued_ids()[following] == "retired"
    [event] = tenant.events(action="rotation.abandoned")
    assert (event["actor"]["kind"], event["outcome"]) == ("api_key", "ok")
    assert event["details"] == {"external_id": tenant.first_id, "next_external_id": following}
    tenant.after(minutes=5)
    assert tenant.id_of(connection) == tenant.first_id == tenant.external_id
    assert tenant.start()["next_external_id"] != following


@pytest.fixture
def other_process(deployed):
    """Another process of the same deployment, which has everything in its memory."""
    other = create_app(make_config(deployed.extensions["deputy"].config.database.database_url))
    yield other
    other.extensions["deputy"].db.engine.dispose()


@pytest.mark.parametrize("at_first", [True, False])
def test_an_emergency_stops_issuing_at_once_in_every_process(tenant, other_process, at_first):
    switched, waiting = tenant.connection(), tenant.connection()
    elsewhere = Api(other_process, tenant.world.admin.key)
    if not at_first:
        tenant.start()
        tenant.switch(switched)
    for api in (tenant.world.admin, elsewhere):
        api("POST", path_of(waiting, "/credentials"))
        api("POST", path_of(switched, "/credentials"))
    status = 201 if at_first else 200
    wanted = {"reason": "it leaked", "emergency": True}
    found = tenant.world.admin("POST", tenant.path, wanted, expect=status)
    assert found["emergency"] is True
    for api in (elsewhere, tenant.world.admin):
        api.refused(
            "POST", path_of(waiting, "/credentials"), expect=409, code="external_id_withdrawn"
        )
        if not at_first:
            assert api("POST", path_of(switched, "/credentials"))
    seen = tenant.get(waiting)
    assert (seen["status"], seen["issues"]) == ("verified", False)
    assert "withdrawn" in seen["why"]
    tenant.update_role(waiting)
    tenant.verify(waiting)
    for api in (elsewhere, tenant.world.admin):
        assert api("POST", path_of(waiting, "/credentials"))
    again = tenant.world.admin.raw("POST", tenant.path, wanted)
    assert (again.status_code, again.get_json()["emergency"]) == (200, True), (
        "the request may be sent again"
    )
    assert tenant.actions().count("rotation.made_emergency") == (not at_first)


def test_a_new_one_retires_the_one_that_is_retiring_and_says_what_was_not_seen(tenant):
    connection = tenant.connection()
    oldest = tenant.start()["external_id"]
    tenant.switch(connection)
    second = tenant.complete()["next_external_id"]
    third = tenant.start()["next_external_id"]
    assert tenant.issued_ids()[oldest] == "retired"
    [event] = tenant.events(action="external_id.retired")
    assert (event["details"]["external_id"], event["details"]["warning"]) == (
        oldest,
        RETIRED_WARNING,
    )
    tenant.switch(connection)
    tenant.complete()
    assert {tenant.issued_ids()[one] for one in (oldest, second, third)} == {
        "retired",
        "retiring",
        "current",
    }
    reason = {"reason": "only verified ones count"}
    tenant.world.admin("POST", path_of(connection, "/suspend"), reason)
    tenant.start()
    event = tenant.events(action="external_id.retired")[0]
    assert event["details"]["external_id"] == second
    assert event["details"].keys() == {"external_id", "next_external_id"}, "and no warning"


@pytest.fixture
def left_behind(tenant) -> dict[str, Any]:
    """A verified connection that is paired with a retiring External ID, which alone its role
    accepts.
    """
    lost, other, before = tenant.connection(), tenant.connection(), tenant.trust
    tenant.break_role(lost)
    old = tenant.start()["external_id"]
    tenant.switch(other)
    assert tenant.complete()["state"] == "retiring"
    made = tenant.reprove(lost, before)
    assert (made["status"], made["external_id"]) == ("verified", old)
    return made


def test_a_retired_external_id_stops_issuing_at_once_and_is_never_proven_again(
    tenant, other_process, left_behind
):
    here, elsewhere = tenant.world.admin, Api(other_process, tenant.world.admin.key)
    credentials, old = path_of(left_behind, "/credentials"), left_behind["external_id"]
    for api in (here, elsewhere):
        api("POST", credentials)
    tenant.start(emergency=True)
    assert tenant.issued_ids()[old] == "retired"
    for api in (elsewhere, here):
        api.refused("POST", credentials, expect=409, code="external_id_withdrawn")
    assert "withdrawn" in tenant.get(left_behind)["why"]
    tenant.abandon()
    for api in (elsewhere, here):
        api.refused("POST", credentials, expect=409, code="external_id_withdrawn")
    made = tenant.verify(left_behind)
    assert (made["status"], made["issues"]) == ("broken", False)
    assert tenant.verify(left_behind)["status"] == "broken"
    made = tenant.reprove(left_behind)
    assert (made["status"], made["external_id"]) == ("verified", tenant.external_id)
    for api in (elsewhere, here):
        api("POST", credentials)


def test_a_role_that_accepts_the_current_id_too_is_paired_with_it_as_soon_as_its_own_is_retired(
    tenant, left_behind
):
    """By a full proof: its latest one was made with another External ID."""
    tenant.update_role(
        left_behind, accepting(tenant.trust, left_behind["external_id"], tenant.external_id)
    )
    tenant.start()
    assert tenant.row(left_behind).due_for is Trigger.ROTATION, "before routine proofs"
    asked = len(tenant.sent(left_behind))
    tenant.after(seconds=1)
    made = tenant.get(left_behind)
    assert (made["issues"], made["external_id"]) == (True, tenant.external_id)
    sent = tenant.sent(left_behind)[asked:]
    assert (sent.count(tenant.external_id), left_behind["external_id"] in sent) == (2, False)


def test_an_approval_verifies_nothing_that_was_proven_with_a_retired_id(tenant):
    """A rotation does not wait for a connection that awaits approval. The next one retires its
    External ID.
    """
    waiting = tenant.world.awaiting_approval(tenant.made)
    old = tenant.start()["external_id"]
    assert tenant.complete()["state"] == "retiring"
    tenant.start()
    approved = tenant.world.admin("POST", path_of(waiting, "/approve"))
    assert (approved["status"], approved["external_id"]) == ("pending", old)
    assert tenant.verify(waiting)["status"] == "pending"


def test_a_trial_and_a_rotation_name_the_same_tenants_external_ids(tenant, new_tenant):
    connection, other = tenant.connection(), new_tenant()
    tenant.start()
    other.connection()
    other.start()
    row = tenant.row(connection)
    with tenant.services.db.read() as db:
        theirs = db.scalars(sqlalchemy.select(Rotation).order_by(Rotation.id.desc()).limit(1)).one()
        with pytest.raises(ValueError, match="another tenant"):
            db.get(Connection, row.id).grant_with(theirs.new)
    for wrong in (
        ExternalIdCheck(
            tenant_id=row.tenant_id, connection_id=row.id, external_id_id=theirs.next_external_id_id
        ),
        Rotation(
            tenant_id=row.tenant_id,
            external_id_id=row.external_id_id,
            next_external_id_id=theirs.next_external_id_id,
            emergency=False,
        ),
    ):
        with pytest.raises(IntegrityError), tenant.services.db.write(SYSTEM) as db:
            db.add(wrong)


def test_a_proof_of_a_rotation_that_was_abandoned_meanwhile_pairs_with_nothing(tenant, monkeypatch):
    connection = tenant.connection()
    tenant.start()
    tenant.reprove(connection)
    tenant.clock.shift(timedelta(minutes=2))
    sts, abandoned = tenant.services.verification._sts, []
    probe = sts.probe_missing

    def while_aws_is_asked(grant):
        if not abandoned:
            abandoned.append(tenant.abandon())
        probe(grant)

    monkeypatch.setattr(sts, "probe_missing", while_aws_is_asked)
    tenant.verify(connection)
    assert abandoned
    assert tenant.id_of(connection) == tenant.first_id
    assert tenant.state()[0] == "abandoned"


def test_a_proof_that_was_planned_before_a_rotation_began_waits_for_it_and_tries_the_next_id_too(
    tenant,
):
    """One that finds nothing new writes no row whose foreign key would wait for the tenant."""
    connection, database = tenant.connection(), tenant.services.db
    tenant_id, connection_id = uuid.UUID(tenant.made["id"]), uuid.UUID(connection["id"])
    who = SystemPrincipal(WORKER, tenant_id)
    with ThreadPoolExecutor(1) as pool:
        with database.write(SYSTEM) as db:
            tenant_of(db, who, tenant_id, lock=True)
            following = rotation._begin(db, WORKER, tenant_id, None).new.value
            prove = tenant.services.verification.verify
            proving = pool.submit(prove, who, tenant_id, connection_id, trigger=Trigger.SCHEDULED)
            until(lambda: waiting_for_locks(database) or proving.done())
            assert not proving.done()
        proving.result(60)
    assert following in tenant.sent(connection)


def test_housekeeping_and_a_proof_do_not_decide_at_the_same_time(tenant):
    """Each looks at all of the tenant's connections, and what one saw would be old when the
    other has decided.
    """
    tenant.connection()
    tenant.start()
    database, own = (
        tenant.services.db,
        sqlalchemy.select(Tenants.id).where(Tenants.id == uuid.UUID(tenant.made["id"])),
    )
    with ThreadPoolExecutor(1) as pool:
        with database.write(SYSTEM) as db:
            db.execute(own.with_for_update())
            settling = pool.submit(settle_all, database)
            until(lambda: waiting_for_locks(database) or settling.done())
            assert not settling.done()
        settling.result(60)
