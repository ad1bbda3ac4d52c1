"""AWS throttles, hangs, fails or is not there: nothing of that proves anything, and none of
AWS's words get out.
"""

import json

import pytest

from app.aws.sts import Sts
from tests.attacks.evidence import case, check, issues_nothing, problem, refusal, shows_nothing
from tests.support.cast import Customer, path_of, without_external_id

SICK = {
    "throttle": {},
    "timeout": {"seconds": 0.05},
    "error": {},
    "region_disabled": {},
    "expired_token": {},
}


@pytest.fixture
def customers_role(world):
    """A tenant, its customer, and the role that the kit asks for."""
    tenant, customer = world.tenant("Careful"), Customer(world.aws)
    kit = world.kit(tenant)
    return tenant, customer, kit, customer.role(kit["role_name"], kit["trust_policy"])


def unclear(world, connection, status):
    """A proof that proves nothing leaves the status, and says nothing in AWS's words."""
    answer = world.verify(connection)
    assert (answer["status"], answer["verification"]["verdict"]) == (status, "inconclusive")
    shows_nothing(json.dumps(answer))
    return answer


def test_a_stranger_without_an_answer_is_not_a_stranger_refused(world, faults, customers_role):
    tenant, _, _, role_arn = customers_role
    faults.add("throttle", role_arn=role_arn, external_id="missing")
    connection = world.connect(tenant, role_arn, status="pending")
    for kind, seconds in SICK.items():
        for stranger in ("missing", "foreign"):
            with case(kind, stranger=stranger):
                faults.clear()
                faults.add(kind, role_arn=role_arn, external_id=stranger, **seconds)
                answer = unclear(world, connection, "pending")
                assert check(answer, f"{stranger}_external_id_refused")["outcome"] == "inconclusive"
                assert answer["verified_at"] is None
    event = world.audit(connection_id=connection["id"], action="connection.proof_inconclusive")[0]
    assert (event["outcome"], event["details"]["status"]) == ("failed", "pending")
    issues_nothing(world.worker(tenant), connection)


def test_without_an_answer_nothing_flips(world, faults, customers_role):
    tenant, customer, kit, role_arn = customers_role
    connection = world.connect(tenant, role_arn)
    reader = world.key("connections:write", "audit:read", tenant=tenant)
    changes = {
        "verified": lambda: None,
        "insecure": lambda: customer.retrust(
            kit["role_name"], without_external_id(kit["trust_policy"])
        ),
        "broken": lambda: customer.remove_role(kit["role_name"]),
    }
    for status, change in changes.items():
        change()
        answer = reader("POST", path_of(connection, "/verify"))
        assert answer["status"] == status
        shows_nothing(json.dumps(answer))
        for kind, seconds in SICK.items():
            with case(status, kind=kind):
                faults.add(kind, role_arn=role_arn, **seconds)
                unclear(world, connection, status)
            faults.clear()
    shows_nothing(json.dumps(reader("GET", "/v1/audit-events?action=connection.proof_failed")))


def elsewhere(real_assume):
    """As if AWS said that the session is of another account."""

    def assume(*args, **more):
        session = real_assume(*args, **more)
        object.__setattr__(session, "account_id", "999999999999")
        return session

    return assume


@pytest.mark.parametrize(
    ("in_session", "in_identity", "verdict"),
    [(True, True, "unassumable"), (True, False, "inconclusive"), (False, True, "inconclusive")],
)
def test_a_role_of_another_account_than_its_arn_names_is_not_proven(
    world, monkeypatch, in_session, in_identity, verdict
):
    """No AWS answers like that, or contradicts itself; a proxy or a bug of ours might."""
    identity = Sts._who_is
    if in_session:
        monkeypatch.setattr(Sts, "_assume_role", elsewhere(Sts._assume_role))
    if in_identity:
        monkeypatch.setattr(Sts, "_who_is", lambda *args: ("999999999999", identity(*args)[1]))
    tenant = world.tenant()
    connection = world.connect(tenant, world.role(tenant), status="pending")
    assert connection["verification"]["verdict"] == verdict
    issues_nothing(world.admin, connection)


def test_a_session_of_another_account_is_dropped(world, monkeypatch):
    made = world.connection()
    monkeypatch.setattr(Sts, "_assume_role", elsewhere(Sts._assume_role))
    response = world.admin.raw("POST", path_of(made, "/credentials"))
    problem(response, 409, "connection_not_verified")
    assert world.read(made)["status"] == "pending"
    assert world.audit(connection_id=made["id"], action="credentials.issued") == []


def test_a_role_that_is_still_spreading_is_waited_for_a_little_and_then_pending(
    world, faults, monkeypatch
):
    monkeypatch.setattr("app.connections.connections.PATIENCE", 0.9)
    tenant = world.tenant()
    arn = world.role(tenant)
    faults.add("spreading", role_arn=arn, seconds=60)
    made = world.connect(tenant, arn, status="pending")
    assert made["verification"]["verdict"] == "unassumable"
    tried = world.calls_for(arn)
    assert 2 <= len(tried) <= 3  # at 0, 0.25 and 0.75 seconds: no storm
    assert {call.external_id for call in tried} == {tenant["external_id"]}
    faults.clear()
    assert world.verify(made)["status"] == "verified"
    faults.add("spreading", seconds=0.6)
    assert world.proven()["status"] == "verified", "it is seconds old"


REFUSED, SILENT = (409, "role_refused"), (503, "aws_unavailable")
WHEN_ISSUING = {"deny": REFUSED, "region_disabled": REFUSED}
WHEN_ISSUING |= dict.fromkeys(["throttle", "error", "timeout", "expired_token"], SILENT)


def test_awss_words_reach_no_tenant_when_issuing(world, faults):
    connection = world.connection()
    worker = world.worker({"id": connection["tenant_id"]})
    for kind, (status, code) in WHEN_ISSUING.items():
        faults.add(kind, role_arn=connection["role_arn"], **SICK.get(kind, {}))
        for method, what in (("POST", "/credentials"), ("GET", "/container-credentials")):
            with case(kind, what=what):
                response = worker.raw(method, path_of(connection, what))
                problem(response, status, code)
                assert (response.headers.get("Retry-After") is not None) == (status == 503)
                event = refusal(world, response)
                assert event["connection_id"] == connection["id"]
                shows_nothing(json.dumps(event))
        faults.clear()
    assert world.audit(connection_id=connection["id"], action="credentials.issued") == []
    assert world.read(connection)["status"] == "verified"
