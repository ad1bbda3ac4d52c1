"""Permission sets as they are loaded and chosen; what is a mistake in one is test_set_files.py."""

import json

import pytest

from app.config import ConfigError
from app.errors import ValidationFailedError
from app.permissions import permission_sets
from tests.support.sets import GOOD, VENDOR


@pytest.fixture
def folder(tmp_path):
    """`folder(name={…})`: a folder of permission sets."""

    def write(**files):
        for name, content in files.items():
            (tmp_path / f"{name.replace('_', '-')}.json").write_text(json.dumps(content))
        return tmp_path

    return write


def test_the_shipped_ones_load():
    found = permission_sets.load()
    assert set(found) == {"inventory", "bucket-sync"}
    assert all(chosen.name == name for name, chosen in found.items())
    assert found.choose(None) is found["inventory"]


def test_every_permission_set_of_the_folder_is_loaded(folder):
    path = folder(inventory=GOOD, more=GOOD | {"name": "more", "access": "write"})
    (path / "README.md").write_text("not a permission set")
    found = permission_sets.load(path, "more")
    assert list(found) == ["inventory", "more"]
    assert found["inventory"].version == 3
    assert found["more"].access == "write"
    assert found.choose(None) is found["more"]


def test_yaml_and_json_are_the_same_set(folder):
    """YAML as people write it: words on several lines, one action without a list."""
    path = folder(as_json=GOOD)
    (path / "as-yaml.yaml").write_text(
        "version: 3\ntitle: Inventory\ndescription: >\n  Lets us\n  look.\naccess:"
        f" read\nstatements:\n- {json.dumps(GOOD['statements'][0])}\n"
    )
    as_json, as_yaml = permission_sets.load(path, "as-json").values()
    assert as_yaml.description == as_json.description
    assert as_yaml.statements == as_json.statements
    assert as_yaml.policy("aws") == as_json.policy("aws")


def test_a_single_set_is_the_default_and_of_several_one_is_named(folder):
    path = folder(posture=GOOD)
    assert permission_sets.load(path).choose(None).name == "posture"
    folder(repair=GOOD)
    for wrong in (None, "inventory"):
        with pytest.raises(
            ConfigError, match=r"DEPUTY_DEFAULT_PERMISSION_SET: must name one of posture, repair"
        ):
            permission_sets.load(path, wrong)
    assert permission_sets.load(path, "repair").choose(None).name == "repair"
    assert permission_sets.load(None, "bucket-sync").choose(None).name == "bucket-sync"


def test_a_folder_without_a_set_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no permission set"):
        permission_sets.load(tmp_path)


def test_every_mistake_stops_the_start(folder):
    path = folder(one=GOOD | {"version": 0}, two=GOOD | {"polices": []})
    with pytest.raises(ConfigError) as caught:
        permission_sets.load(path, "one")
    assert [line.split(" ")[:2] for line in str(caught.value).splitlines()] == [
        ["one.json:", "version:"],
        ["two.json:", "polices:"],
    ]


def test_two_files_of_one_name_are_refused(folder):
    path = folder(one=GOOD)
    (path / "one.yaml").write_text(json.dumps(GOOD))
    with pytest.raises(ConfigError, match=r"one: there are two files of this name"):
        permission_sets.load(path)


def test_a_name_that_no_role_could_have_is_refused(folder):
    path = folder(posture=GOOD, **{"a-set-with-a-long-name": GOOD})
    assert permission_sets.load(path, "posture", "x" * 33)
    with pytest.raises(ConfigError, match="would be 1 characters longer than the 64"):
        permission_sets.load(path, "posture", "x" * 34)
    with pytest.raises(ConfigError, match=r"^a-set-with-a-long-name: .* 1 characters longer"):
        # Once another set was the default, as well
        permission_sets.load(path, "a-set-with-a-long-name", "x" * 34)


def test_the_policy_is_of_the_partition(folder):
    [chosen] = permission_sets.load(folder(inventory=GOOD)).values()
    chosen.policy("aws")["Statement"][0]["Action"].append("*")  # a copy's
    for partition in ("aws", "aws-us-gov", "aws-cn"):
        policy = chosen.policy(partition)
        assert policy["Version"] == "2012-10-17"
        [statement] = policy["Statement"]
        assert "why" not in statement
        assert statement["Action"] == ["s3:ListBucket"]
        assert statement["Resource"] == [f"arn:{partition}:s3:::a", f"arn:{partition}:s3:::b"]
        # IAM's own variables stay: they are IAM's to fill in, when a call is made.
        assert statement["Condition"] == GOOD["statements"][0]["Condition"]


def test_managed_policies_are_of_the_partition_and_a_set_may_have_them_alone(folder):
    alone = {key: value for key, value in GOOD.items() if key != "statements"}
    path = folder(
        audit=alone
        | {
            "managed_policies": [{"name": "SecurityAudit", "why": "Reads settings."}],
            "parameters": None,
        }
    )
    [chosen] = permission_sets.load(path).values()
    assert chosen.managed_policy_arns("aws-cn") == ["arn:aws-cn:iam::aws:policy/SecurityAudit"]
    [statement] = chosen.policy("aws")["Statement"]
    assert statement["Action"] == "sts:GetCallerIdentity", (
        "IAM refuses a policy without a statement"
    )


@pytest.mark.parametrize("name", ["nothing", "Posture", "posture ", "../posture", "posture.yaml"])
def test_an_unknown_one_is_refused_with_a_list_of_those_there_are(name):
    sets = permission_sets.load(VENDOR, "posture")
    assert sets.choose("repair").name == "repair"
    with pytest.raises(ValidationFailedError) as caught:
        sets.choose(name)
    assert caught.value.errors == {"permission_set": ["Must be one of: invoices, posture, repair."]}
