"""Who gets into a role: every form of trust policy against the own, a missing and a foreign External ID."""

import json

import pytest

from tests.sandbox.sandbox_people import CUSTOMER, DENIED, FOREIGN, OWN, STRANGER, VENDOR, VENDOR_ROOT, statement

ID = "sts:ExternalId"
NOBODY, ANYBODY = (False, False, False), (True, True, True)
ONLY_OWN = (True, False, False)

CONDITIONS = {
    # name: (condition, own ID, missing ID, foreign ID)
    "none": (None, *ANYBODY),
    "equals": ({"StringEquals": {ID: OWN}}, *ONLY_OWN),
    "equals one of": ({"StringEquals": {ID: ["x", OWN]}}, *ONLY_OWN),
    "key in capitals": ({"StringEquals": {"STS:EXTERNALID": OWN}}, *ONLY_OWN),
    "value in capitals": ({"StringEquals": {ID: OWN.upper()}}, *NOBODY),
    "ignore case": ({"StringEqualsIgnoreCase": {ID: OWN.upper()}}, *ONLY_OWN),
    "not equals": ({"StringNotEquals": {ID: FOREIGN}}, True, True, False),
    "not equals ignore case": ({"StringNotEqualsIgnoreCase": {ID: FOREIGN.upper()}}, True, True, False),
    "like itself": ({"StringLike": {ID: OWN}}, *ONLY_OWN),
    "like prefix": ({"StringLike": {ID: "dpy-*"}}, True, False, True),
    "like anything": ({"StringLike": {ID: "*"}}, True, False, True),
    "like question marks": ({"StringLike": {ID: "dpy-???"}}, *ONLY_OWN),
    "equals takes no patterns": ({"StringEquals": {ID: "dpy-*"}}, *NOBODY),
    "not like": ({"StringNotLike": {ID: "*foreign"}}, True, True, False),
    "if exists": ({"StringEqualsIfExists": {ID: OWN}}, True, True, False),
    "like if exists": ({"StringLikeIfExists": {ID: OWN}}, True, True, False),
    "for all values": ({"ForAllValues:StringEquals": {ID: OWN}}, True, True, False),
    "for all values, not": ({"ForAllValues:StringNotEquals": {ID: FOREIGN}}, True, True, False),
    "for any value": ({"ForAnyValue:StringEquals": {ID: OWN}}, *ONLY_OWN),
    "for any value, not": ({"ForAnyValue:StringNotEquals": {ID: FOREIGN}}, *ONLY_OWN),
    "null: must be sent": ({"Null": {ID: "false"}}, True, False, True),
    "null: must not be sent": ({"Null": {ID: True}}, False, True, False),
    "two operators": ({"StringLike": {ID: "dpy-*"}, "StringNotEquals": {ID: FOREIGN}}, *ONLY_OWN),
    "account": ({"StringEquals": {"aws:PrincipalAccount": VENDOR}}, *ANYBODY),
    "other account": ({"StringEquals": {"aws:PrincipalAccount": STRANGER}}, *NOBODY),
    "account by variable": ({"StringEquals": {"aws:PrincipalAccount": "${aws:PrincipalAccount}"}}, *ANYBODY),
    "principal": ({"ArnLike": {"aws:PrincipalArn": f"arn:aws:iam::{VENDOR}:user/*"}}, *ANYBODY),
    "principal equals": ({"ArnEquals": {"aws:PrincipalArn": f"arn:aws:iam::{VENDOR}:role/*"}}, *NOBODY),
    "principal not": ({"ArnNotLike": {"aws:PrincipalArn": f"arn:aws:iam::{VENDOR}:user/*"}}, *NOBODY),
    "principal not equals": ({"ArnNotEquals": {"aws:PrincipalArn": f"arn:aws:iam::{VENDOR}:role/x"}}, *ANYBODY),
    "session name": ({"StringLike": {"sts:RoleSessionName": "se*"}}, *ANYBODY),
    "bool of a missing key": ({"Bool": {"aws:MultiFactorAuthPresent": "true"}}, *NOBODY),
    "bool if exists": ({"BoolIfExists": {"aws:MultiFactorAuthPresent": "true"}}, *ANYBODY),
    "bool": ({"Bool": {"aws:SecureTransport": True}}, *ANYBODY),
    "number of a missing key": ({"NumericLessThan": {"aws:MultiFactorAuthAge": "300"}}, *NOBODY),
    "address": ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, *ANYBODY),
    "not address": ({"NotIpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, *NOBODY),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions(people, name):
    condition, *wanted = CONDITIONS[name]
    role = people.role(VENDOR_ROOT, condition)
    outcomes = [people.outcome(role, external_id) for external_id in (OWN, None, FOREIGN)]
    assert outcomes == ["allowed" if yes else DENIED for yes in wanted]


@pytest.mark.parametrize(
    ("principal", "allowed"),
    [
        ("*", True),
        ({"AWS": "*"}, True),
        ({"AWS": VENDOR}, True),
        ({"AWS": [f"arn:aws:iam::{STRANGER}:root", f"arn:aws:iam::{VENDOR}:root"]}, True),
        ({"AWS": "BROKER"}, True),
        ({"AWS": f"arn:aws:iam::{VENDOR}:user/somebody-else"}, False),
        ({"AWS": f"arn:aws:iam::{STRANGER}:root"}, False),
        ({"AWS": CUSTOMER}, False),
        ({"Service": "ec2.amazonaws.com"}, False),
        ({"Federated": "cognito-identity.amazonaws.com"}, False),
        ({"AWS": f"arn:aws:iam::{VENDOR}:root", "Service": "ec2.amazonaws.com"}, True),
    ],
)
def test_principals(people, principal, allowed):
    if principal == {"AWS": "BROKER"}:
        principal = {"AWS": people.broker["arn"]}
    assert people.outcome(people.role(principal), OWN) == ("allowed" if allowed else DENIED)


def test_a_second_statement_can_open_the_role(people):
    extra = [statement(Principal=VENDOR_ROOT)]
    role = people.role(VENDOR_ROOT, {"StringEquals": {ID: OWN}}, extra=extra)
    assert people.outcome(role) == "allowed"


def test_a_deny_outweighs_every_allow(people):
    deny = statement("sts:*", "Deny", Principal="*", Condition={"StringNotEquals": {ID: OWN}})
    role = people.role(VENDOR_ROOT, extra=[deny])
    assert [people.outcome(role, id_) for id_ in (OWN, None, FOREIGN)] == ["allowed", DENIED, DENIED]


def test_not_principal_denies_everybody_else(people):
    listed = {"AWS": [f"arn:aws:iam::{VENDOR}:root", people.broker["arn"]]}
    role = people.role(VENDOR_ROOT, extra=[{"Effect": "Deny", "NotPrincipal": listed, "Action": "sts:*"}])
    other = people.user(VENDOR, statement(Resource="*"))
    assert people.outcome(role) == "allowed"
    assert people.outcome(role, who=VENDOR) == "allowed"
    # The account is listed and the user is not: what AWS does then is not documented.
    assert people.outcome(role, who=other) == (501, "SandboxUnsupported")


def test_a_role_for_another_action_is_closed(people):
    closed = {"Effect": "Allow", "Principal": VENDOR_ROOT, "Action": "sts:TagSession"}
    role = people.role({"Service": "ec2.amazonaws.com"}, extra=[closed])
    assert people.outcome(role, OWN) == DENIED


@pytest.mark.parametrize(
    "condition",
    [
        {"StringMatches": {ID: OWN}},
        {"BinaryEquals": {ID: "eA=="}},
        {"ForSomeValues:StringEquals": {ID: OWN}},
        {"StringEquals": {ID: "${aws:PrincipalTag/team}"}},
        {"ArnLike": {"aws:PrincipalArn": "*"}},
        {"Null": {ID: "maybe"}},
        {"NumericEquals": {ID: "many"}},
    ],
)
def test_what_the_sandbox_does_not_know_it_says_and_logs(people, condition, caplog):
    assert people.outcome(people.role(VENDOR_ROOT, condition), OWN) == (501, "SandboxUnsupported")
    assert "The sandbox cannot tell" in caplog.text


def test_a_changed_trust_policy_counts_at_once(people):
    role = people.role(VENDOR_ROOT)
    name = role.rpartition("/")[2]
    closed = people.role(VENDOR_ROOT, {"StringEquals": {ID: OWN}})
    iam = people.client("iam", CUSTOMER)
    new = iam.get_role(RoleName=closed.rpartition("/")[2])["Role"]["AssumeRolePolicyDocument"]
    assert people.outcome(role) == "allowed"
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(new))
    assert people.outcome(role) == DENIED
