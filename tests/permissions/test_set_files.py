"""What is a mistake in a permission set's file, and that every mistake is named with its file
and field at once.
"""

import ast
import fnmatch
import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cfnlint.decode import decode
from moto.iam.aws_managed_policies import aws_managed_policies_data

from app.permissions import action_data, action_tables, set_files
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


def said_of(tmp_path, text, name="tried.json"):
    """Each mistake: field and sentence."""
    (tmp_path / name).write_text(text if isinstance(text, str) else json.dumps(text))
    [file] = set_files.read(tmp_path)
    found = file.mistakes + action_data.mistakes_in(file)
    assert all(line.startswith(f"{name}: ") for line in found)
    return [line.removeprefix(f"{name}: ") for line in found]


def test_good_sets_have_no_mistakes(tmp_path):
    assert said_of(tmp_path, GOOD) == []
    for folder in (VENDOR, ROOT / "cloudformation" / "permission-sets"):
        for file in set_files.read(folder):
            assert file.mistakes + action_data.mistakes_in(file) == []


def test_five_mistakes_are_named_at_once():
    [file] = set_files.read(MISTAKEN)
    assert [
        line.split(": ")[:2] for line in sorted(file.mistakes + action_data.mistakes_in(file))
    ] == [
        ["everything.yaml", "statements[0].Action"],
        ["everything.yaml", "statements[0]"],
        ["everything.yaml", "statements[1].Resource"],
        ["everything.yaml", "statements[1].why"],
        ["everything.yaml", "statements[2].Action"],
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "other"}, "name: Must be tried, as the file is called, or left out."),
        ({"polices": []}, "polices: Unknown field."),
        ({"version": 0}, "version: Must be a whole number from 1."),
        ({"version": True}, "version: Must be a whole number from 1."),
        ({"title": " "}, "title: Must say in words"),
        ({"access": "full"}, "access: Must be read or write."),
        ({"statements": []}, "statements: Nothing is asked for"),
        ({"statements": [STATEMENT, "x"]}, "statements: Must be a list of mappings."),
        ({"managed_policies": ["SecurityAudit"]}, "managed_policies: Must be a list of mappings."),
    ],
)
def test_a_sets_own_fields_are_checked(tmp_path, change, said):
    assert any(line.startswith(said) for line in said_of(tmp_path, GOOD | change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Sid": "with space"}, "statements[0].Sid: Must be letters and digits"),
        ({"Effect": "allow"}, "statements[0].Effect: Must be Allow or Deny."),
        ({"Action": []}, "statements[0].Action: Must be text"),
        ({"Action": None, "NotAction": "iam:*"}, "statements[0].NotAction: Unknown field."),
        ({"Resource": {"Fn::Sub": "*"}}, "statements[0].Resource: Must be text"),
        ({"Principal": "*"}, "statements[0].Principal: Unknown field."),
        ({"Condition": []}, "statements[0].Condition: Must be a mapping"),
        (
            {"Condition": {"StringEquals": {"aws:ResourceTag/${Tag}": "x"}}},
            "statements[0].Condition: Must be a mapping",
        ),
        (
            {"Condition": {"${Operator}": {"aws:ResourceTag/team": "x"}}},
            "statements[0].Condition: Must be a mapping",
        ),
        (
            {"Condition": {"Bool": {"aws:x": ["${No}"]}}},
            "statements[0].Condition.Bool.aws:x[0]: ${No} is not a parameter",
        ),
        ({"why": ""}, "statements[0].why: Must say in words"),
        ({"why": "a\x07b"}, "statements[0].why: Must say in words"),
        ({"Action": "*", "Resource": "*"}, "statements[0]: Allows * on *."),
        (
            {"Action": ["s3:GetObject", "ec2:*"], "Resource": ["arn:aws:s3:::a", "**"]},
            "statements[0]: Allows ec2:* on **. Name the actions, or the resources.",
        ),
        ({"Action": "*:?*", "Resource": "arn:*"}, "statements[0]: Allows *:?* on arn:*. Name"),
        (
            {"Action": "s3:?*", "Resource": "arn:${AWS::Partition}:s3:::*"},
            "statements[0]: Allows s3:?* on arn:$",
        ),
        (
            {"Resource": None, "NotResource": "arn:aws:s3:::a"},
            "statements[0].NotResource: Unknown field.",
        ),
        ({"Action": "s3:ListBuckets"}, "statements[0].Action: AWS has no action s3:ListBuckets"),
        (
            {"Action": "S3:putobject"},
            "statements[0].Action: S3:putobject writes, and this set's access is read.",
        ),
        ({"Action": "s3:*Object"}, "statements[0].Action: s3:*Object (s3:deleteobject and "),
        (
            {"Resource": "arn:aws:s3:::${Bucket}"},
            "statements[0].Resource: ${Bucket} is not a parameter of this set.",
        ),
        (
            {"Resource": ["a", "${AWS::Region}"]},
            "statements[0].Resource[1]: ${AWS::Region} is not a parameter",
        ),
    ],
)
def test_statements_are_checked(tmp_path, change, said):
    found = said_of(tmp_path, GOOD | {"statements": [STATEMENT | change]})
    assert any(line.startswith(said) for line in found), found


@pytest.mark.parametrize(
    "change",
    [
        {"Effect": "Deny", "Action": "*", "Resource": "*"},
        {"Action": ["s3:Get*", "s3:List*"], "Resource": "*"},
        {"Resource": "arn:aws:s3:::${aws:PrincipalTag/team}-${*}"},
        {"why": "It says ${Bucket} in words alone."},
    ],
)
def test_what_is_no_mistake_is_none(tmp_path, change):
    assert said_of(tmp_path, GOOD | {"statements": [STATEMENT | change]}) == []


ANY_ROLE = "arn:${AWS::Partition}:iam::*:role/*"
TAGGED = {"StringEquals": {"aws:ResourceTag/vendor": "us"}}


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"Action": "s3:PutBucketPolicy", "Resource": "*"}, "s3:PutBucketPolicy"),
        ({"Action": "s3:Put*", "Resource": "arn:aws:s3:::*"}, "s3:Put* (s3:put"),
        ({"Action": "iam:*", "Resource": ANY_ROLE}, "iam:* (iam:"),
        ({"Action": "*", "Resource": ANY_ROLE}, "* ("),
        ({"Action": "iam:PassRole", "Resource": ANY_ROLE}, "iam:PassRole"),
        (
            {"Action": "iam:PassRole", "Resource": "arn:aws:iam::${aws:PrincipalAccount}:role/*"},
            "iam:PassRole",
        ),
        ({"Action": "iam:PassRole", "Resource": ANY_ROLE, "Condition": TAGGED}, "iam:PassRole"),
        (
            {
                "Action": "iam:PassRole",
                "Resource": "*",
                "Condition": {"StringEquals": {"iam:PassedToService": "x"}},
            },
            "iam:PassRole",
        ),
        ({"Action": "sts:AssumeRole", "Resource": "*"}, "sts:AssumeRole"),
        (
            {
                "Action": "cloudformation:UpdateStack",
                "Resource": "arn:aws:cloudformation:*:*:stack/*/*",
            },
            "cloudform",
        ),
        (
            {
                "Action": "ssm:SendCommand",
                "Resource": ["arn:aws:ec2:*:*:instance/i-*", "arn:aws:s3:::a"],
            },
            "ssm:Send",
        ),
        ({"Action": "kms:CreateGrant", "Resource": "arn:aws:kms:*:*:key/*"}, "kms:CreateGrant"),
        (
            {"Action": "deadline:AssumeQueueRole*", "Resource": "*"},
            "deadline:AssumeQueueRole* (deadline:assume",
        ),
    ],
)
def test_an_administrator_by_another_name_is_refused_unless_the_file_says_so(
    tmp_path, change, shown
):
    writing = GOOD | {"access": "write", "statements": [STATEMENT | {"Condition": None} | change]}
    [said] = said_of(tmp_path, writing)
    assert said.startswith(f"statements[0].Action: {shown}")
    assert said.endswith("or say administrator: true, which the page then tells the customer.")
    assert said_of(tmp_path, writing | {"administrator": True}) == []


@pytest.mark.parametrize(
    "change",
    [
        {"Action": "s3:PutBucketPolicy", "Resource": "arn:aws:s3:::acme-*"},
        {"Action": "s3:PutObjectAcl", "Resource": "arn:aws:s3:::acme/*"},
        {"Action": "iam:PassRole", "Resource": "arn:aws:iam::*:role/acme-*"},
        {"Action": "iam:PassRole", "Resource": "*", "Effect": "Deny"},
        {"Action": "sts:AssumeRole", "Resource": "arn:aws:iam::123456789012:role/Reader"},
        {
            "Action": "ec2:ModifySnapshotAttribute",
            "Resource": "arn:aws:ec2:*::snapshot/*",
            "Condition": TAGGED,
        },
        {
            "Action": ["s3:PutObject", "ec2:StartInstances", "lambda:InvokeFunction"],
            "Resource": "*",
        },
    ],
)
def test_named_resources_and_harmless_actions_need_no_administrator(tmp_path, change):
    statement = STATEMENT | {"Condition": None} | change
    assert said_of(tmp_path, GOOD | {"access": "write", "statements": [statement]}) == []


OWN_ROLES = "arn:${AWS::Partition}:iam::*:role/acme-*"
ATTACH = "iam:AttachRolePolicy"
BOUNDARY = "arn:${AWS::Partition}:iam::${aws:PrincipalAccount}:policy/acme-boundary"
AUDIT = "arn:${AWS::Partition}:iam::aws:policy/SecurityAudit"
GRANTS = ("AttachUserPolicy", "PutGroupPolicy", "CreatePolicyVersion", "UpdateAssumeRolePolicy")


def of_writing(tmp_path, *changes, **fields):
    """The mistakes of a set that writes, with a statement for each change."""
    statements = [
        STATEMENT | {"Sid": f"S{n}", "Condition": None} | change for n, change in enumerate(changes)
    ]
    return said_of(tmp_path, GOOD | {"access": "write", "statements": statements} | fields)


@pytest.mark.parametrize(
    ("action", "resource", "condition"),
    [
        *((f"iam:{name}", "arn:aws:iam::*:*/acme-*", None) for name in GRANTS),
        (["iam:CreateRole", "iam:AttachRolePolicy", "sts:AssumeRole"], OWN_ROLES, None),
        ("iam:*RolePolicy", "arn:aws:iam::123456789012:role/Reader", None),
        ("*", OWN_ROLES, None),
        (ATTACH, "arn:${aws:PrincipalTag/p}:iam::*:role/acme-*", None),
        (ATTACH, "*", TAGGED),
        (ATTACH, OWN_ROLES, {"StringLike": {"iam:PermissionsBoundary": BOUNDARY}}),
        (ATTACH, OWN_ROLES, {"ArnEquals": {"iam:PermissionsBoundary": "arn:aws:iam::*:policy/*"}}),
        (
            ATTACH,
            OWN_ROLES,
            {"StringEquals": {"iam:PermissionsBoundary": "${aws:PrincipalTag/boundary}"}},
        ),
        (
            ATTACH,
            OWN_ROLES,
            {
                "ArnEquals": {
                    "iam:PermissionsBoundary": "arn:aws:iam::aws:policy/AdministratorAccess"
                }
            },
        ),
        (
            ATTACH,
            OWN_ROLES,
            {"ArnEquals": {"iam:PolicyARN": [AUDIT, "arn:aws:iam::aws:policy/IAMFullAccess"]}},
        ),
        (ATTACH, OWN_ROLES, {"ArnEquals": {"iam:PolicyARN": BOUNDARY}}),
        ("iam:PutRolePolicy", OWN_ROLES, {"ArnEquals": {"iam:PolicyARN": AUDIT}}),
        (
            "iam:DeleteRolePermissionsBoundary",
            OWN_ROLES,
            {"ArnEquals": {"iam:PermissionsBoundary": BOUNDARY}},
        ),
    ],
)
def test_giving_policies_is_an_administrator_whatever_the_roles_name(
    tmp_path, action, resource, condition
):
    change = {"Action": action, "Resource": resource, "Condition": condition}
    [said] = of_writing(tmp_path, change)
    assert (
        "up to everything, and names and tags do not limit that. Compare iam:PermissionsBoundary"
        in said
    )
    assert of_writing(tmp_path, change, administrator=True) == []


@pytest.mark.parametrize(
    ("action", "resource", "condition"),
    [
        (
            [ATTACH, "iam:PutRolePolicy"],
            OWN_ROLES,
            {"StringEquals": {"iam:permissionsboundary": BOUNDARY}},
        ),
        (ATTACH, OWN_ROLES, {"ArnEquals": {"iam:PolicyARN": [AUDIT]}}),
        (
            "iam:AttachGroupPolicy",
            "arn:aws:iam::*:group/acme-*",
            {"StringEquals": {"iam:PolicyARN": AUDIT}},
        ),
        (["iam:CreateRole", "sts:AssumeRole"], OWN_ROLES, None),
        ("*", "arn:aws:s3:::acme-*", None),
    ],
)
def test_giving_limited_policies_needs_no_administrator(tmp_path, action, resource, condition):
    assert (
        of_writing(tmp_path, {"Action": action, "Resource": resource, "Condition": condition}) == []
    )


@pytest.mark.parametrize(
    "value",
    [
        "${aws:ResourceTag/vendor}",
        "${ec2:ResourceTag/vendor}",
        ["us", "${aws:PrincipalTag/x}"],
        "*",
        [],
        True,
    ],
)
def test_a_tag_without_a_fixed_value_narrows_nothing(tmp_path, value):
    condition = {"StringEquals": {"aws:ResourceTag/vendor": value}}
    [said] = of_writing(
        tmp_path, {"Action": "ec2:ModifySnapshotAttribute", "Resource": "*", "Condition": condition}
    )
    assert said.startswith("statements[0].Action: ec2:ModifySnapshotAttribute changes permissions")


def test_a_parameter_that_is_a_whole_arn_names_a_resource(tmp_path):
    statement = STATEMENT | {"Condition": None, "Action": "iam:PassRole", "Resource": "${TaskRole}"}
    parameter = {
        "name": "TaskRole",
        "description": "The tasks' role.",
        "example": "arn:aws:iam::123456789012:role/a",
    }
    pattern = {"pattern": "arn:aws:iam::[0-9]{12}:role/[a-z]{1,60}"}
    named = GOOD | {
        "access": "write",
        "statements": [statement],
        "parameters": [parameter | pattern],
    }
    assert said_of(tmp_path, named) == []
    [said] = said_of(tmp_path, named | {"statements": [statement | {"Resource": "${TaskRole}*"}]})
    assert said.startswith("statements[0].Action: iam:PassRole")


HTTPS = {"Bool": {"aws:SecureTransport": "true"}}


@pytest.mark.parametrize(
    ("tags", "acts", "condition"),
    [
        ("ec2:CreateTags", "ec2:ModifySnapshotAttribute", None),
        ("ec2:CreateTags", "ssm:SendCommand", None),
        ("ec2:CreateTags", "ec2-instance-connect:SendSSHPublicKey", None),
        ("ecs:TagResource", "ssm:StartSession", None),
        ("iam:TagRole", "sts:AssumeRole", HTTPS),
        (
            "ec2:CreateTags",
            "ssm:StartSession",
            {"StringEquals": {"aws:ResourceTag/vendor": "${aws:ResourceTag/vendor}"}},
        ),
    ],
)
def test_tags_narrow_nothing_for_a_role_that_may_set_them(tmp_path, tags, acts, condition):
    acting = {"Action": acts, "Resource": "*", "Condition": TAGGED}
    tagging = {
        "Action": tags,
        "Resource": f"arn:aws:{tags.partition(':')[0]}:*:*:*/*",
        "Condition": condition,
    }
    [said] = of_writing(tmp_path, acting, tagging)
    assert said.startswith(f"statements[0].Action: {acts} changes permissions")
    assert of_writing(tmp_path, acting, tagging | {"Condition": TAGGED}) == []


def test_an_administrator_says_so_in_one_way_and_is_no_reader(tmp_path):
    assert said_of(tmp_path, GOOD | {"access": "write", "administrator": "yes"}) == [
        "administrator: Must be true, or left out."
    ]
    [said] = said_of(tmp_path, GOOD | {"administrator": True})
    assert said.startswith("administrator: An administrator also writes.")


@pytest.mark.parametrize(
    ("action", "shown"),
    [
        ("secretsmanager:GetSecretValue", "secretsmanager:GetSecretValue"),
        ("secretsmanager:Get*", "secretsmanager:Get* (secretsmanager:getsecretvalue)"),
        ("ssm:GetParameter*", "ssm:GetParameter* (ssm:getparameter and 3 more)"),
        ("kms:Decrypt", "kms:Decrypt"),
        ("sts:AssumeRole", "sts:AssumeRole"),
        ("iam:CreateAccessKey", "iam:CreateAccessKey"),
    ],
)
def test_a_set_that_reads_gets_no_secrets_and_makes_no_credentials(tmp_path, action, shown):
    # However narrow its resources are
    reading = GOOD | {"statements": [STATEMENT | {"Action": action}]}
    [said] = said_of(tmp_path, reading)
    assert said.startswith(
        f"statements[0].Action: {shown} reads secrets or makes credentials, and this set's"
        " access is"
    )
    assert said.endswith("Take it out, or say access: write.")
    assert said_of(tmp_path, reading | {"access": "write"}) == []
    assert (
        said_of(tmp_path, GOOD | {"statements": [STATEMENT | {"Action": action, "Effect": "Deny"}]})
        == []
    )


def test_the_tables_name_actions_and_policies_that_aws_has():
    """The policies are compared with moto's copy of AWS's; where they differ, AWS has changed
    one.
    """
    of_actions = action_tables.ACT_AS_ANOTHER_ROLE | action_tables.SECRETS_AND_CREDENTIALS
    assert of_actions - set(action_data.ACCESS_LEVELS) == set()
    privileges = {
        f"iam:{name}".lower(): one
        for name, one in action_data._DEFINITIONS["iam"]["privileges"].items()
    }
    for action, keys in action_tables.GRANT_POLICIES.items():
        documented = {
            key.lower()
            for kind in privileges[action]["resource_types"].values()
            for key in kind["condition_keys"]
        }
        assert set(keys) == (
            set() if action.startswith("iam:delete") else documented & set(action_data._LIMITS)
        )
    names = (
        "PassRole AttachRolePolicy PutRolePolicy CreatePolicyVersion UpdateAssumeRolePolicy"
        " CreateAccessKey"
    )
    escalations = {f"iam:{name.lower()}" for name in names.split()} | {"sts:assumerole"}
    administrators, with_secrets = set(), set()
    looked_for = escalations | action_tables.SECRETS_AND_CREDENTIALS
    services = {name.partition(":")[0] for name in looked_for}

    @functools.cache
    def named(pattern: str) -> list[str]:
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
                "*" in set_files.texts(statement.get("Resource")) and "Condition" not in statement
            )
            if statement["Effect"] == "Deny" or not everywhere:
                continue
            actions = {
                one for action in set_files.texts(statement.get("Action")) for one in named(action)
            }
            if "NotAction" in statement or actions & escalations:
                administrators.add(name.lower())
            if (
                set_files._MANAGED_READING.fullmatch(name)
                and actions & action_tables.SECRETS_AND_CREDENTIALS
            ):
                with_secrets.add(name.lower())
    assert administrators == action_tables.ADMINISTRATOR_POLICIES | set_files.ADMINISTRATORS
    assert with_secrets == action_tables.POLICIES_WITH_SECRETS


def test_two_statements_have_two_names(tmp_path):
    found = said_of(tmp_path, GOOD | {"statements": [STATEMENT, STATEMENT]})
    assert found == ["statements[1].Sid: Look is there twice."]


def test_more_than_a_role_takes_is_refused_with_what_to_do(tmp_path):
    many = [f"arn:aws:s3:::bucket-{n}" for n in range(500)]
    [found] = said_of(tmp_path, GOOD | {"statements": [STATEMENT | {"Resource": many}]})
    assert re.match(
        r"statements: Have 1\d,\d{3} characters as AWS counts them. .*10,240, of which 9,000 are"
        r" left",
        found,
    )
    assert found.endswith("or split the set in two.")
    policies = [{"name": f"Amazon{n}ReadOnlyAccess", "why": "x"} for n in range(11)]
    [found] = said_of(tmp_path, GOOD | {"managed_policies": policies})
    assert (
        found
        == "managed_policies: Are 11. AWS attaches 10 to a role. Leave some out, or split the set"
        " in two."
    )


@pytest.mark.parametrize(
    "pattern", ["[a-z0-9.-]{3,63}", "(ab|x[a-z]{1,30}){1,2}x", "[a-z]{1,4000000000}"]
)
def test_a_parameter_counts_as_the_longest_value_that_it_takes(tmp_path, pattern):
    """As AWS counts the policy of a role whose customer filled that in."""
    longest = {
        "[a-z0-9.-]{3,63}": 63,
        "(ab|x[a-z]{1,30}){1,2}x": 63,
        "[a-z]{1,4000000000}": 4_000_000_000,
    }[pattern]
    resources = [f"arn:${{AWS::Partition}}:s3:::{n}-${{Bucket}}/${{Bucket}}" for n in range(60)]
    parameters = [BUCKET | {"pattern": pattern, "example": "abx"}]
    wide = {"statements": [STATEMENT | {"Resource": resources}], "parameters": parameters}
    of_it = [{key: value for key, value in wide["statements"][0].items() if key != "why"}]
    written = re.sub(r"\s", "", json.dumps(of_it))
    assert len(written) < 9_000, "as it is written"
    size = len(written.replace("${Bucket}", "")) + 120 * longest
    [found] = said_of(tmp_path, GOOD | wide)
    assert found.startswith(
        f"statements: Have {size:,} characters as AWS counts them, with the longest values that"
    )
    narrow = {"parameters": [BUCKET | {"pattern": "[a-z]{3,9}", "example": "abx"}]}
    assert said_of(tmp_path, GOOD | wide | narrow) == []


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
    assert sum(map(len, documents)) + wrapped <= set_files._INLINE_OF_THE_KIT


@pytest.mark.parametrize(
    ("access", "name", "said"),
    [
        ("read", "SecurityAudit", None),
        ("read", "job-function/ViewOnlyAccess", None),
        ("read", "AmazonS3ReadOnlyAccess", None),
        ("read", "AmazonS3FullAccess", "managed_policies[0].name: AmazonS3FullAccess may write"),
        ("write", "AmazonS3FullAccess", None),
        (
            "write",
            "AdministratorAccess",
            "managed_policies[0].name: AdministratorAccess lets the role do everything",
        ),
        (
            "write",
            "service-role/AmazonElasticMapReduceRole",
            "managed_policies[0].name: service-role/AmazonElastic",
        ),
        (
            "read",
            "ReadOnlyAccess",
            "managed_policies[0].name: ReadOnlyAccess reads secrets or makes credentials",
        ),
        ("write", "ReadOnlyAccess", None),
        ("write", "PowerUserAccess", "managed_policies[0].name: PowerUserAccess lets"),
        ("read", "IAMFullAccess", "managed_policies[0].name: IAMFullAccess lets"),
        (
            "write",
            "arn:aws:iam::aws:policy/SecurityAudit",
            "managed_policies[0].name: Must be the name of a policy",
        ),
    ],
)
def test_policies_of_awss_are_checked(tmp_path, access, name, said):
    found = said_of(
        tmp_path, GOOD | {"access": access, "managed_policies": [{"name": name, "why": "Words."}]}
    )
    assert len(found) == (said is not None), found
    assert all(line.startswith(said) for line in found)
    if access == "write":
        policy = {"managed_policies": [{"name": name, "why": "Words."}]}
        as_administrator = said_of(
            tmp_path, GOOD | {"access": access, "administrator": True} | policy
        )
        assert as_administrator == [line for line in found if "Must be the name" in line]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"name": "PATH"}, "parameters[0].name"),
        ({"name": "RoleName"}, "parameters[0].name"),
        ({"name": "HasAccessUntil"}, "parameters[0].name"),
        ({"pattern": ".*"}, "parameters[0].pattern"),
        ({"pattern": "[ -~]+"}, "parameters[0].pattern"),
        ({"pattern": "[A-z]+"}, "parameters[0].pattern"),
        ({"pattern": r"\S+"}, "parameters[0].pattern"),
        ({"pattern": "(?i)a+"}, "parameters[0].pattern"),
        ({"pattern": "[a-z]*", "example": "acme"}, "parameters[0].pattern"),
        ({"pattern": 5}, "parameters[0].pattern"),
        ({"pattern": r"(acme|globex)-[a-z]{1,9}\.[0-9]{1,3}", "example": "acme-x.1"}, None),
        (
            {"pattern": r"(acme|globex)-[a-z]{1,9}\.[0-9]+", "example": "acme-x.1"},
            "parameters[0].pattern",
        ),
        ({"pattern": "([a-z]{3,}-)?x", "example": "acme-x"}, "parameters[0].pattern"),
        ({"example": "UPPER"}, "parameters[0].example"),
        ({"description": None}, "parameters[0].description"),
        ({"default": "x"}, "parameters[0].default"),
    ],
)
def test_parameters_are_checked(tmp_path, change, said):
    name = change.get("name", "Bucket")
    statements = [STATEMENT | {"Resource": f"arn:aws:s3:::${{{name}}}"}]
    found = said_of(tmp_path, GOOD | {"statements": statements, "parameters": [BUCKET | change]})
    assert {line.partition(":")[0] for line in found} == ({said} - {None}), found


def test_a_parameter_that_nothing_uses_is_a_question_for_nothing(tmp_path):
    assert said_of(tmp_path, GOOD | {"parameters": [BUCKET]}) == [
        "parameters: Bucket is used by no statement. Use it as ${Bucket}, or leave it out."
    ]
    twice = said_of(tmp_path, GOOD | {"statements": USES_BUCKET, "parameters": [BUCKET, BUCKET]})
    assert twice == ["parameters[1].name: Bucket is there twice."]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tried.json", "{"),
        ("tried.json", '{"version": 1, "version": 2}'),
        ("tried.yaml", "a: [b"),
        ("tried.yaml", "since: 2026-01-31"),
        ("tried.yaml", "!!python/object:os.system {}"),
        ("tried.json", json.dumps({"title": "a\x00"})),
        ("tried.yaml", ""),
    ],
)
def test_what_can_not_be_read_is_one_mistake(tmp_path, name, text):
    assert len(said_of(tmp_path, text, name)) == 1


@pytest.mark.parametrize("text", ["version: 1\nversion: 2", "statements:\n- Sid: A\n  Sid: B"])
def test_a_key_that_comes_twice_is_one_mistake(tmp_path, text):
    [found] = said_of(tmp_path, text, "twice.yaml")
    assert "comes twice in one mapping" in found


@pytest.mark.parametrize("name", ["Tried.json", "a_b.json", "-a.json", "a" * 51 + ".json"])
def test_a_files_name_is_one_for_roles(tmp_path, name):
    [found] = said_of(tmp_path, GOOD, name)
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
        could_be - set_files.RESERVED - {name for name in could_be if name.startswith("Has")}
        == set()
    )


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    plain = [
        name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    ]
    return {f"{node.module}.{name.name}" for node in froms for name in node.names} | set(plain)


def test_awss_list_of_actions_is_loaded_by_the_command_alone():
    sources = {
        path.relative_to(ROOT).as_posix(): imports(path) for path in (ROOT / "app").rglob("*.py")
    }
    users = [
        name for name, found in sources.items() if any("policy_sentry" in one for one in found)
    ]
    assert users == ["app/permissions/action_data.py"]
    assert [name for name, found in sources.items() if "app.permissions.action_data" in found] == [
        "app/cli/templates.py"
    ]
    code = "import sys, app.factory; sys.exit('policy_sentry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
