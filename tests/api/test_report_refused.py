"""A worker says that AWS refused it: no process hands that session out again, and the role is
proven.
"""

from datetime import timedelta
from itertools import chain
from uuid import UUID

import time_machine

from app.clock import now
from app.limits.limits import REPORTS
from app.store.models import Connection
from tests.support.cast import Api, Customer, path_of
from tests.support.rows import at_once, place

REPORTED = "connection.refusal_reported"


def report(worker, connection):
    assert worker("POST", path_of(connection, "/report-refused"), expect=202) == {}


def reports(world, connection):
    return world.audit(connection_id=connection["id"], action=REPORTED)


def due_at(world, connection):
    with world.admin.app.extensions["deputy"].db.read() as db:
        row = db.get_one(Connection, UUID(connection["id"]))
        return row.due_at, row.version


def test_a_role_that_was_deleted_by_hand_is_tried_because_of_a_report(world):
    """Without it, the cached session of a role that is gone was handed out on, and the
    connection stayed verified.
    """
    tenant, customer = world.tenant(), Customer(world.aws)
    connection = world.connection(tenant, customer)
    worker = world.worker(tenant)
    path = path_of(connection, "/credentials")
    first = worker("POST", path)
    customer.remove_role(connection["role_arn"].rpartition("/")[2])
    assert worker("POST", path) == first, "nobody knows yet"
    report(worker, connection)
    assert due_at(world, connection)[0] <= now()
    worker.refused("POST", path, expect=409, code="role_refused")
    services = world.admin.app.extensions["deputy"]
    claims = iter(lambda: services.proof_queue.claim(100), [])
    [claim] = [claim for claim in chain(*claims) if str(claim.connection_id) == connection["id"]]
    assert services.proof_queue.prove(claim)
    found = world.admin("GET", path_of(connection))
    assert found["verification"]["checks"][0]["outcome"] == "inconclusive"
    # A second refusal counts
    assert now() < due_at(world, connection)[0] <= now() + timedelta(minutes=1)


def test_a_report_takes_effect_once_a_minute_and_its_event_says_who_reported(world, by_hand):
    connection = world.connection()
    worker = world.worker({"id": connection["tenant_id"]})
    with time_machine.travel(now(), tick=False) as clock:
        report(worker, connection)
        before = due_at(world, connection), by_hand.counter
        issued = worker("POST", path_of(connection, "/credentials"))
        clock.shift(59)
        for _ in range(3):
            report(worker, connection)
        assert (due_at(world, connection), by_hand.counter) == before
        assert worker("POST", path_of(connection, "/credentials")) == issued
        assert len(reports(world, connection)) == 1
        clock.shift(1)
        report(worker, connection)
        assert due_at(world, connection)[0] == now()
        assert by_hand.counter == before[1] + 1
        assert worker("POST", path_of(connection, "/credentials")) != issued
        clock.shift(-7200)  # it was ahead
        report(worker, connection)
        assert due_at(world, connection)[0] == now()
    assert len(reports(world, connection)) == 3
    for event in reports(world, connection):
        assert event["outcome"] == "ok"
        assert event["details"] == {"status": "verified"}
        assert event["actor"]["kind"] == "api_key"
        assert event["actor"]["name"] == "a program"
        assert event["request_id"]


def test_many_reports_at_once_are_one(world, by_hand):
    connection = world.connection()
    worker, before = world.worker({"id": connection["tenant_id"]}), by_hand.counter
    at_once([lambda: report(worker.with_key(worker.key), connection)] * 8)
    assert by_hand.counter == before + 1
    assert len(reports(world, connection)) == 1


def test_one_tenants_reports_do_not_make_everybody_read_again_and_again(
    world, by_hand, monkeypatch
):
    """Each that takes effect increments the revocation counter, which is all tenants'."""
    monkeypatch.setattr("app.limits.limits.REPORTS", REPORTS._replace(most=3))
    services = world.admin.app.extensions["deputy"]
    many, other = place(services, connections=5), place(services)
    worker = world.admin.with_key(many.key)
    with time_machine.travel(now(), tick=False):
        before = by_hand.counter
        for number in range(5):
            worker("POST", many.path("/report-refused", number), expect=202)
        assert by_hand.counter == before + 3
        assert len(world.audit(tenant_id=str(many.tenant_id), action=REPORTED)) == 3
        world.admin.with_key(other.key)("POST", other.path("/report-refused"), expect=202)
        assert by_hand.counter == before + 4, "another tenant's count for themselves"
        monkeypatch.setattr(services.db, "write", None)  # nothing is written
        worker("POST", many.path("/report-refused", 0), expect=202)


def test_a_suspended_connection_takes_no_report(world, by_hand):
    connection = world.connection()
    worker = world.worker({"id": connection["tenant_id"]})
    world.admin("POST", path_of(connection, "/suspend"), {"reason": "x"})
    before = due_at(world, connection), by_hand.counter
    report(worker, connection)
    assert (due_at(world, connection), by_hand.counter) == before
    assert reports(world, connection) == []


def test_what_is_not_verified_is_made_due_as_well(world, by_hand):
    tenant = world.tenant()
    body = {"account_id": Customer(world.aws).account}
    connection = world.admin("POST", f"/v1/tenants/{tenant['id']}/connections", body, expect=201)
    before = by_hand.counter
    report(world.worker(tenant), connection)
    assert by_hand.counter == before, "nothing was handed out that could be taken away"
    assert len(reports(world, connection)) == 1


def test_reports_count_as_requests_for_credentials(world, start, stopped_clock):
    app = start({}, issue_rate=2)
    here = place(app.extensions["deputy"])
    worker = Api(app, here.key)
    found = [worker.raw("POST", here.path("/report-refused")).status_code for _ in range(12)]
    assert set(found) == {202, 429}


def test_no_process_hands_the_old_session_out_again(world, start_api):
    connection = world.connection()
    path = path_of(connection, "/credentials")
    worker = world.worker({"id": connection["tenant_id"]})
    one, two = (start_api().with_key(worker.key) for _ in range(2))
    [first] = {api("POST", path)["AccessKeyId"] for api in (one, two)}
    report(one, connection)
    again = {api("POST", path)["AccessKeyId"] for api in (two, one)}
    assert len(again) == 1, "they still share"
    assert first not in again
