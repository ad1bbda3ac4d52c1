"""Who gets into a role: every form of trust policy against the own, a missing and a foreign
External ID.
"""

import pytest

from tests.sandbox.sandbox_people import (
    CUSTOMER,
    DENIED,
    FOREIGN,
    OWN,
    STRANGER,
    VENDOR,
    VENDOR_ROOT,
    document,
    statement,
)

ID = "sts:ExternalId"
NOBODY, ANYBODY = (False, False, False), (True, True, True)
ONLY_OWN = (True, False, False)

CONDITIONS = {
    # name: (condition, own ID, missing ID, foreign ID)
    "none": (None, *ANYBODY),
    "equals": ({"StringEquals": {ID: OWN}}, *ONLY_OWN),
    "ignore case": ({"StringEqualsIgnoreCase": {ID: OWN.upper()}}, *ONLY_OWN),
    "not equals": ({"StringNotEquals": {ID: FOREIGN}}, True, True, False),
    "like prefix": ({"StringLike": {ID: "dpy-*"}}, True, False, True),
    "like anything": ({"StringLike": {ID: "*"}}, True, False, True),
    "equals takes no patterns": ({"StringEquals": {ID: "dpy-*"}}, *NOBODY),
    "if exists": ({"StringEqualsIfExists": {ID: OWN}}, True, True, False),
    "for all values": ({"ForAllValues:StringEquals": {ID: OWN}}, True, True, False),
    "for any value": ({"ForAnyValue:StringEquals": {ID: OWN}}, *ONLY_OWN),
    "for any value, not": ({"ForAnyValue:StringNotEquals": {ID: FOREIGN}}, *ONLY_OWN),
    "null: must be sent": ({"Null": {ID: "false"}}, True, False, True),
    "null: must not be sent": ({"Null": {ID: True}}, False, True, False),
    "two operators": ({"StringLike": {ID: "dpy-*"}, "StringNotEquals": {ID: FOREIGN}}, *ONLY_OWN),
    "account": ({"StringEquals": {"aws:PrincipalAccount": VENDOR}}, *ANYBODY),
    "principal": ({"ArnLike": {"aws:PrincipalArn": f"arn:aws:iam::{VENDOR}:user/*"}}, *ANYBODY),
    "principal not": (
        {"ArnNotLike": {"aws:PrincipalArn": f"arn:aws:iam::{VENDOR}:user/*"}},
        *NOBODY,
    ),
    "session name": ({"StringLike": {"sts:RoleSessionName": "se*"}}, *ANYBODY),
    "bool of a missing key": ({"Bool": {"aws:MultiFactorAuthPresent": "true"}}, *NOBODY),
    "bool": ({"Bool": {"aws:SecureTransport": True}}, *ANYBODY),
    "address": ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, *ANYBODY),
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
        ({"AWS": [f"arn:aws:iam::{STRANGER}:root", f"arn:aws:iam::{VENDOR}:root"]}, True),
        ({"AWS": "BROKER"}, True),
        ({"AWS": f"arn:aws:iam::{VENDOR}:user/somebody-else"}, False),
        ({"AWS": f"arn:aws:iam::{STRANGER}:root"}, False),
        ({"Service": "ec2.amazonaws.com"}, False),
        ({"AWS": f"arn:aws:iam::{VENDOR}:root", "Service": "ec2.amazonaws.com"}, True),
    ],
)
def test_principals(people, principal, allowed):
    if principal == {"AWS": "BROKER"}:
        principal = {"AWS": people.broker["arn"]}
    assert people.outcome(people.role(principal), OWN) == ("allowed" if allowed else DENIED)


ALLOW, DENY_OTHERS = statement(Principal=VENDOR_ROOT), {"StringNotEquals": {ID: OWN}}


def test_statements_together(people):
    own = {"StringEquals": {ID: OWN}}
    deny = statement("sts:*", "Deny", Principal="*", Condition=DENY_OTHERS)
    tags = {"Effect": "Allow", "Principal": VENDOR_ROOT, "Action": "sts:TagSession"}
    roles = {
        "a second statement opens it": (people.role(VENDOR_ROOT, own, extra=[ALLOW]), ANYBODY),
        "a deny outweighs every allow": (people.role(VENDOR_ROOT, extra=[deny]), ONLY_OWN),
        "another action opens nothing": (
            people.role({"Service": "ec2.amazonaws.com"}, extra=[tags]),
            NOBODY,
        ),
    }
    for name, (role, expected) in roles.items():
        assert (
            tuple(people.outcome(role, sent) == "allowed" for sent in (OWN, None, FOREIGN))
            == expected
        ), name


def test_not_principal_denies_everybody_else(people):
    listed = {"AWS": [f"arn:aws:iam::{VENDOR}:root", people.broker["arn"]]}
    role = people.role(
        VENDOR_ROOT, extra=[{"Effect": "Deny", "NotPrincipal": listed, "Action": "sts:*"}]
    )
    assert people.outcome(role) == people.outcome(role, who=VENDOR) == "allowed"
    # The account is listed and the user is not: what AWS does then is not documented.
    other = people.user(VENDOR, statement(Resource="*"))
    assert people.outcome(role, who=other) == (501, "SandboxUnsupported")


@pytest.mark.parametrize(
    "condition",
    [
        {"StringMatches": {ID: OWN}},
        {"ForSomeValues:StringEquals": {ID: OWN}},
        {"StringEquals": {ID: "${aws:PrincipalTag/team}"}},
        {"ArnLike": {"aws:PrincipalArn": "*"}},
    ],
)
def test_what_the_sandbox_does_not_know_it_says_and_logs(people, condition, caplog):
    assert people.outcome(people.role(VENDOR_ROOT, condition), OWN) == (501, "SandboxUnsupported")
    assert "The sandbox cannot tell" in caplog.text


def test_a_changed_trust_policy_counts_at_once(people):
    role, closed = (
        people.role(VENDOR_ROOT),
        statement(Principal=VENDOR_ROOT, Condition={"StringEquals": {ID: OWN}}),
    )
    assert people.outcome(role) == "allowed"
    iam, name = people.client("iam", CUSTOMER), role.rpartition("/")[2]
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=document(closed))
    assert people.outcome(role) == DENIED
