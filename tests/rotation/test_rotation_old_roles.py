"""Roles that still have only an External ID of their tenant's that was retired: nothing is issued,
and the connection says what the customer must update.
"""

from app.aws.sts import INERT_POLICY, Sts, Unavailable
from app.ids import new_external_id
from tests.rotation.conftest import accepting
from tests.support.cast import path_of

PLAIN = "The role can't be assumed with this tenant's External ID."


def retire(tenant):
    """Replace the tenant's External ID: without verified connections no role could still accept
    the old one.
    """
    old = tenant.start()["external_id"]
    assert tenant.complete()["state"] == "retired"
    return old


def detail_of(connection):
    [own] = [
        check
        for check in connection["verification"]["checks"]
        if check["name"] == "own_external_id_accepted"
    ]
    assert own["outcome"] == "failed"
    return own["detail"]


def says_update_the_role(connection):
    detail = detail_of(connection)
    assert ("retired" in detail) == ("Update the role" in detail) != detail.startswith(PLAIN)
    return "Update the role" in detail


def test_a_new_connection_whose_role_has_only_a_retired_one_says_to_update_the_role(tenant):
    """A stack launched from a link of last year: the connection was never paired with what its
    role accepts.
    """
    before = tenant.trust
    retired = retire(tenant)
    connection = tenant.connection(trust=before, status="pending")
    assert connection["external_id"] == tenant.external_id != retired
    assert says_update_the_role(connection)
    tenant.world.admin.refused(
        "POST", path_of(connection, "/credentials"), expect=409, code="connection_not_verified"
    )
    accepted = [
        call for call in tenant.world.calls_for(connection["role_arn"]) if call.outcome == "allowed"
    ]
    assert {(call.external_id, call.policy) for call in accepted} == {(retired, INERT_POLICY)}
    assert tenant.reprove(connection)["status"] == "verified"


def test_a_broken_connection_whose_role_went_back_to_a_retired_one_says_to_update_the_role(tenant):
    before = tenant.trust
    retired = retire(tenant)
    connection = tenant.connection()
    assert tenant.reprove(connection, before)["status"] == "broken"
    assert retired not in tenant.sent(connection)
    assert says_update_the_role(tenant.verify(connection))
    assert tenant.sent(connection)[-1] == retired
    assert tenant.id_of(connection) == tenant.external_id


def test_a_proof_tries_at_most_three_retired_ones_the_connections_own_and_the_newest(tenant):
    connection = tenant.connection()
    tenant.suspend(connection)
    own, *_, fourth, fifth = [retire(tenant) for _ in range(5)]
    tenant.update_role(connection, accepting(tenant.trust, new_external_id()))
    asked = len(tenant.sent(connection))
    resumed = tenant.resume(connection)
    assert not says_update_the_role(resumed)
    assert tenant.sent(connection)[asked:] == [tenant.external_id, own, fifth, fourth]


def test_a_proof_that_repeats_a_refused_call_tries_retired_ones_once(tenant, monkeypatch):
    monkeypatch.setattr("app.connections.connections.PATIENCE", 5.0)
    monkeypatch.setattr("app.proofs.verification._PAUSES", (0.0, 0.0))
    retired = retire(tenant)
    connection = tenant.connection(
        trust=accepting(tenant.trust, new_external_id()), status="pending"
    )
    assert tenant.sent(connection) == [*[tenant.external_id] * 3, retired]


def test_a_role_that_accepts_the_current_one_too_is_proven_and_never_asked_about_a_retired_one(
    tenant,
):
    retired = retire(tenant)
    both = accepting(tenant.trust, retired, tenant.external_id)
    connection = tenant.connection(trust=both)
    assert retired not in tenant.sent(connection)


def test_an_answer_of_aws_that_is_not_clear_says_nothing_of_a_retired_one(tenant, monkeypatch):
    def throttled(*_):
        raise Unavailable("Throttling")

    before = tenant.trust
    retire(tenant)
    monkeypatch.setattr(Sts, "probe_again", throttled)
    assert not says_update_the_role(tenant.connection(trust=before, status="pending"))
