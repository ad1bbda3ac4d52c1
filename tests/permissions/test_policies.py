"""Every policy that Deputy ships is read against AWS's own list of actions.

Each check takes one statement and names what is wrong with it, and is itself shown to refuse a bad
one.
"""

import json

import pytest
import yaml

from app.permissions.action_checks import ACCESS_LEVELS, actions_named
from dev import check_policies
from dev.check_policies import (
    CLOUDFORMATION,
    PUBLIC_ON_PURPOSE,
    actions,
    everything_on_everything,
    mistakes_in,
    public,
    shipped,
    statements_in,
)

PERMISSION_SETS = sorted((CLOUDFORMATION / "permission-sets").glob("*.json"))


def beyond_reading(statement):
    if statement["Effect"] != "Allow":
        return []
    return [
        name
        for action in actions(statement)
        for name in actions_named(action)
        if ACCESS_LEVELS[name] not in {"Read", "List"}
    ]


def test_deputy_ships_only_sound_statements():
    assert {name: mistakes for name, it in shipped() if (mistakes := mistakes_in(it))} == {}


@pytest.mark.parametrize("path", PERMISSION_SETS, ids=lambda path: path.stem)
def test_a_set_that_says_read_only_reads(path):
    permission_set = json.loads(path.read_text())
    found = [
        name for statement in permission_set["statements"] for name in beyond_reading(statement)
    ]

    if permission_set["access"] == "read":
        assert found == []
    else:
        assert found, "a set that only reads should say so"


def test_inventory_reads_no_contents():
    """Some actions of the level Read hand out contents: an object's bytes, or passwords in an
    instance's user data.
    """
    inventory = json.loads((CLOUDFORMATION / "permission-sets" / "inventory.json").read_text())
    granted = {
        name
        for statement in inventory["statements"]
        for a in statement["Action"]
        for name in actions_named(a)
    }

    assert granted.isdisjoint(
        {
            "s3:getobject",
            "s3:getobjectversion",
            "ec2:describeinstanceattribute",
            "ec2:describelaunchtemplateversions",
            "ec2:getconsoleoutput",
            "ec2:getpassworddata",
        }
    )


def test_bucket_sync_stays_in_the_customers_account():
    """Bucket names are global: without the condition a stranger's bucket with the prefix would
    be written to.
    """
    bucket_sync = json.loads((CLOUDFORMATION / "permission-sets" / "bucket-sync.json").read_text())

    for statement in bucket_sync["statements"]:
        assert statement["Condition"] == {
            "StringEquals": {"aws:ResourceAccount": "${aws:PrincipalAccount}"}
        }
        assert all(
            arn.startswith("arn:${AWS::Partition}:s3:::deputy-shared-")
            for arn in statement["Resource"]
        )


# The checks themselves can fail.


def allow(*names, resource="*", **more):
    return {"Effect": "Allow", "Action": list(names), "Resource": resource, **more}


def test_everything_on_everything_is_found_and_narrow_resources_are_not():
    """What counts as everything is test_wildcards.py; here, in which form a template may write
    it.
    """
    for resource in yaml.safe_load("""
        - "?*"
        - ["arn:aws:s3:::a", "*"]
        - {"Fn::Sub": "*"}
        - [{"Fn::Sub": "*"}]
        - {"Fn::Sub": "arn:${AWS::Partition}:*"}
        - {"Fn::Sub": ["arn:${P}:s3:::*", {P: aws}]}
        """):
        statement = allow("s3:GetObject", "s3:?*", resource=resource)
        assert everything_on_everything(statement) == ["s3:?*"], resource
    for narrow in ("arn:aws:s3:::mine/*", [{"Ref": "Bucket"}, {"Fn::GetAtt": ["Bucket", "Arn"]}]):
        assert everything_on_everything(allow("s3:*", resource=narrow)) == [], narrow


@pytest.mark.parametrize(
    ("check", "fields", "found"),
    yaml.safe_load("""
    - [inverted, {NotAction: "iam:*"}, [NotAction]]
    - [inverted, {NotResource: "iam:*"}, [NotResource]]
    - [inverted, {NotPrincipal: "iam:*"}, [NotPrincipal]]
    - [inverted, {Effect: Deny, NotAction: "iam:*"}, []]
    - - unknown_actions
      - {Action: ["S3:listbucket", "s3:ListBuckets", "nothing:*", "s3:Zzz*"]}
      - ["s3:ListBuckets", "nothing:*", "s3:Zzz*"]
    - [any_role_passed, {Action: "iam:PassRole", Resource: "*"}, ["iam:PassRole"]]
    - [any_role_passed, {Action: ["iam:Pass*", "s3:*"], Resource: "*"}, ["iam:Pass*"]]
    - [any_role_passed, {Action: "iam:PassRole", Resource: "arn:aws:iam::111122223333:role/x"}, []]
    - - unknown_operators
      - Condition:
          StringEquals: {"sts:ExternalId": x}
          "ForAnyValue:StringLikeIfExists": {"sts:ExternalId": x}
          DateLessThan: {"sts:ExternalId": x}
          "Null": {"sts:ExternalId": x}
          ArnNotLike: {"sts:ExternalId": x}
          NotIpAddress: {"sts:ExternalId": x}
      - []
    - [unknown_operators, {Condition: {StringsEqual: {"a:b": x}}}, [StringsEqual]]
    - [unknown_operators, {Condition: {NullIfExists: {"a:b": x}}}, [NullIfExists]]
    - [unknown_operators, {Condition: {"stringEquals ": {"a:b": x}}}, ["stringEquals "]]
    """),
)
def test_each_check_finds_what_it_is_for_and_nothing_else(check, fields, found):
    assert getattr(check_policies, check)({"Effect": "Allow", **fields}) == found


def test_beyond_reading_and_statements_at_any_depth_are_found():
    for action, name in (
        ("s3:PutBucketPolicy", "s3:putbucketpolicy"),
        ("iam:*", "iam:createuser"),
        ("s3:?utObject", "s3:putobject"),
    ):
        assert name in beyond_reading(allow("s3:GetObject", action))
    assert beyond_reading(allow("s3:GetObject", "s3:ListBucket", "ec2:Describe*")) == []
    deep = allow("s3:GetObject")
    policies = {"Role": {"Policies": [{"PolicyDocument": {"Statement": [deep]}}]}}
    assert list(statements_in(policies)) == [deep]
    chosen = {"Fn::If": ["HasRegions", deep, {"Ref": "AWS::NoValue"}]}
    assert list(statements_in({"PolicyDocument": {"Statement": [chosen]}})) == [deep]


@pytest.mark.parametrize(
    ("condition", "found"),
    yaml.safe_load("""
    - [{}, true]
    - [{StringEquals: {sts:ExternalId: x}}, true]  # it is no secret
    - [{StringEquals: {aws:PrincipalAccount: "111122223333"}}, false]
    - [{ArnLike: {AWS:SourceArn: "arn:aws:sns:*:111122223333:x"}}, false]
    - [{StringNotEquals: {aws:PrincipalAccount: "111122223333"}}, true]
    - [{StringEqualsIfExists: {aws:SourceAccount: "111122223333"}}, true]
    - - Fn::If: [Wanted, {StringEquals: {aws:SourceAccount: x}}, {Ref: AWS::NoValue}]
      - true
    """),
)
def test_what_is_public_is_found(condition, found):
    for principal in ("*", {"AWS": "*"}, {"AWS": ["arn:aws:iam::111122223333:root", "*"]}):
        statement = {
            "Effect": "Allow",
            "Principal": principal,
            "Action": "sts:AssumeRole",
            "Condition": condition,
        }
        assert bool(public(statement)) is found
        assert public(statement | {"Effect": "Deny"}) == []
    for principal in ({"AWS": "111122223333"}, {"Service": "ec2.amazonaws.com"}):
        assert public({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}) == []
    assert public(allow("s3:GetObject")) == []


def test_only_two_statements_are_public_and_only_that_is_forgiven():
    assert {it["Sid"] for _, it in shipped() if public(it)} == PUBLIC_ON_PURPOSE
    assert mistakes_in(allow("s3:GetObject", Sid="Another", Principal="*")) == ["public: *"]
    for sid in PUBLIC_ON_PURPOSE:
        assert mistakes_in(allow("*", Sid=sid, Principal="*")) == [
            "everything on everything: *",
            "any role may be passed: *",
        ]


def test_the_command_says_what_is_wrong_and_where(monkeypatch, capsys):
    assert check_policies.main() == 0
    assert capsys.readouterr().out == "The policies are sound.\n"
    monkeypatch.setattr(check_policies, "shipped", lambda: iter([("broker-Wide", allow("s3:*"))]))
    assert check_policies.main() == 1
    assert capsys.readouterr().err == "broker-Wide: everything on everything: s3:*\n"
