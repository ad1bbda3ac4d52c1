"""The set beside the role, at the edges that no sandbox shows."""

import pytest
import yaml

from app.aws.role_view import Decision, RolePolicies
from app.diagnosis.role_rights import Beyond, beyond, gap, rights
from app.ids import RoleArn
from app.proofs.policy_statements import Globs

ROLE = RoleArn.parse("arn:aws:iam::444455556666:role/deputy-1")
KNOWN = {"aws:ResourceAccount"}
CASES = yaml.safe_load("""
not askable:  # action, resource, condition, cause
  - ["s3:Get*", "*", {}, pattern]
  - ["s3:Ge?", "*", {}, pattern]
  - ["s3:A", "arn:aws:s3:::${aws:PrincipalAccount}", {}, pattern]
  - ["s3:A", "arn:aws:s3:::${Bucket}", {}, pattern]
  - ["s3:A", "*", {StringEquals: {"aws:SourceVpc": vpc-1}}, condition]
  - ["s3:A", "*", {StringEquals: {"AWS:resourceaccount": "1", "s3:prefix": x}}, condition]
decisions:  # what IAM says, cause
  - [null, not_seen]
  - [{allowed: true, untold: ["aws:sourceip"]}, null]
  - [{}, not_granted]
  - [{denied: true, untold: ["aws:sourceip"]}, denied]
  - [{denied: true, organization: true, boundary: true}, organization]
  - [{denied: true, boundary: true}, boundary]
  - [{untold: ["aws:sourceip"]}, condition]
  - [{untold: ["s3:prefix"]}, not_granted]
beyond:  # action, resource, condition, whether it is more than the set has
  - ["s3:GetObject", "arn:aws:s3:::shared-1/*", null, false]
  - ["S3:getobject", "arn:aws:s3:::shared-*", null, false]
  - ["s3:Get*", "arn:aws:s3:::shared-1", null, false]
  - ["s3:*", "arn:aws:s3:::shared-1", null, true]
  - ["s3:GetObject", "*", null, true]
  - ["ec2:StartInstances", i-1, null, true]  # the set's own has a condition
  - ["ec2:StartInstances", i-1, {Bool: {"aws:SecureTransport": "true"}}, false]
  - ["ec2:StartInstances", i-1, {Bool: {"aws:SecureTransport": "false"}}, true]
  - ["s3:GetObject", "arn:aws:s3:::shared-1", {Bool: {"a:b": "true"}}, false]
  - ["sns:A", "arn:chosen/x", null, false]  # a parameter of the set
  - ["sns:A", "arn:chosen/${aws:userid}/x", null, true]
  - ["sns:A", "arn:*/x", null, true]
  - ["sqs:*", "a?c", null, true]  # the set's pattern has one letter there, and this one any
  - ["iam:SimulatePrincipalPolicy", "arn:aws:iam::444455556666:role/deputy-1", null, false]
  - ["iam:SimulatePrincipalPolicy", "*", null, true]
""")


def allow(action, resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def decision(*, allowed=False, denied=False, organization=False, boundary=False, untold=()):
    return Decision(allowed, denied, organization, boundary, frozenset(untold))


def test_each_right_is_asked_once_and_a_deny_is_no_right():
    asked = [
        allow(["s3:A", "s3:B"], ["x", "y"]),
        allow("s3:A", "x"),
        {**allow("s3:C"), "Effect": "Deny"},
    ]
    assert rights(asked, KNOWN) == (
        [("s3:A", "x"), ("s3:A", "y"), ("s3:B", "x"), ("s3:B", "y")],
        [],
    )


@pytest.mark.parametrize(("action", "resource", "condition", "cause"), CASES["not askable"])
def test_what_iam_cant_be_asked_about(action, resource, condition, cause):
    askable, others = rights([allow(action, resource, Condition=condition)], KNOWN)
    assert (askable, [it.cause for it in others]) == ([], [cause])


def test_a_condition_whose_key_is_known_can_be_asked_about():
    statement = allow("s3:A", Condition={"StringEquals": {"aws:resourceAccount": "444455556666"}})
    assert rights([statement], KNOWN) == ([("s3:A", "*")], [])


@pytest.mark.parametrize(("answer", "cause"), CASES["decisions"])
def test_what_a_decision_means(answer, cause):
    """s3:prefix is compared by another statement of the set; any other key may be that of a
    statement that allows it.
    """
    said = None if answer is None else decision(**answer)
    found = gap(("s3:A", "*"), said, [allow("s3:B", Condition={"StringLike": {"s3:prefix": "x"}})])
    assert (found and found.cause) == cause


@pytest.mark.parametrize(("action", "resource", "condition", "is_more"), CASES["beyond"])
def test_what_a_role_has_beyond_its_set(action, resource, condition, is_more):
    inline = allow(action, resource, **({"Condition": condition} if condition else {}))
    asked = [
        allow("s3:Get*", "arn:aws:s3:::shared-*"),
        allow("ec2:StartInstances", "*", Condition={"Bool": {"aws:SecureTransport": "true"}}),
        allow("sqs:*", "a??"),
        allow("sns:A", ["arn:${Chosen}/x", "arn:y/${aws:username}/x"]),
    ]
    more = [Beyond("p", inline["Action"], inline["Resource"])] if is_more else []
    assert beyond(RolePolicies({"p": {"Statement": inline}}, ()), asked, (), ROLE) == more
    denied = {"Statement": inline | {"Effect": "Deny"}}
    assert beyond(RolePolicies({"p": denied}, ()), asked, (), ROLE) == []


@pytest.mark.parametrize(
    "odd",
    [
        None,
        5,
        {"Statement": "x"},
        {"Statement": {"Effect": "Allow", "Action": "*", "NotResource": "x"}},
    ],
)
def test_a_policy_that_is_not_understood_is_named(odd):
    assert beyond(RolePolicies({"p": odd}, ("arn:m",)), [allow("*")], ("arn:n",), ROLE) == [
        Beyond("p"),
        Beyond("arn:m"),
    ]


def test_of_a_thousand_rights_each_is_compared_and_of_more_none():
    """What a customer writes into the role must not hold up everybody: 8 kB of actions and
    resources are 100,000 pairs.
    """
    full = {"Statement": allow([f"s3:A{n}" for n in range(40)], [f"r{n}" for n in range(25)])}
    one = {"Statement": allow("s3:B", "r")}
    found = beyond(RolePolicies({"full": full}, ()), [allow("s3:A1", "*")], (), ROLE)
    assert len(found) == 39 * 25
    assert Beyond("full", "s3:A0", "r24") in found
    found = beyond(
        RolePolicies({"first": one, "full": full, "last": one}, ()), [allow("s3:A1", "*")], (), ROLE
    )
    assert found == [Beyond("first", "s3:B", "r"), Beyond("full"), Beyond("last")]


def test_an_answer_repeats_a_bounded_number_of_characters():
    """A resource of 5,000 characters beside 500 actions would make megabytes."""
    actions = [f"s3:A{number}" for number in range(500)]
    role = RolePolicies({"long": {"Statement": allow(actions, "x" * 5_000)}}, ())
    assert beyond(role, [allow("s3:B", "*")], (), ROLE) == [Beyond("long")]


def test_text_is_compared_up_to_aws_own_limit():
    """AWS does not count white space, so a policy may hold 131,072 characters."""
    role = {
        "padded": {"Statement": allow("s3:A", "x" + " " * 10_240)},
        "after": {"Statement": allow("s3:B", "r")},
    }
    assert beyond(RolePolicies(role, ()), [allow("s3:A", "*")], (), ROLE) == [
        Beyond("padded"),
        Beyond("after"),
    ]


def test_each_text_of_a_role_is_compared_once_with_all_patterns_of_the_set(monkeypatch):
    compared = []
    matching = Globs.matching
    monkeypatch.setattr(
        Globs, "matching", lambda globs, text: compared.append(text) or matching(globs, text)
    )
    actions, resources = [f"s3:A{n}" for n in range(30)], [f"r{n}" for n in range(30)]
    asked = [allow([f"s3:*{n}", "s3:B"], [f"*{n}", "x*"]) for n in range(30)]
    beyond(RolePolicies({"full": {"Statement": allow(actions, resources)}}, ()), asked, (), ROLE)
    assert len(compared) == len(actions) + len(resources)
