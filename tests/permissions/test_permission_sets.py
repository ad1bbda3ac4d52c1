"""Permission sets as they are loaded and chosen; what is in them is tests/permissions/test_policies.py."""

import json
from dataclasses import FrozenInstanceError

import pytest

from app.errors import ValidationFailedError
from app.permissions import permission_sets

GOOD = {
    "name": "inventory",
    "version": 3,
    "title": "Inventory",
    "description": "Lets us look.",
    "access": "read",
    "statements": [
        {
            "Sid": "Look",
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": ["arn:${AWS::Partition}:s3:::a", "arn:${AWS::Partition}:s3:::b"],
            "Condition": {"StringEquals": {"aws:ResourceAccount": "${aws:PrincipalAccount}"}},
        }
    ],
}


@pytest.fixture
def folder(tmp_path):
    """`folder(name={…})`: a folder of permission sets."""

    def write(**files):
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / f"{name.replace('_', '-')}.json").write_text(text)
        return tmp_path

    return write


def test_the_shipped_ones_load():
    found = permission_sets.load()
    assert set(found) == {"inventory", "bucket-sync"}
    assert all(chosen.name == name for name, chosen in found.items())
    assert permission_sets.DEFAULT in found


def test_it_loads_what_the_folder_has(folder):
    path = folder(inventory=GOOD, more=GOOD | {"name": "more", "access": "write"})
    (path / "README.md").write_text("not a permission set")
    found = permission_sets.load(path)
    assert list(found) == ["inventory", "more"]
    assert found["inventory"].version == 3
    assert found["more"].access == "write"


def test_a_file_holds_the_set_that_it_is_named_for(folder):
    with pytest.raises(ValueError, match=r"other\.json must hold the permission set other, not inventory"):
        permission_sets.load(folder(inventory=GOOD, other=GOOD))


def test_the_default_must_be_there(folder):
    with pytest.raises(ValueError, match=r"inventory\.json is missing"):
        permission_sets.load(folder(other=GOOD | {"name": "other"}))
    with pytest.raises(ValueError, match=r"inventory\.json is missing"):
        permission_sets.load(folder() / "nowhere")


def test_a_file_that_is_not_json_is_no_set(folder):
    with pytest.raises(ValueError, match="line 1"):
        permission_sets.load(folder(inventory="{"))


@pytest.mark.parametrize("change", [{"polices": []}, {"Statement": []}])
def test_a_field_that_is_not_known_is_refused(folder, change):
    with pytest.raises(TypeError, match=next(iter(change))):
        permission_sets.load(folder(inventory=GOOD | change))


def test_the_policy_is_of_the_partition(folder):
    chosen = permission_sets.load(folder(inventory=GOOD))["inventory"]
    for partition in ("aws", "aws-us-gov", "aws-cn"):
        policy = chosen.policy(partition)
        assert policy["Version"] == "2012-10-17"
        [statement] = policy["Statement"]
        assert statement["Resource"] == [f"arn:{partition}:s3:::a", f"arn:{partition}:s3:::b"]
        # IAM's own variables stay: they are IAM's to fill in, when a call is made.
        assert statement["Condition"] == GOOD["statements"][0]["Condition"]


@pytest.mark.parametrize("partition", ["aws", "aws-us-gov"])
def test_no_variable_of_cloudformations_is_left_in_a_shipped_policy(partition):
    for chosen in permission_sets.load().values():
        assert "${AWS::" not in json.dumps(chosen.policy(partition))


def test_a_policy_is_a_copy(folder):
    chosen = permission_sets.load(folder(inventory=GOOD))["inventory"]
    chosen.policy("aws")["Statement"][0]["Action"].append("*")
    assert chosen.policy("aws")["Statement"][0]["Action"] == ["s3:ListBucket"]
    with pytest.raises(FrozenInstanceError):
        chosen.version = 4


def test_choosing(folder):
    sets = permission_sets.load(folder(inventory=GOOD, more=GOOD | {"name": "more"}))
    assert permission_sets.choose(sets, None) is sets["inventory"]
    assert permission_sets.choose(sets, "more") is sets["more"]


@pytest.mark.parametrize("name", ["nothing", "Inventory", "inventory ", "../inventory", "inventory.json"])
def test_an_unknown_one_is_refused_with_a_list_of_those_there_are(folder, name):
    sets = permission_sets.load(folder(inventory=GOOD, more=GOOD | {"name": "more"}))
    with pytest.raises(ValidationFailedError) as caught:
        permission_sets.choose(sets, name)
    assert caught.value.errors == {"permission_set": ["Must be one of: inventory, more."]}
