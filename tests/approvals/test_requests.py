"""Requests for permission sets: when a connection moves to another set, what the table keeps of
each request, and that a request that is lost or withdrawn allows nothing.
"""

import re
from uuid import UUID

import pytest
import yaml
from sqlalchemy import delete, event, select
from sqlalchemy.orm import Session

from app.approvals.approvals import SetRequests
from app.audit import Actor
from app.clock import now
from app.ids import new_id
from app.store.database import SYSTEM, Database
from app.store.models import Approval, ApprovalDecision, Connection, ConnectionStatus as S
from app.store.models.tenant import Suspension
from tests.support.cast import path_of

ASKER = Actor("api_key", "asker", "a program")
VENDOR = Actor("api_key", "vendor", "the vendor's program")
READS, WRITES = "inventory", "bucket-sync"


def connection(status, **fields):
    values = {"role_unique_id": "AROAONE", "version": 7, "permission_set": "reads"} | fields
    return Connection(id=new_id(), tenant_id=new_id(), status=status, **values)


def requests(of, actor=ASKER):
    return SetRequests(Session(), actor, of)


# --- moves ---


def test_asking_for_a_set_says_whether_that_changes_something():
    row = connection(S.VERIFIED)
    asked = [
        ("reads", ApprovalDecision.APPROVED),
        ("writes", None),
        ("writes", None),
        ("writes", ApprovalDecision.APPROVED),
        ("writes", None),
        ("reads", None),
    ]
    changed = [requests(row).ask_for(name, decision) for name, decision in asked]
    assert changed == [False, True, False, True, False, True]
    requests(row).note_set("reads", 1, by_tag=True)
    assert (row.permission_set_version, row.move_id) == (1, None)


@pytest.mark.parametrize(
    ("labels", "expected"),
    yaml.safe_load("""
    - [{writes: tag}, writes]
    - [{writes: message}, writes]
    - [{third: tag}, third]
    - [{third: message}, ""]
    - [{writes: message, reads: message}, writes]
    - [{writes: message, reads: tag}, ""]
    - [{writes: tag, reads: message}, writes]
    - [{third: tag, writes: message}, third writes]
    - [{third: tag, writes: message, reads: tag}, ""]
    """),
)
@pytest.mark.parametrize("withdrawn", [False, True])
def test_which_sets_a_role_has_by_now_its_tag_and_its_stack_say(labels, expected, withdrawn):
    """A message only adds a set that was asked for, and takes back nothing. To withdraw the
    request changes no role.
    """
    row = connection(S.VERIFIED)
    requests(row).ask_for("writes", None)
    for name, source in labels.items():
        requests(row).note_set(name, 1, by_tag=source == "tag")
    if withdrawn:
        requests(row).ask_for("reads", None)
    assert row.permission_sets == {"reads", *expected.split()}


def test_a_role_that_has_moved_has_no_other_set():
    row = connection(S.VERIFIED)
    requests(row).ask_for("writes", None)
    for by_tag in (True, False):
        requests(row).note_set("writes", 1, by_tag=by_tag)
    requests(row, VENDOR).approve(None)
    assert (row.permission_set, row.permission_sets) == ("writes", {"writes"})


@pytest.mark.parametrize("decision", [ApprovalDecision.APPROVED, ApprovalDecision.NOT_NEEDED, None])
def test_a_message_that_moves_a_role_whose_tag_is_read_leaves_its_old_set_until_the_tag_says_so(
    decision,
):
    row = connection(S.VERIFIED, permission_set="writes", reads_itself=True)
    requests(row).note_set("writes", 1, by_tag=True)
    requests(row).ask_for("reads", decision)
    requests(row).note_set("reads", 1, by_tag=False)
    if decision is None:
        assert (row.permission_set, row.sets_to_approve) == ("writes", ["reads"])
        requests(row, VENDOR).approve(None)
    assert (row.permission_set, row.permission_sets) == ("reads", {"reads", "writes"})
    requests(row).note_set("reads", 1, by_tag=False)
    assert row.permission_sets == {"reads", "writes"}, "nor does a second message say so"
    requests(row).note_set("reads", 1, by_tag=True)
    assert row.permission_sets == {"reads"}


def test_a_second_request_does_not_make_a_message_take_back_what_an_earlier_one_said():
    row = connection(S.VERIFIED)
    for name in ("writes", "third"):
        requests(row).ask_for(name, None)
        requests(row).note_set(name, 1, by_tag=False)
    assert row.permission_sets == {"reads", "writes", "third"}


def test_messages_about_two_sets_do_not_make_a_role_that_can_be_read_lose_its_own():
    row = connection(S.VERIFIED, permission_set="writes", reads_itself=True)
    for name, decision in (("third", None), ("reads", ApprovalDecision.NOT_NEEDED)):
        requests(row).ask_for(name, decision)
        requests(row).note_set(name, 1, by_tag=False)
    requests(row).ask_for("reads", ApprovalDecision.NOT_NEEDED)
    assert row.permission_sets >= {"writes", "third"}
    requests(row).note_set("reads", 1, by_tag=True)
    assert row.permission_sets == {"reads"}


def test_a_move_withdraws_the_request_for_the_set_before():
    """Also while the connection is suspended, which is due for nothing then."""
    row = connection(S.PENDING, permission_set="writes")
    requests(row).require_approval()
    before = row.approval
    row.suspend(Suspension("operator", bound=False, reason="x"))
    requests(row).ask_for("reads", ApprovalDecision.NOT_NEEDED)
    requests(row).note_set("reads", 1, by_tag=True)
    assert (row.permission_set, row.awaits_approval, row.due_at) == ("reads", False, None)
    assert (row.status, row.awaiting_approval) == (S.SUSPENDED, False)
    assert (before.decision, before.decided_by_id) == (ApprovalDecision.WITHDRAWN, ASKER.id)


def test_a_decision_is_final():
    row = connection(S.VERIFIED)
    requests(row).ask_for("writes", None)
    move = row.move
    requests(row, VENDOR).approve("writes")
    decided_at = move.decided_at
    requests(row).ask_for("reads", ApprovalDecision.NOT_NEEDED)
    assert (row.move, row.permission_set) == (None, "reads")
    assert (move.decision, move.decided_by_id) == (ApprovalDecision.APPROVED, VENDOR.id)
    assert move.decided_at == decided_at <= now()


# --- the table ---


@pytest.fixture
def database(app) -> Database:
    return app.extensions["deputy"].db


def history(database, connection_id):
    """The connection's requests: the set, who asked, the decision, and who decided."""
    mine = select(Approval).where(Approval.connection_id == UUID(connection_id))
    with database.read() as db:
        rows = list(db.scalars(mine.order_by(Approval.asked_at)))
    assert {row.subject for row in rows} == {"permission_set"}
    assert all(row.asked_by == "api_key" and row.reason for row in rows)
    return [(row.permission_set, row.asked_by_id, row.decision, row.decided_by_id) for row in rows]


def actor_of(world, connection_id, action):
    """The id of the key that did it last."""
    return world.audit(connection_id=connection_id, action=action)[0]["actor"]["id"]


def test_the_table_says_who_asked_for_each_set_and_who_decided(world, database):
    tenant = world.tenant()
    waiting = world.awaiting_approval(tenant)
    maker = actor_of(world, waiting["id"], "connection.created")
    assert history(database, waiting["id"]) == [(WRITES, maker, None, None)]
    own = world.key("connections:write", tenant=tenant)
    own("PATCH", path_of(waiting), {"permission_set": READS})
    asker = actor_of(world, waiting["id"], "connection.permission_set_asked")
    world.admin("POST", path_of(waiting, "/approve"), {"permission_set": WRITES})
    vendor = actor_of(world, waiting["id"], "connection.approved")
    assert len({maker, asker, vendor}) == 3
    assert history(database, waiting["id"]) == [
        (WRITES, maker, "approved", vendor),
        (READS, asker, "not_needed", asker),
    ]


def test_a_move_that_the_vendor_asks_for_is_approved_and_another_can_be_withdrawn(world, database):
    tenant = world.tenant()
    connected = world.connection(tenant)
    own = world.key("connections:write", tenant=tenant)
    for ask, permission_set in ((own, WRITES), (own, READS), (world.admin, WRITES)):
        ask("PATCH", path_of(connected), {"permission_set": permission_set})
    vendor, _, asker = (
        asked["actor"]["id"]
        for asked in world.audit(
            connection_id=connected["id"], action="connection.permission_set_asked"
        )
    )
    assert history(database, connected["id"]) == [
        (WRITES, asker, "withdrawn", asker),
        (WRITES, vendor, "approved", vendor),
    ]


def test_a_connection_that_waits_is_refused_by_its_own_row(world, database):
    waiting, statements = world.awaiting_approval(world.tenant()), []

    def note(_connection, _cursor, statement, *_):
        statements.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        refused = world.admin.refused(
            "POST", path_of(waiting, "/credentials"), expect=409, code="connection_not_verified"
        )
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    assert "approve" in refused["detail"]
    assert any("approval_id" in statement for statement in statements)
    assert not [statement for statement in statements if re.search(r"\bapprovals\b", statement)]


def test_a_request_that_is_lost_approves_nothing(world, database):
    waiting = world.awaiting_approval(world.tenant())
    with database.write(SYSTEM) as db:
        db.execute(delete(Approval).where(Approval.connection_id == UUID(waiting["id"])))
    assert world.admin("POST", path_of(waiting, "/verify"))["status"] == "pending"
    world.admin.refused(
        "POST", path_of(waiting, "/credentials"), expect=409, code="connection_not_verified"
    )
    world.admin.refused("POST", path_of(waiting, "/approve"), expect=409, code="conflict")
