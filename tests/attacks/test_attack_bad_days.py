"""AWS throttles, hangs, fails or is not there: nothing of that proves anything, and none of AWS's words get out."""

import json
import uuid
from contextlib import closing

import pytest

from app.aws.sts import Sts
from app.config import Broker
from sandbox.vendor import VENDOR_ACCOUNT
from tests.attacks.evidence import check, on_sqlite, outcomes, problem, refusal, shows_nothing
from tests.support.cast import Api, Customer, World, path_of, root_client, without_external_id

SICK = {"throttle": {}, "timeout": {"seconds": 0.05}, "error": {}, "region_disabled": {}, "expired_token": {}}


@pytest.fixture
def sloppy_role(world: World):
    """A tenant, a role that asks for no External ID at all, and its customer: the worst to take for proven."""
    tenant, customer = world.tenant("Sloppy"), Customer(world.aws)
    kit = world.kit(tenant)
    arn = customer.role(kit["role_name"], without_external_id(kit["trust_policy"]))
    return tenant, arn


@on_sqlite
@pytest.mark.parametrize("kind", SICK)
@pytest.mark.parametrize("stranger", ["missing", "foreign"])
def test_a_stranger_without_an_answer_is_not_a_stranger_refused(world: World, faults, kind: str, stranger: str):
    tenant = world.tenant("Careful")
    arn = world.role(tenant)
    faults.add(kind, role_arn=arn, external_id=stranger, **SICK[kind])
    made = world.connect(tenant, arn, status="pending")
    assert made["verification"]["verdict"] == "inconclusive"
    assert check(made, f"{stranger}_external_id_refused")["outcome"] == "inconclusive"
    assert made["verified_at"] is None
    shows_nothing(json.dumps(made))
    event = world.audit(connection_id=made["id"], action="connection.proof_inconclusive")[0]
    assert (event["outcome"], event["details"]["status"]) == ("failed", "pending")
    problem(world.worker(tenant).raw("POST", path_of(made, "/credentials")), 409, "connection_not_verified")


@on_sqlite
@pytest.mark.parametrize("kind", ["throttle", "error"])
def test_one_accepted_stranger_is_insecure_even_if_other_calls_failed(world: World, faults, sloppy_role, kind: str):
    tenant, arn = sloppy_role
    faults.add(kind, role_arn=arn, external_id="missing")
    made = world.connect(tenant, arn, status="insecure")
    assert outcomes(made)[2:] == ["inconclusive", "failed"]


@on_sqlite
@pytest.mark.parametrize("kind", SICK)
@pytest.mark.parametrize("status", ["verified", "insecure", "broken"])
def test_without_an_answer_nothing_flips(world: World, faults, kind: str, status: str):
    tenant, customer = world.tenant(), Customer(world.aws)
    kit = world.kit(tenant)
    made = world.connect(tenant, customer.role(kit["role_name"], kit["trust_policy"]))
    if status == "insecure":
        customer.retrust(kit["role_name"], without_external_id(kit["trust_policy"]))
    elif status == "broken":
        customer.remove_role(kit["role_name"])
    assert world.admin("POST", path_of(made, "/verify"))["status"] == status
    faults.add(kind, role_arn=made["role_arn"], **SICK[kind])
    found = world.admin("POST", path_of(made, "/verify"))
    assert (found["status"], found["verification"]["verdict"]) == (status, "inconclusive")
    shows_nothing(json.dumps(found))


@on_sqlite
@pytest.mark.parametrize("kind", ["deny", "throttle", "expired_token"])
def test_a_session_that_cannot_say_who_it_is_proves_nothing(world: World, faults, kind: str):
    tenant = world.tenant()
    arn = world.role(tenant)
    faults.add(kind, action="GetCallerIdentity")
    made = world.connect(tenant, arn, status="pending")
    assert made["verification"]["verdict"] == "inconclusive"
    assert [call.outcome for call in world.calls_for(arn)] == ["allowed"]


@pytest.mark.parametrize(
    ("assumed", "asked", "verdict"),
    [
        ("999999999999", "999999999999", "unassumable"),  # AWS says twice that it is another account
        ("999999999999", None, "inconclusive"),  # AWS contradicts itself
        (None, "999999999999", "inconclusive"),
    ],
)
def test_a_role_of_another_account_than_its_arn_names_is_not_proven(
    world: World, monkeypatch: pytest.MonkeyPatch, assumed, asked, verdict: str
):
    """No AWS answers like that; a proxy or a bug of ours might."""
    real_assume, real_identity = Sts._assume_role, Sts._who_is
    if assumed:

        def elsewhere(*args):
            session = real_assume(*args)
            object.__setattr__(session, "account_id", assumed)
            return session

        monkeypatch.setattr(Sts, "_assume_role", elsewhere)
    if asked:
        monkeypatch.setattr(Sts, "_who_is", lambda *args: (asked, real_identity(*args)[1]))
    tenant = world.tenant()
    made = world.connect(tenant, world.role(tenant), status="pending")
    assert made["verification"]["verdict"] == verdict
    problem(world.admin.raw("POST", path_of(made, "/credentials")), 409, "connection_not_verified")


def test_a_session_of_another_account_is_dropped(world: World, monkeypatch: pytest.MonkeyPatch):
    made, real = world.connection(), Sts._assume_role

    def elsewhere(*args):
        session = real(*args)
        object.__setattr__(session, "account_id", "999999999999")
        return session

    monkeypatch.setattr(Sts, "_assume_role", elsewhere)
    response = world.admin.raw("POST", path_of(made, "/credentials"))
    problem(response, 409, "connection_not_verified")
    assert world.admin("GET", path_of(made))["status"] == "pending"
    assert world.audit(connection_id=made["id"], action="credentials.issued") == []


@on_sqlite
def test_a_role_that_is_still_spreading_is_waited_for_a_little_and_then_pending(
    world: World, faults, monkeypatch: pytest.MonkeyPatch
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
    assert world.admin("POST", path_of(made, "/verify"))["status"] == "verified"


def test_refusals_of_a_role_that_then_refuses_its_own_id_prove_nothing(world: World, faults, meanwhile):
    tenant = world.tenant()
    arn = world.role(tenant)
    meanwhile("probe_foreign", lambda: faults.add("deny", role_arn=arn, external_id="own"))
    made = world.connect(tenant, arn, status="pending")
    assert made["verification"]["verdict"] == "inconclusive"
    assert outcomes(made) == ["inconclusive", "passed", "inconclusive", "inconclusive"]


def test_a_role_made_again_during_its_proof_proves_nothing(world: World, meanwhile):
    tenant, customer = world.tenant(), Customer(world.aws)
    kit = world.kit(tenant)
    arn = customer.role(kit["role_name"], kit["trust_policy"])

    def remake():
        customer.remove_role(kit["role_name"])
        customer.role(kit["role_name"], kit["trust_policy"])

    meanwhile("probe_foreign", remake)
    made = world.connect(tenant, arn, status="pending")
    assert made["verification"]["verdict"] == "inconclusive"


@on_sqlite
@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("deny", 409, "role_refused"),
        ("throttle", 503, "aws_unavailable"),
        ("error", 503, "aws_unavailable"),
        ("timeout", 503, "aws_unavailable"),
        ("expired_token", 503, "aws_unavailable"),
        ("region_disabled", 409, "role_refused"),
    ],
)
def test_awss_words_reach_no_tenant_when_issuing(world: World, faults, kind: str, status: int, code: str):
    made = world.connection()
    faults.add(kind, role_arn=made["role_arn"], **SICK.get(kind, {}))
    worker = world.worker({"id": made["tenant_id"]})
    for method, what in (("POST", "/credentials"), ("GET", "/container-credentials")):
        response = worker.raw(method, path_of(made, what))
        problem(response, status, code)
        assert (response.headers.get("Retry-After") is not None) == (status == 503)
        event = refusal(world, response)
        assert (event["tenant_id"], event["connection_id"]) == (made["tenant_id"], made["id"])
        shows_nothing(json.dumps(event))
    assert world.audit(connection_id=made["id"], action="credentials.issued") == []
    assert world.admin("GET", path_of(made))["status"] == "verified"


@pytest.fixture
def with_a_user_as_broker(world: World, start):
    """A deployment whose broker is an IAM user, which alone may ask for more than an hour."""
    name = f"broker-{uuid.uuid4().hex[:8]}"
    with closing(root_client(world.aws, "iam", VENDOR_ACCOUNT)) as iam:
        user = iam.create_user(UserName=name)["User"]
        may = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [may]})
        iam.put_user_policy(UserName=name, PolicyName="broker", PolicyDocument=document)
        key = iam.create_access_key(UserName=name)["AccessKey"]
    app = start(
        {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]},
        broker=Broker.parse(user["Arn"]),
        max_session_seconds=43_200,
    )
    return World(world.aws, Api(app, world.admin.key))


@on_sqlite
def test_a_role_with_a_shorter_maximum_is_a_fault_of_the_duration(with_a_user_as_broker: World):
    there = with_a_user_as_broker
    there.admin("GET", "/readyz")
    tenant = there.tenant()
    made = there.connect(tenant, there.role(tenant, MaxSessionDuration=7200))
    assert there.admin("POST", path_of(made, "/credentials"), {"duration_seconds": 7200})["AccessKeyId"]
    for wanted in (7201, 43_200, 43_201):
        response = there.admin.raw("POST", path_of(made, "/credentials"), {"duration_seconds": wanted})
        assert set(problem(response, 422, "validation_failed")["errors"]) == {"duration_seconds"}


@on_sqlite
def test_a_broker_that_is_a_session_gives_an_hour_at_most(world: World, start):
    app = start({}, max_session_seconds=43_200)
    there = World(world.aws, Api(app, world.admin.key))
    made = there.connection()
    response = there.admin.raw("POST", path_of(made, "/credentials"), {"duration_seconds": 3601})
    found = problem(response, 422, "validation_failed")
    assert "3600" in found["errors"]["duration_seconds"][0]
