"""SimulatePrincipalPolicy: what keeps a role from something, and what an organisation's policies do."""

import json

import pytest
from botocore.exceptions import ClientError

from sandbox.organization import organization
from tests.sandbox.sandbox_people import CUSTOMER, DENIED, VENDOR, VENDOR_ROOT, document, statement

READ = statement("s3:Get*", Resource="arn:aws:s3:::shared/*")


@pytest.fixture(autouse=True)
def governed():
    yield
    organization._policies.clear()


def govern(**policies):
    organization.govern(CUSTOMER, **{kind: json.loads(document(*found)) for kind, found in policies.items()})


@pytest.fixture
def simulate(people):
    """`simulate(role, action, resource, key=value)`: IAM's whole result for one action."""
    iam = people.client("iam", CUSTOMER)

    def asked(role, action, resource, **context):
        entries = [
            {"ContextKeyName": key, "ContextKeyType": "string", "ContextKeyValues": [value]}
            for key, value in context.items()
        ]
        answer = iam.simulate_principal_policy(
            PolicySourceArn=role, ActionNames=[action], ResourceArns=[resource], ContextEntries=entries
        )
        [found] = answer["EvaluationResults"]
        assert (found["EvalActionName"], found["EvalResourceName"]) == (action, resource)
        return found

    return asked


def test_a_simulation_evaluates_the_roles_own_policies(people, simulate):
    deny = statement("s3:GetObjectAcl", effect="Deny", Resource="*")
    role = people.role(VENDOR_ROOT, policies=[READ, deny])
    for action, resource, decision in (
        ("s3:GetObject", "arn:aws:s3:::shared/x", "allowed"),
        ("s3:GetObject", "arn:aws:s3:::shared/*", "allowed"),
        ("s3:GetObject", "*", "implicitDeny"),
        ("s3:PutObject", "arn:aws:s3:::shared/x", "implicitDeny"),
        ("s3:GetObjectAcl", "arn:aws:s3:::shared/x", "explicitDeny"),
    ):
        assert simulate(role, action, resource)["EvalDecision"] == decision, action


def test_a_condition_needs_its_key_and_an_absent_one_is_named(people, simulate):
    allow = statement("s3:*", Resource="*", Condition={"StringEquals": {"aws:ResourceAccount": CUSTOMER}})
    role = people.role(VENDOR_ROOT, policies=[allow])
    absent = simulate(role, "s3:GetObject", "*")
    assert (absent["EvalDecision"], absent["MissingContextValues"]) == ("implicitDeny", ["aws:resourceaccount"])
    given = simulate(role, "s3:GetObject", "*", **{"aws:ResourceAccount": CUSTOMER})
    assert (given["EvalDecision"], given["MissingContextValues"]) == ("allowed", [])


def test_a_boundary_and_an_organisation_are_told_apart(people, simulate):
    iam = people.client("iam", CUSTOMER)
    everything = statement("*", Resource="*")
    boundary = iam.create_policy(PolicyName="simulated", PolicyDocument=document(READ))["Policy"]["Arn"]
    role = people.role(VENDOR_ROOT, policies=[everything], PermissionsBoundary=boundary)
    found = simulate(role, "s3:PutObject", "*")
    assert found["EvalDecision"] == "implicitDeny"
    assert found["PermissionsBoundaryDecisionDetail"] == {"AllowedByPermissionsBoundary": False}
    assert "OrganizationsDecisionDetail" not in found
    govern(service_control=[everything, statement("s3:*", effect="Deny", Resource="*")])
    found = simulate(role, "s3:GetObject", "arn:aws:s3:::shared/x")
    assert found["EvalDecision"] == "explicitDeny"
    assert found["PermissionsBoundaryDecisionDetail"] == {"AllowedByPermissionsBoundary": True}
    assert found["OrganizationsDecisionDetail"] == {"AllowedByOrganizations": False}


def test_a_session_may_ask_about_its_own_role_if_it_is_allowed_to(people):
    own = "arn:aws:iam::444455556666:role/deputy-simulating"
    allow = statement("iam:SimulatePrincipalPolicy", Resource=own)
    role = people.role(VENDOR_ROOT, name="deputy-simulating", policies=[allow])
    other = people.role(VENDOR_ROOT)
    iam = people.client("iam", people.assume(role, who=VENDOR))
    asked = {"ActionNames": ["s3:GetObject"]}
    assert iam.simulate_principal_policy(PolicySourceArn=role, **asked)["EvaluationResults"]
    with pytest.raises(ClientError, match="AccessDenied"):
        iam.simulate_principal_policy(PolicySourceArn=other, **asked)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"PolicySourceArn": f"arn:aws:iam::{CUSTOMER}:role/nobody", "ActionNames": ["s3:GetObject"]}, "NoSuchEntity"),
        ({"ActionNames": ["s3:Get*"]}, "ValidationError"),
        ({"ActionNames": ["s3:GetObject"], "ResourceArns": ["arn:a", "arn:b"]}, "SandboxUnsupported"),
        ({"ActionNames": ["s3:GetObject"], "CallerArn": f"arn:aws:iam::{CUSTOMER}:user/x"}, "SandboxUnsupported"),
    ],
)
def test_what_a_simulation_does_not_answer(people, asked, code):
    role = people.role(VENDOR_ROOT)
    with pytest.raises(ClientError) as raised:
        people.client("iam", CUSTOMER).simulate_principal_policy(**{"PolicySourceArn": role} | asked)
    assert raised.value.response["Error"]["Code"] == code


class TestOrganisations:
    def test_a_service_control_policy_is_all_that_a_role_may_do(self, people):
        role = people.role(VENDOR_ROOT, policies=[statement("*", Resource="*")])
        iam = people.client("iam", people.assume(role, who=VENDOR))
        iam.list_roles()
        govern(service_control=[statement("s3:*", Resource="*")])
        with pytest.raises(ClientError, match="AccessDenied"):
            iam.list_roles()

    def test_an_organisations_policy_binds_the_root_of_an_account_too(self, people):
        iam = people.client("iam", CUSTOMER)
        deny = statement("iam:*", effect="Deny", Resource="*")
        govern(service_control=[statement("*", Resource="*"), deny])
        with pytest.raises(ClientError, match="with an explicit deny in a service control policy"):
            iam.list_roles()
        people.client("sqs", CUSTOMER).list_queues()
        govern(service_control=[statement("s3:*", Resource="*")])
        with pytest.raises(ClientError, match="because no service control policy allows the iam:ListRoles action"):
            iam.list_roles()

    def test_a_resource_control_policy_refuses_outsiders(self, people):
        role = people.role(VENDOR_ROOT)
        assert people.outcome(role, who=VENDOR) == "allowed"
        outsiders = {"StringNotEqualsIfExists": {"aws:PrincipalAccount": CUSTOMER}}
        deny = statement(effect="Deny", Principal="*", Resource="*", Condition=outsiders)
        govern(resource_control=[deny])
        assert people.outcome(role, who=VENDOR) == DENIED
