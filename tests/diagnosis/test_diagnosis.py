"""Why a connection does not work: each cause is made at the sandbox, and the diagnosis must name
it, and who can mend it.
"""

import copy
import json
from contextlib import closing, contextmanager
from functools import partial

import pytest

from sandbox.organization import organization
from tests.attacks.evidence import problem, shows_nothing
from tests.support.cast import Api, Customer, path_of, root_client, without_external_id

# Nothing here depends on the database
pytestmark = pytest.mark.usefixtures("impatient")

OURS = ["our_credentials", "our_identity", "canary", "aws_lets_us_try"]
THEIRS = ["role", "session_duration", "region", "mfa", "organization", "permissions_boundary"]
STEPS = [*OURS, *THEIRS, "permissions"]
READS_ITSELF = """
GetRole GetRolePolicy ListRolePolicies ListAttachedRolePolicies SimulatePrincipalPolicy
"""
ALL = {"Effect": "Allow", "Action": "*", "Resource": "*"}


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


class Patient:
    """A connected role of the kit's, with the permission set's policy, and its account's
    administrator.
    """

    def __init__(self, world, permission_set="inventory", **options):
        self.world, self.customer, self.tenant = world, Customer(world.aws), world.tenant()
        self.kit = world.admin(
            "GET", f"/v1/tenants/{self.tenant['id']}/onboarding?permission_set={permission_set}"
        )
        self.name = self.kit["role_name"]
        role_arn = self.customer.reading_itself(self.name, self.kit["trust_policy"], **options)
        sets = world.admin("GET", "/v1/permission-sets")["items"]
        self.policy = next(it["policy"] for it in sets if it["name"] == permission_set)
        self.put("permissions", *self.policy["Statement"])
        body = {"role_arn": role_arn, "permission_set": permission_set}
        self.connection = world.admin(
            "POST", f"/v1/tenants/{self.tenant['id']}/connections", body, expect=201
        )
        assert self.connection["status"] == "verified"

    def iam(self):
        return closing(root_client(self.world.aws, "iam", self.customer.account))

    def put(self, name, *statements):
        with self.iam() as iam:
            iam.put_role_policy(
                RoleName=self.name, PolicyName=name, PolicyDocument=document(*statements)
            )

    def retrust(self, **condition):
        """The kit's trust policy, with one more condition."""
        trust = copy.deepcopy(self.kit["trust_policy"])
        trust["Statement"][0]["Condition"] |= condition
        self.customer.retrust(self.name, trust)

    def calls(self):
        return self.world.calls_for(self.connection["role_arn"])

    def diagnose(self, api=None):
        return (api or self.world.admin)("POST", path_of(self.connection, "/diagnose"))


@pytest.fixture
def patient(world) -> Patient:
    return Patient(world)


@pytest.fixture
def governed():
    """`governed(patient, service_control=…)`: statements of its organisation's policies, for the
    time of the test.
    """

    def govern(patient, **policies):
        documents = {kind: json.loads(document(*each)) for kind, each in policies.items()}
        organization.govern(patient.customer.account, **documents)

    yield govern
    organization._policies.clear()


def outcomes(found):
    return {step["name"]: step["outcome"] for step in found["steps"]}


def step(found, name):
    return next(it for it in found["steps"] if it["name"] == name)


def problems(found):
    return [name for name, outcome in outcomes(found).items() if outcome == "problem"]


def test_a_connection_that_works_is_read_by_its_own_session_and_takes_no_verdict(patient):
    connection = patient.connection
    before = patient.world.admin("GET", path_of(connection))
    found = patient.diagnose()
    assert list(outcomes(found)) == STEPS
    assert outcomes(found) == dict.fromkeys(STEPS, "ok") | {"canary": "skipped"}
    assert all(it["fix"] is None for it in found["steps"])
    assert "role chaining" in step(found, "session_duration")["detail"]
    assert found["conclusion"] == "Deputy finds nothing that is wrong: the role lets us in."
    assert found["trust_policy"] == patient.kit["trust_policy"]
    assert found["permissions"] == {
        "set": "inventory",
        "version": None,
        "missing": [],
        "beyond": [],
        "unknown": [],
    }
    call = patient.calls()[-1]
    [own] = json.loads(call.policy)["Statement"]
    assert own == {
        "Effect": "Allow",
        "Action": [f"iam:{action}" for action in READS_ITSELF.split()],
        "Resource": connection["role_arn"],
    }
    assert (call.duration, call.external_id) == (900, patient.tenant["external_id"])
    assert patient.world.admin("GET", path_of(connection)) == before
    [event] = patient.world.audit(connection_id=connection["id"], action="connection.diagnosed")
    assert event["details"]["steps"] == {"vendor": "ok"} | {
        name: outcomes(found)[name] for name in STEPS[4:]
    }


def test_without_credentials_and_with_some_that_aws_refuses(patient, start):
    api = Api(start({"AWS_CONTAINER_CREDENTIALS_FULL_URI": None}), patient.world.admin.key)
    found = patient.diagnose(api)
    assert outcomes(found) == {"our_credentials": "problem"} | dict.fromkeys(STEPS[1:], "skipped")
    assert step(found, "our_credentials")["fix"].startswith("Vendor: ")
    assert found["conclusion"] == step(found, "our_credentials")["detail"]
    assert (found["trust_policy"], found["permissions"]["beyond"]) == (None, None)
    assert {gap["cause"] for gap in found["permissions"]["unknown"]} == {"not_seen"}
    refused = {"AWS_ACCESS_KEY_ID": "AKIAGONE", "AWS_SECRET_ACCESS_KEY": "x"}
    assert problems(patient.diagnose(Api(start(refused), patient.world.admin.key))) == [
        "our_credentials"
    ]


def test_with_somebody_elses_credentials(patient, start):
    environment = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": None,
        "AWS_ACCESS_KEY_ID": "123456789012",
        "AWS_SECRET_ACCESS_KEY": "sandbox",
    }
    api = Api(start(environment), patient.world.admin.key)
    before = len(patient.calls())
    found = patient.diagnose(api)
    assert problems(found) == ["our_identity"]
    assert step(found, "our_identity")["fix"].startswith("Vendor: ")
    assert len(patient.calls()) == before, "the role is not asked"

    # The tenant's own key learns whose turn it is, and nothing of what is wrong.
    bound = patient.world.key("connections:write", "audit:read", tenant=patient.tenant)
    told = patient.diagnose(api.with_key(bound.key))
    assert list(outcomes(told)) == ["vendor", *STEPS[4:]]
    assert told["steps"][0] == {
        "name": "vendor",
        "outcome": "problem",
        "detail": "Something on the vendor's side is wrong. The role needs no change.",
        "fix": "Customer: tell the vendor.",
    }
    events = bound("GET", "/v1/audit-events?action=connection.diagnosed")["items"]
    assert len(events) == 2
    for text in (json.dumps(told), json.dumps(events)):
        shows_nothing(text)
        assert "our_identity" not in text


def test_a_role_that_the_settings_do_not_allow(patient, start):
    found = patient.diagnose(Api(start({}, role_prefix="other-"), patient.world.admin.key))
    assert problems(found) == ["aws_lets_us_try"]
    assert "must start with other-" in step(found, "aws_lets_us_try")["detail"]
    assert outcomes(found)["role"] == "skipped"


@pytest.mark.parametrize(
    ("fault", "name", "outcome"),
    [
        ("error", "our_credentials", "unknown"),
        ("throttle", "aws_lets_us_try", "unknown"),
        ("region_disabled", "region", "problem"),
    ],
)
def test_a_call_that_fails_is_named_and_what_comes_after_is_not_known(
    patient, faults, fault, name, outcome
):
    ours = name == "our_credentials"
    role_arn = patient.connection["role_arn"]
    faults.add(fault, **({"action": "GetCallerIdentity"} if ours else {"role_arn": role_arn}))
    found = patient.diagnose()
    assert outcomes(found)[name] == outcome
    assert problems(found) == [name] * (outcome == "problem")
    assert found["conclusion"] == ("AWS does not answer." if ours else step(found, name)["detail"])
    if ours:
        assert outcomes(found) == {name: outcome} | dict.fromkeys(STEPS[1:], "skipped")
    if name == "region":
        assert "us-east-1" in found["conclusion"]


def test_an_absent_role_and_a_refusing_one_look_alike(patient):
    patient.retrust(StringEquals={"sts:ExternalId": "dpy-" + "0" * 64})
    refusing = patient.diagnose()
    patient.customer.remove_role(patient.name)
    absent = patient.diagnose()
    assert problems(absent) == ["role"]
    assert "AWS gives the same answer" in absent["conclusion"]
    assert step(absent, "role")["fix"].startswith("Customer: ")
    assert absent["steps"] == refusing["steps"]
    assert outcomes(absent) == dict.fromkeys(STEPS, "ok") | {
        "canary": "skipped",
        "role": "problem",
        "region": "skipped",
        "mfa": "unknown",
        "organization": "unknown",
        "permissions_boundary": "skipped",
        "permissions": "skipped",
    }
    assert (absent["trust_policy"], absent["permissions"]["missing"]) == (None, [])


def test_a_role_that_accepts_another_external_id_is_told_apart_unless_it_is_retired(patient):
    """No proof takes a retired one, so "verify" would be no advice."""
    admin, path = patient.world.admin, f"/v1/tenants/{patient.tenant['id']}/external-id/rotation"

    def retrust_with_the_next_one():
        rotation = admin("POST", path, {"reason": "it is old"}, expect=201)
        patient.retrust(StringEquals={"sts:ExternalId": rotation["next_external_id"]})

    retrust_with_the_next_one()
    found = patient.diagnose()
    assert problems(found) == ["role"]
    assert "accepts another of the tenant's External IDs" in found["conclusion"]
    assert (outcomes(found)["mfa"], outcomes(found)["organization"]) == ("skipped", "skipped")
    admin("DELETE", path, expect=204)
    assert "AWS gives the same answer" in patient.diagnose()["conclusion"]
    retrust_with_the_next_one()
    patient.connection = admin("POST", path_of(patient.connection, "/verify"))
    assert patient.connection["status"] == "verified", "as its fix says"
    assert problems(patient.diagnose()) == []


def test_a_recreated_role_is_another_one_and_is_not_read(patient):
    patient.customer.remove_role(patient.name)
    patient.customer.reading_itself(patient.name, patient.kit["trust_policy"])
    found = patient.diagnose()
    assert problems(found) == ["role"]
    assert "made again" in found["conclusion"]
    assert found["trust_policy"] is None
    patient.world.admin("POST", path_of(patient.connection, "/verify"))
    assert "role" not in problems(patient.diagnose())


def test_a_trust_policy_that_demands_mfa_in_all_statements_or_in_one(patient):
    patient.retrust(Bool={"aws:MultiFactorAuthPresent": "true"})
    found = patient.diagnose()
    assert problems(found) == ["role"]
    assert outcomes(found)["mfa"] == "unknown"
    assert "aws:MultiFactorAuthPresent" in step(found, "mfa")["fix"]
    trust = copy.deepcopy(patient.kit["trust_policy"])
    with_mfa = copy.deepcopy(trust["Statement"][0])
    with_mfa["Condition"]["Bool"] = {"aws:MultiFactorAuthPresent": "true"}
    patient.customer.retrust(patient.name, {**trust, "Statement": [with_mfa, *trust["Statement"]]})
    beside = step(patient.diagnose(), "mfa")
    assert beside["outcome"] == "ok"
    assert "never lets us in" in beside["detail"]


def test_a_resource_control_policy_that_keeps_outsiders_out(patient, governed):
    outsiders = {"StringNotEqualsIfExists": {"aws:PrincipalOrgID": "o-customers"}}
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "sts:AssumeRole",
        "Resource": "*",
        "Condition": outsiders,
    }
    governed(patient, resource_control=[deny])
    found = patient.diagnose()
    assert problems(found) == ["role"]
    assert outcomes(found)["organization"] == "unknown"
    assert "an exception for account 111122223333" in step(found, "organization")["fix"]


def test_a_service_control_policy_that_denies_an_action(patient, governed):
    deny = {"Effect": "Deny", "Action": "tag:*", "Resource": "*"}
    governed(patient, service_control=[ALL, deny])
    found = patient.diagnose()
    assert problems(found) == ["organization", "permissions"]
    assert "tag:GetResources" in found["conclusion"]
    assert found["permissions"]["missing"] == [
        {"action": "tag:GetResources", "resource": "*", "policy": None, "cause": "organization"}
    ]


@contextmanager
def bounded(patient, *statements):
    with patient.iam() as iam:
        made = iam.create_policy(PolicyName="boundary", PolicyDocument=document(*statements))[
            "Policy"
        ]["Arn"]
        iam.put_role_permissions_boundary(RoleName=patient.name, PermissionsBoundary=made)
        yield
        iam.delete_role_permissions_boundary(RoleName=patient.name)


def test_a_permissions_boundary(patient):
    with bounded(patient, ALL):
        wide = patient.diagnose()
        assert problems(wide) == []
        assert outcomes(wide)["permissions_boundary"] == "ok"
    with patient.iam() as iam:
        iam.delete_policy(PolicyArn=f"arn:aws:iam::{patient.customer.account}:policy/boundary")
    with bounded(
        patient, {"Effect": "Allow", "Action": ["iam:*", "s3:*", "tag:*"], "Resource": "*"}
    ):
        found = patient.diagnose()
    assert problems(found) == ["permissions_boundary", "permissions"]
    assert "ec2:DescribeAddresses" in found["conclusion"]
    assert " and 14 more." in found["conclusion"]
    assert {gap["cause"] for gap in found["permissions"]["missing"]} == {"boundary"}


def test_a_role_that_lacks_some_of_the_set_and_has_more(patient):
    [buckets, _names, instances, _tags] = patient.policy["Statement"]
    patient.put(
        "permissions",
        buckets,
        instances,
        {"Effect": "Deny", "Action": "ec2:DescribeVpcs", "Resource": "*"},
    )
    patient.put(
        "debugging",
        {"Effect": "Allow", "Action": ["s3:GetObject", "ec2:DescribeTags"], "Resource": "*"},
    )
    patient.put("odd", {"Effect": "Allow", "NotAction": "iam:*", "Resource": "arn:aws:s3:::x"})
    with patient.iam() as iam:
        arn = iam.create_policy(PolicyName="extra", PolicyDocument=document(ALL))["Policy"]["Arn"]
        iam.attach_role_policy(RoleName=patient.name, PolicyArn=arn)
        wide = patient.diagnose()["permissions"]
        assert [gap["action"] for gap in wide["missing"]] == ["ec2:DescribeVpcs"]
        iam.detach_role_policy(RoleName=patient.name, PolicyArn=arn)
    found = patient.diagnose()
    assert problems(found) == ["permissions"]
    assert step(found, "permissions")["fix"].startswith("Customer: update the stack")
    everywhere = {"resource": "*"}
    assert found["permissions"]["missing"] == [
        {"action": action, "cause": cause, "policy": None} | everywhere
        for action, cause in (
            ("s3:ListBucket", "not_granted"),
            ("ec2:DescribeVpcs", "denied"),
            ("tag:GetResources", "not_granted"),
        )
    ]
    inline = [
        {"policy": "debugging", "action": "s3:GetObject"} | everywhere,
        {"policy": "odd", "action": None, "resource": None},
    ]
    assert found["permissions"]["beyond"] == inline
    assert wide["beyond"] == [*inline, {"policy": arn, "action": None, "resource": None}]


def test_what_depends_on_an_unknown_condition_is_unknown(patient):
    statements = copy.deepcopy(patient.policy["Statement"])
    statements[-1]["Condition"] = {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}
    patient.put("permissions", *statements)
    found = patient.diagnose()
    [unknown] = found["permissions"]["unknown"]
    assert unknown == {
        "action": "tag:GetResources",
        "resource": "*",
        "policy": None,
        "cause": "condition",
    }
    assert found["permissions"]["missing"] == []
    assert outcomes(found)["permissions"] == "ok"
    assert step(found, "permissions")["detail"].endswith("unknown: tag:GetResources.")


def test_rights_that_iam_was_not_asked_about_are_not_called_granted(patient):
    """A role may have so many policies that no call is left."""
    first, *_ = copy.deepcopy(patient.policy["Statement"])
    patient.put("permissions", first)
    for number in range(40):
        patient.put(f"more-{number}", first)
    found = patient.diagnose()
    assert outcomes(found)["permissions"] == outcomes(found)["organization"] == "unknown"


def test_rights_are_compared_also_if_the_customer_revoked_older_sessions(patient):
    """The kit's parameter revokes them, and so does the button of IAM's console."""
    patient.put("permissions", *copy.deepcopy(patient.policy["Statement"])[:1])
    lacking = patient.diagnose()["permissions"]["missing"]
    revoked = {"DateLessThan": {"aws:TokenIssueTime": "2026-01-01T00:00:00Z"}}
    deny = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": revoked}
    patient.put("AWSRevokeOlderSessions", deny)
    assert patient.diagnose()["permissions"]["missing"] == lacking != []


def test_a_role_that_may_not_simulate_or_not_even_read_itself(patient):
    for may_read in (True, False):
        with patient.iam() as iam:
            iam.delete_role_policy(RoleName=patient.name, PolicyName="read-itself")
        if may_read:
            patient.put(
                "read-itself",
                {"Effect": "Allow", "Action": ["iam:Get*", "iam:List*"], "Resource": "*"},
            )
        found = patient.diagnose()
        assert problems(found) == []
        assert outcomes(found)["permissions"] == "unknown"
        assert "read-itself" in step(found, "permissions")["fix"]
        assert {gap["cause"] for gap in found["permissions"]["unknown"]} == {"not_seen"}
        shown = found["trust_policy"] is not None, found["permissions"]["beyond"] is not None
        assert shown == (may_read, may_read)
        assert outcomes(found)["permissions_boundary"] == ("ok" if may_read else "unknown")


def test_an_iam_that_does_not_answer(patient, faults):
    def diagnosed_without(action):
        faults.add("error", action=action)
        found = patient.diagnose()
        faults.clear()
        assert problems(found) == [], action
        return found

    assert diagnosed_without("GetRole")["trust_policy"] is None
    assert diagnosed_without("ListRolePolicies")["permissions"]["beyond"] is None
    found = diagnosed_without("SimulatePrincipalPolicy")
    assert step(found, "permissions")["detail"] == "IAM did not answer in time."


# --- who may learn what ---


def test_a_role_that_no_proof_has_pinned_is_not_read(world):
    """It lets everybody in, so it may be somebody else's, and is only named by this tenant."""
    victim, mallory = Patient(world), world.tenant("Mallory")
    victim.customer.retrust(victim.name, without_external_id(victim.kit["trust_policy"]))
    named = world.connect(mallory, victim.connection["role_arn"], status="insecure")
    found = world.key("connections:write", tenant=mallory)("POST", path_of(named, "/diagnose"))
    assert found["trust_policy"] is None
    assert found["permissions"]["beyond"] is None
    assert found["permissions"]["missing"] == []
    assert outcomes(found)["permissions"] == "unknown"
    last = victim.calls()[-1]
    assert json.loads(last.policy)["Statement"] == [
        {"Effect": "Deny", "Action": "*", "Resource": "*"}
    ]
    assert found["conclusion"] == "The role accepts any External ID."
    assert step(found, "role")["outcome"] == "problem"
    assert step(found, "role")["fix"].startswith("Customer: The role can be assumed without any")


def test_an_insecure_role_whose_latest_proof_was_inconclusive_is_diagnosed(patient, faults):
    patient.customer.retrust(patient.name, without_external_id(patient.kit["trust_policy"]))
    verify = partial(patient.world.admin, "POST", path_of(patient.connection, "/verify"))
    assert verify()["status"] == "insecure"
    faults.add("throttle", role_arn=patient.connection["role_arn"])
    assert verify()["verification"]["verdict"] == "inconclusive"
    faults.clear()
    found = patient.diagnose()
    assert step(found, "role")["outcome"] == "problem"
    assert step(found, "role")["fix"].startswith("Customer: ")


def test_a_role_that_needs_the_new_external_id_has_a_fix(patient):
    path = f"/v1/tenants/{patient.tenant['id']}/external-id/rotation"
    patient.world.admin("POST", path, {"reason": "a leak", "emergency": True}, expect=201)
    found = patient.diagnose()
    assert problems(found) == ["role"]
    assert step(found, "role")["fix"].startswith("Customer: update the role")
    assert found["conclusion"] == step(found, "role")["detail"]


def test_another_tenants_external_id_is_not_shown(patient):
    other = patient.world.tenant("Globex")["external_id"]
    patient.retrust(StringEquals={"sts:ExternalId": [patient.tenant["external_id"], other]})
    shown = json.dumps(patient.diagnose())
    assert patient.tenant["external_id"] in shown
    assert other not in shown


def test_no_secret_and_nothing_of_awss_own_words(patient):
    bound = patient.world.key("connections:write", tenant=patient.tenant)
    patient.retrust(StringEquals={"sts:ExternalId": "dpy-" + "0" * 64})
    shows_nothing(
        json.dumps(patient.diagnose(bound)).replace("an exception for account 111122223333", "")
    )
    assert patient.diagnose(bound)["steps"][0]["outcome"] == "ok"


def test_a_suspended_connection_is_not_asked(patient):
    patient.world.admin("POST", path_of(patient.connection, "/suspend"), {"reason": "a test"})
    before = len(patient.calls())
    problem(
        patient.world.admin.raw("POST", path_of(patient.connection, "/diagnose")), 409, "suspended"
    )
    assert len(patient.calls()) == before


def test_diagnoses_count_with_verifications(patient, start, stopped_clock):
    api = Api(start({}, connection_rate=2), patient.world.admin.key)
    api("POST", path_of(patient.connection, "/verify"))
    api("POST", path_of(patient.connection, "/diagnose"))
    problem(api.raw("POST", path_of(patient.connection, "/diagnose")), 429, "rate_limited")


def test_the_calls_of_a_diagnosis_wait_for_the_sts_budget(world):
    services = world.admin.app.extensions["deputy"]
    assert services.diagnoses._sts.budget == services.rates.background_call
