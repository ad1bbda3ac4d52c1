"""When an External ID retires, and what an emergency withdraws and gives back."""

import uuid
from datetime import timedelta

import sqlalchemy

from app.aws.sts import Sts, Unavailable
from app.clock import now
from app.ids import new_external_id
from app.store.database import SYSTEM
from app.store.models import Connection, ExternalIdCheck, ExternalIdRow
from tests.rotation.conftest import accepting
from tests.support.cast import path_of


def test_a_role_that_had_refused_twice_and_accepts_again_keeps_the_old_external_id(tenant):
    fickle, slow = tenant.connection(), tenant.connection()
    old = tenant.start()["external_id"]
    tenant.switch(fickle, slow)
    tenant.complete()
    tenant.reprove(fickle)
    tenant.after(minutes=2)
    tenant.reprove(fickle, accepting(tenant.trust, tenant.external_id, old))
    tenant.reprove(slow)
    tenant.after(minutes=2)
    assert tenant.state()[0] == "retiring"
    tenant.reprove(fickle)
    assert tenant.state()[0] == "retiring", "it has to refuse twice again"
    tenant.after(minutes=2)
    assert tenant.state()[0] == "retired"


def test_an_answer_that_is_not_clear_is_no_refusal_and_takes_none_back(tenant, monkeypatch):
    connection = tenant.connection()
    old, probe = tenant.start()["external_id"], Sts.probe_again

    def throttled(sts, grant, *read):
        if grant.external_id == old:
            raise Unavailable("Throttling")
        return probe(sts, grant, *read)

    def verify_without_an_answer():
        with monkeypatch.context() as patch:
            patch.setattr(Sts, "probe_again", throttled)
            tenant.verify(connection)
        tenant.clock.shift(30)

    tenant.switch(connection)
    tenant.complete()
    tenant.update_role(connection)
    for _ in range(4):
        verify_without_an_answer()
    assert tenant.state()[0] == "retiring"
    tenant.verify(connection)
    tenant.clock.shift(30)
    verify_without_an_answer()
    tenant.verify(connection)
    assert tenant.state()[0] == "retired"


def test_a_refusal_counts_only_beside_an_acceptance(tenant):
    """A role that is gone refuses the old External ID as well, and tells nothing."""
    connection = tenant.connection()
    tenant.start()
    tenant.switch(connection)
    tenant.complete()
    tenant.remove_role(connection)
    tenant.verify(connection)
    with tenant.services.db.read() as db:
        trials = db.scalars(
            sqlalchemy.select(ExternalIdCheck).where(
                ExternalIdCheck.connection_id == tenant.row(connection).id
            )
        ).all()
    assert [one for one in trials if one.refused_at is not None] == []


def test_a_refusal_beside_an_answer_that_is_not_clear_does_not_count(tenant, monkeypatch):
    def throttled(*_):
        raise Unavailable("Throttling")

    connection = tenant.connection()
    tenant.start()
    tenant.switch(connection)
    tenant.complete()
    tenant.update_role(connection)
    with monkeypatch.context() as patch:
        patch.setattr(Sts, "probe_own", throttled)
        assert tenant.verify(connection)["verification"]["verdict"] == "inconclusive"
    tenant.clock.shift(61)
    tenant.verify(connection)
    assert tenant.state()[0] == "retiring", "this is the first"


def test_proofs_alone_take_a_rotation_to_its_end(tenant):
    """Housekeeping is for what no proof tells: a connection that was waited for is gone."""
    connection = tenant.connection()
    tenant.start()
    for pause in (120, 60):
        tenant.reprove(connection)
        tenant.clock.shift(pause)
        tenant.verify(connection)
        if pause == 120:
            assert tenant.actions()[-1] == "rotation.ready"
            tenant.complete()
    assert tenant.actions()[-1] == "external_id.retired"


def test_a_role_that_has_refused_twice_has_its_usual_turns_while_others_are_waited_for(tenant):
    done, slow = tenant.connection(), tenant.connection()
    tenant.after(hours=1)
    tenant.start()
    tenant.switch(done, slow)
    tenant.complete()
    tenant.update_role(done)
    for _ in range(3):
        tenant.verify(done)
        tenant.clock.shift(60)
    assert tenant.state()[0] == "retiring"
    assert tenant.row(done).due_at >= now() + timedelta(minutes=14)


def test_a_search_that_was_given_up_is_not_begun_again_by_a_rotation(tenant):
    """Only verified connections are tried within the hour."""
    other = tenant.connection()
    tenant.start()
    tenant.switch(other)
    assert tenant.complete()["state"] == "retiring"
    foreign = accepting(tenant.trust, new_external_id())
    absent = tenant.connection(trust=foreign, status="pending")
    with tenant.services.db.write(SYSTEM) as db:
        db.get_one(Connection, uuid.UUID(absent["id"])).due_since = now() - timedelta(days=15)
    tenant.verify(absent)
    assert tenant.row(absent).due_at is None


def test_refusals_of_an_older_one_do_not_count_for_the_next_that_retires(tenant):
    connection = tenant.connection()
    for rotation in (1, 2):
        old = tenant.start()["external_id"]
        tenant.switch(connection)
        tenant.complete()
        assert tenant.state()[0] == "retiring", f"rotation {rotation}"
        tenant.reprove(connection)
        tenant.after(minutes=2)
        assert tenant.issued_ids()[old] == "retired"


def test_a_connection_proven_with_the_retiring_id_moves_to_the_current_one_without_an_outage(
    tenant,
):
    lost, before = tenant.connection(), tenant.trust
    tenant.reprove(lost, accepting(before, new_external_id()))
    old = tenant.start()["external_id"]
    other = tenant.connection()
    tenant.complete()
    tenant.reprove(lost, before)
    assert (tenant.id_of(lost), tenant.id_of(other)) == (old, tenant.external_id)
    failed = len(tenant.world.audit(connection_id=lost["id"], action="connection.proof_failed"))
    tenant.update_role(lost, accepting(before, old, tenant.external_id))
    asked = len(tenant.sent(lost))
    assert tenant.verify(lost)["external_id"] == old, (
        "until it has accepted the other for two minutes"
    )
    assert tenant.sent(lost)[asked:].count(old) == 2, "nobody asks whether it refuses its own"
    tenant.after(minutes=2)
    assert tenant.id_of(lost) == tenant.external_id
    assert (
        len(tenant.world.audit(connection_id=lost["id"], action="connection.proof_failed"))
        == failed
    )
    assert tenant.issue(lost)


def test_an_emergency_and_its_end_are_nothing_to_other_tenants(tenant, new_tenant):
    victim, bystander = new_tenant(), new_tenant()
    abused, untouched = victim.connection(), bystander.connection()
    victim.start(emergency=True)
    tenant.start(emergency=True)
    assert bystander.issue(untouched)
    tenant.abandon()
    tenant.world.admin.refused(
        "POST", path_of(abused, "/credentials"), expect=409, code="external_id_withdrawn"
    )


def test_abandoning_gives_back_only_what_this_rotation_withdrew(tenant):
    before = tenant.trust
    lost = tenant.connection()
    tenant.reprove(lost, accepting(before, new_external_id()))
    leaked = tenant.start(emergency=True)["external_id"]
    tenant.complete()
    tenant.after(minutes=1)
    tenant.start(emergency=True)
    tenant.abandon()
    with tenant.services.db.read() as db:
        [row] = db.scalars(sqlalchemy.select(ExternalIdRow).where(ExternalIdRow.value == leaked))
    assert row.withdrawn_at is not None


def test_an_abandoned_emergency_gives_the_old_one_back(tenant):
    """Also where the rotation was none at first."""
    connection = tenant.connection()
    for at_first in (True, False):
        tenant.start(emergency=at_first)
        if not at_first:
            tenant.after(minutes=1)
            tenant.world.admin("POST", tenant.path, {"reason": "it leaked", "emergency": True})
        credentials = path_of(connection, "/credentials")
        tenant.world.admin.refused("POST", credentials, expect=409, code="external_id_withdrawn")
        tenant.abandon()
        assert tenant.issue(connection)
        assert tenant.rotation()["emergency"] is True
