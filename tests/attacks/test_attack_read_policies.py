"""Trust policies that no call of a proof finds out: they are read, by the role's own session,
and never issue.
"""

import json
import re
from uuid import UUID

import pytest

from app.aws.sts import Sts, Unavailable
from app.store.models import ConnectionStatus, Trigger
from tests.attacks.evidence import case, check, issues_nothing, outcomes
from tests.attacks.test_attack_trust_policies import KEY, NAME, allow, deny, role_with
from tests.support.cast import Customer, path_of, root_client
from tests.support.rows import ADMIN
from tests.web.conftest import visit

DEMANDS, ONLY_US = "trust_policy_demands_external_id", "trust_policy_names_only_us"


def statements_of(*statements):
    return {"Version": "2012-10-17", "Statement": list(statements)}


def demanded(tenant, **more):
    return allow(StringEquals={KEY: tenant["external_id"]}, **more)


@pytest.fixture
def connect(world):
    """Connects a role that may read itself and has these statements."""

    def connected(tenant, *statements, status="verified"):
        role_arn = role_with(world, tenant, [*statements], reads_itself=True)
        return world.connect(tenant, role_arn, status=status)

    return connected


def test_a_way_in_under_another_session_name_is_found_by_reading(world, connect):
    """The probes' names are those of issued sessions, so none of their calls meets it."""
    tenant = world.tenant("Sloppy")
    made = connect(
        tenant, demanded(tenant), allow(StringEquals={NAME: "maintenance"}), status="insecure"
    )
    assert outcomes(made) == ["passed"] * 4, "the calls saw nothing"
    demands = check(made, DEMANDS)
    assert demands["outcome"] == "failed"
    words = "A part of the role's trust policy lets the broker in without"
    assert demands["detail"].startswith(words)
    assert made["verification"]["verdict"] == "insecure"
    assert made["verification"]["warnings"] == []
    issues_nothing(world.worker(tenant), made)


def test_a_routine_proof_reads_the_trust_policy_too_and_judges_by_it(world, app, connect):
    """A full proof might find nothing a moment later, for example because IAM does not answer."""
    tenant = world.tenant("Drifting")
    made = connect(tenant, demanded(tenant))
    hidden = allow(StringEquals={"sts:SourceIdentity": "ops"})
    name = made["role_arn"].rpartition("/")[2]
    Customer(world.aws, made["account_id"]).retrust(name, statements_of(demanded(tenant), hidden))
    before = len(world.calls_for(made["role_arn"]))
    verify = app.extensions["deputy"].verification.verify
    found = verify(ADMIN, UUID(made["tenant_id"]), UUID(made["id"]), trigger=Trigger.SCHEDULED)
    assert found.status is ConnectionStatus.INSECURE
    shown = check(world.read(made), DEMANDS)
    assert shown["detail"].startswith("Statement 2 of"), "it was proven before: it is this tenant's"
    assert len(world.calls_for(made["role_arn"])) == before + 3
    issues_nothing(world.worker(tenant), made)


ANOTHERS = {
    "among values that are nobody's": lambda own, other: [
        allow(StringEquals={KEY: [own, *(f"acme-{n}" for n in range(100)), other]})
    ],
    "in upper case": lambda own, other: [allow(StringEquals={KEY: [own, other.upper()]})],
    "beside what is not understood": lambda own, other: [
        allow(
            StringEquals={KEY: [own, other]}, StringNotEquals={"aws:PrincipalOrgID": "o-somebody"}
        ),
        deny(StringEquals={"aws:PrincipalOrgID": "o-somebody"}),
    ],
    "of a tenant that was deleted": lambda own, other: [
        allow(ForAnyValue__StringEquals={KEY: [other, own]})
    ],
}


def test_another_tenants_id_is_found_by_reading(world, connect):
    """No foreign ID of a proof is another tenant's. Which tenant it is, or was, no answer tells."""
    globex = world.tenant("Globex")
    for name, policy in ANOTHERS.items():
        if "deleted" in name:
            world.admin("DELETE", f"/v1/tenants/{globex['id']}", expect=204)
        with case(name):
            tenant = world.tenant("Acme")
            statements = policy(tenant["external_id"], globex["external_id"])
            connection = connect(tenant, *statements, status="insecure")
            assert outcomes(connection) == ["passed"] * 4
            assert check(connection, DEMANDS)["outcome"] == "failed"
            shown = f"(?i){globex['external_id']}|{globex['id']}|globex"
            assert not re.search(shown, json.dumps(connection))
            issues_nothing(world.worker(tenant), connection)


def test_a_role_in_the_middle_of_a_move_is_proven_with_a_warning(world, connect):
    """It lists what another system of the vendor's sends, and lets that system in. Deputy itself
    never sends it.
    """
    tenant = world.tenant()
    values = [tenant["external_id"], "acme-1", "dpy-" + "0" * 64, tenant["external_id"].upper()]
    old = {**allow(), "Principal": {"AWS": "arn:aws:iam::111122223333:role/Old"}}
    old["Condition"] = {"StringEquals": {KEY: "acme-2"}}
    made = connect(
        tenant, allow(StringEquals={KEY: values[:2]}), allow(StringEquals={KEY: values[1:]}), old
    )
    assert check(made, DEMANDS)["outcome"] == "passed"
    warnings = {warning["name"]: warning["detail"] for warning in made["verification"]["warnings"]}
    assert warnings.keys() == {ONLY_US, "trust_policy_lists_other_external_ids"}
    assert "also lists 3 fixed values" in warnings["trust_policy_lists_other_external_ids"]
    assert "role/Old in the vendor's own AWS accounts. Ask the vendor" in warnings[ONLY_US]
    assert world.worker(tenant)("POST", path_of(made, "/credentials"))["AccessKeyId"]
    assert {call.external_id for call in world.calls_for(made["role_arn"])}.isdisjoint(values[1:])


@pytest.mark.parametrize("verdict", ["insecure", "inconclusive"])
def test_a_tenant_learns_nothing_of_somebody_elses_open_role(
    world, customer, faults, monkeypatch, verdict
):
    """It was let in, as everybody is; the role was never proven under this tenant."""
    globex, tenant = world.tenant("Globex"), world.tenant("Mallory")
    anybody = {"StringLike": {KEY: "dpy-*"}}
    if verdict == "inconclusive":
        anybody = {"StringEquals": {KEY: "${sts:ExternalId}"}}
    until = {**anybody, "DateLessThan": {"aws:CurrentTime": "2099-12-31T00:00:00Z"}}
    person = {"aws:PrincipalArn": "arn:aws:iam::999999999999:role/DueDiligence"}
    people = {
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::999999999999:root"},
        "Action": "sts:AssumeRole",
        "Condition": {"ArnEquals": person},
    }
    sso = {
        "Effect": "Allow",
        "Principal": {"Federated": f"arn:aws:iam::{customer.account}:saml-provider/globex-okta"},
        "Action": "sts:AssumeRoleWithSAML",
    }
    tags = [{"Key": "deputy:permission-set", "Value": "inventory@1"}]
    trust = statements_of(allow(**until), people, sso)
    role_arn = customer.reading_itself(world.kit(globex)["role_name"], trust, Tags=tags)
    if verdict == "inconclusive":
        faults.add("throttle", role_arn=role_arn, external_id="missing")
        monkeypatch.setattr(Sts, "probe_foreign", lambda *_: (_ for _ in ()).throw(Unavailable()))
    api = world.key("connections:read", "connections:write", "audit:read", tenant=tenant)
    path = f"/v1/tenants/{tenant['id']}/connections"
    made = api("POST", path, {"role_arn": role_arn}, expect=201)
    assert made["verification"]["verdict"] == verdict
    assert check(made, ONLY_US)["outcome"] == "failed"
    assert made["access_until"] is made["permission_set_version"] is None
    assert made["verification"]["warnings"] == []
    page = visit(world, tenant).raw()
    assert page.status_code == 200
    again = api("POST", path_of(made, "/verify"))
    answers = [made, again, api("GET", path_of(made)), api("GET", path_of(made, "/proofs"))]
    answers += [api("POST", path_of(made, "/diagnose")), api("GET", "/v1/audit-events?limit=200")]
    for text in (*map(json.dumps, answers), page.text):
        assert not re.search("999999999999|DueDiligence|okta|2099-12-31|Statement 1", text)


def test_a_role_that_may_no_longer_be_read_is_told_of_once(world, faults, connect):
    tenant = world.tenant()
    made = connect(tenant, demanded(tenant))
    name = made["role_arn"].rpartition("/")[2]

    def verified():
        found = world.verify(made)["verification"]["warnings"]
        events = world.audit(connection_id=made["id"], action="connection.role_unreadable")
        return [it["name"] for it in found], len(events)

    assert verified() == ([], 0)
    faults.add("error", action="GetRole", times=1)
    assert verified() == ([], 0), "IAM's silence is no refusal"
    iam = root_client(world.aws, "iam", made["account_id"])
    policy = {"RoleName": name, "PolicyName": "read-itself"}
    reads = iam.get_role_policy(**policy)["PolicyDocument"]
    iam.delete_role_policy(**policy)
    assert verified() == (["role_unreadable"], 1), "after a silence as well"
    assert verified() == ([], 1)
    iam.put_role_policy(**policy, PolicyDocument=json.dumps(reads))
    assert verified() == ([], 1)
    iam.delete_role_policy(**policy)
    assert verified() == (["role_unreadable"], 2)
