"""How much of a connection's history is kept: what is deleted with it is bounded."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select

from app.clock import now
from app.identity import WORKER, SystemPrincipal
from app.ids import first_id_at, new_id
from app.store.database import SYSTEM
from app.store.history import KEPT
from app.store.models import Approval, Proof, Trigger, Verdict
from tests.connections.test_listing import assert_nothing_is_sorted, plans
from tests.support.cast import path_of
from tests.support.rows import ADMIN


def add_rows(world, connection, rows, number, **values):
    """Copies of the connection's newest row, as that many requests would leave."""
    table = rows.__table__
    with world.services.db.write(SYSTEM) as db:
        newest = select(table).filter_by(connection_id=UUID(connection["id"]))
        row = dict(db.execute(newest.order_by(table.c.id.desc())).mappings().first())
        db.execute(table.insert(), [row | {"id": new_id(), **values} for _ in range(number)])


def count(world, connection, rows):
    with world.services.db.read() as db:
        one = select(func.count()).select_from(rows)
        return db.scalar(one.filter_by(connection_id=UUID(connection["id"])))


def test_a_new_proof_leaves_the_newest_ones_and_the_latest_conclusive_one(world):
    connection = world.proven(tenant := world.tenant())
    (only,) = world.admin("GET", path_of(connection, "/proofs"))["items"]
    assert only["verdict"] == "proven"
    add_rows(world, connection, Proof, KEPT + 20, verdict=Verdict.INCONCLUSIVE)
    world.verify(connection)
    assert count(world, connection, Proof) == KEPT + 1
    with world.services.db.read() as db:
        assert db.get(Proof, UUID(only["id"])), "the latest conclusive one before"
    world.admin("DELETE", path_of(connection), expect=204)
    again = world.connect(tenant, connection["role_arn"])
    entries = world.admin("GET", path_of(again, "/proofs"))["items"]
    assert [entry["verdict"] for entry in entries] == ["proven", "proven"]


def test_a_proof_is_kept_though_others_were_made_by_a_clock_that_is_ahead(world):
    connection = world.proven()
    ahead = first_id_at(now() + timedelta(minutes=5)).int
    for number in range(KEPT + 1):
        add_rows(world, connection, Proof, 1, id=UUID(int=ahead + number))
    shown = world.verify(connection)["verification"]
    assert shown["verdict"] == "proven"
    assert world.read(connection)["verification"] == shown


def test_a_stacks_message_after_which_all_is_as_before_adds_neither_a_proof_nor_an_event(world):
    """A stack's token may send any number of messages."""
    connection = world.proven()
    ids = UUID(connection["tenant_id"]), UUID(connection["id"])
    events = world.audit(tenant_id=connection["tenant_id"])
    for _ in range(2):
        world.services.verification.verify(
            SystemPrincipal(WORKER, ids[0]), *ids, trigger=Trigger.REGISTERED
        )
    (entry,) = world.admin("GET", path_of(connection, "/proofs"))["items"]
    assert (entry["count"], entry["trigger"]) == (3, "created")
    assert world.audit(tenant_id=connection["tenant_id"]) == events


def test_requests_for_sets_leave_the_newest_ones_and_those_that_wait(world):
    connection = world.awaiting_approval(world.tenant())
    add_rows(world, connection, Approval, KEPT + 20, decision="withdrawn")
    for permission_set in ("inventory", "bucket-sync", "inventory"):
        body = {"permission_set": permission_set}
        shown = world.admin("PATCH", path_of(connection), body)
    assert count(world, connection, Approval) == KEPT + 1
    assert shown["awaiting_approval"], "its own set's request is older than all others"


def test_the_newest_proofs_are_listed_in_the_order_of_an_index(world):
    connection = world.proven()
    add_rows(world, connection, Proof, 1000)
    listing, ids = world.services.listing, (connection["tenant_id"], connection["id"])
    (plan,) = plans(
        world.services,
        lambda: listing.list_proofs(ADMIN, *map(UUID, ids), limit=2, after=None),
        table="proofs",
    )
    assert "ix_proofs_of_connection" in plan, plan
    assert_nothing_is_sorted(plan)
