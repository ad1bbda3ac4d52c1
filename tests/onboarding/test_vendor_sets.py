"""A folder of the vendor's own permission sets, used as it is: from publishing it to calls with
what is issued.
"""

import json
import re
from collections.abc import Iterator

import pytest
from flask import Flask

from app.factory import create_app
from sandbox.vendor import VENDOR_ACCOUNT
from tests.conftest import as_the_pipeline, make_config
from tests.onboarding.conftest import opened, set_of
from tests.onboarding.test_set_versions import kit_of
from tests.support import hcl, terraform
from tests.support.cast import Api, World, path_of, root_client
from tests.support.sets import VENDOR

NAMES = ("posture", "invoices", "repair")


def app_with(config, folder, default=None):
    return create_app(
        make_config(
            config.database.database_url, permission_sets=folder, default_permission_set=default
        )
    )


def publish(app, *, fails=0):
    with as_the_pipeline():
        done = app.test_cli_runner().invoke(args=["templates", "publish"])
    assert done.exit_code == fails, done.output
    return done.output


@pytest.fixture(scope="module")
def vendor_app(aws, vendor, config) -> Iterator[Flask]:
    app = app_with(config, VENDOR, "posture")
    assert len(publish(app).splitlines()) == 9
    yield app
    app.extensions["deputy"].db.engine.dispose()


@pytest.fixture
def world(aws, vendor_app, admin) -> World:
    return World(aws, Api(vendor_app, admin.key))


def connected(world, tenant, role_arn, name):
    body = {"role_arn": role_arn, "permission_set": name}
    made = world.admin("POST", f"/v1/tenants/{tenant['id']}/connections", body, expect=201)
    assert made["status"] == "verified", made
    assert made["permission_set"] == name, made
    return made


def test_three_sets_are_three_roles_of_one_tenant_in_one_account(world, customer, iam):
    tenant = world.tenant()
    base = f"deputy-{tenant['id'].replace('-', '')[-8:]}"
    made = {}
    for name in NAMES:
        kit, ending = kit_of(world, tenant, name), "" if name == "posture" else f"-{name}"
        assert kit["role_name"] == kit["stack_name"] == base + ending
        whole = opened(kit["organization_launch_url"])
        assert whole["stackName"] == f"{base}{ending}-organization"
        given = {"ReportBucket": "acme-reports"} if name == "invoices" else {}
        made[name] = connected(
            world, tenant, customer.launch(kit["launch_stack_url"], **given), name
        )
        assert made[name]["verification"]["warnings"] == []
        checks = made[name]["verification"]["checks"]
        assert {check["outcome"] for check in checks} == {"passed"}
    assert len({one["role_arn"] for one in made.values()}) == 3
    for name in NAMES:  # a diagnosis asks IAM what each role may do
        found = world.admin("POST", path_of(made[name], "/diagnose"))["permissions"]
        assert found["set"] == name, found
        assert found["version"] == 1, found
        assert found["missing"] == [], found
        assert found["beyond"] == [], found
        if name == "invoices":
            assert {gap["cause"] for gap in found["unknown"]} == {"pattern"}
    policy = "arn:aws:iam::aws:policy/SecurityAudit"
    iam.detach_role_policy(RoleName=base, PolicyArn=policy)
    found = world.admin("POST", path_of(made["posture"], "/diagnose"))
    missing = {"action": None, "resource": None, "policy": policy, "cause": "not_granted"}
    assert found["permissions"]["missing"] == [missing]
    assert found["conclusion"] == f"The role lacks {policy}."


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("customer-role", ["ReportBucket"]),
        ("customer-org", ["OrganizationalUnitIds", "CallAs", "ReportBucket"]),
    ],
)
def test_what_the_customer_fills_in_comes_first_in_the_template_and_reaches_every_account(
    world, name, first
):
    text = world.admin.raw("GET", f"/v1/templates/{name}.yaml?permission_set=invoices").text
    own = text.partition("TemplateBody: |")[0]
    groups = re.findall(
        "^          - ([A-Za-z]+)$", own.partition("ParameterLabels:")[0], re.MULTILINE
    )
    declared = re.findall("^  ([A-Za-z]+):$", own.partition("\nParameters:\n")[2], re.MULTILINE)
    assert groups[: len(first)] == first
    assert declared[: len(first)] == first
    invoices = set_of(world, "invoices")
    assert all(f"# {statement['why']}" in text for statement in invoices["statements"])
    if name == "customer-org":
        own, _, stack_set = text.partition("  Accounts:\n")
        passed_on = "- ParameterKey: ReportBucket\n          ParameterValue: !Ref ReportBucket\n"
        assert passed_on in stack_set
        assert "ReportBucket: !Ref ReportBucket\n" in own, (
            "so that CloudFormation sends a message when it changes"
        )


def test_the_script_asks_for_the_parameter_and_takes_no_other_value_of_it_or_of_a_limit(
    world, iam, shell
):
    tenant = world.tenant()
    kit = kit_of(world, tenant, "invoices")
    bucket = "ReportBucket: The bucket with your cost reports (such as acme-cost-reports)"
    for message, given in (
        (bucket, {}),
        (bucket, {"ReportBucket": "*"}),
        (bucket, {"ReportBucket": 'good\nbad"'}),
        (bucket, {"ReportBucket": "$(reboot)"}),
        ("AccessUntil: ", {"AccessUntil": "tomorrow"}),
        ("RevokeSessionsBefore: ", {"RevokeSessionsBefore": '"'}),
        ("PermissionsBoundaryArn: ", {"PermissionsBoundaryArn": "x y"}),
    ):
        done = shell(kit["aws_cli"], **given)
        assert done.returncode == 1
        assert done.stdout == ""
        assert f"Set {message}" in done.stderr
    assert iam.list_roles()["Roles"] == []
    done = shell(kit["aws_cli"], ReportBucket="acme-reports")
    assert done.returncode == 0, done.stderr
    policy = iam.get_role_policy(RoleName=kit["role_name"], PolicyName="permissions")[
        "PolicyDocument"
    ]
    assert iam.list_attached_role_policies(RoleName=kit["role_name"])["AttachedPolicies"] == []
    text = json.dumps(set_of(world, "invoices")["policy"]).replace(
        "${ReportBucket}", "acme-reports"
    )
    assert policy == json.loads(text)
    connected(world, tenant, done.stdout.strip(), "invoices")


def test_terraform_has_a_variable_for_the_parameter_and_attaches_what_aws_keeps(world):
    tenant = world.tenant()
    names = ("invoices", "posture")
    written, of_posture = texts = [kit_of(world, tenant, name)["terraform"] for name in names]
    assert terraform.formatted(*texts) == texts
    found = hcl.parse(written)
    [variable] = [item for item in found["variable"] if "ReportBucket" in item]
    condition = variable["ReportBucket"]["validation"][0]["condition"]
    assert condition == r'${can(regex("^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])$", var.ReportBucket))}'
    assert '"arn:aws:s3:::${var.ReportBucket}/*"' in written
    assert not any("ReportBucket" in item for item in hcl.parse(of_posture)["variable"])
    assert re.search(
        r'for_each = toset\(\[\s+"arn:aws:iam::aws:policy/SecurityAudit",\s+\]\)', of_posture
    )


def test_a_folder_with_mistakes_publishes_nothing_and_names_them_all(aws, vendor, config, tmp_path):
    text = (
        (VENDOR / "posture.yaml")
        .read_text()
        .replace("backup:ListProtectedResources", "s3:DeleteBucket")
    )
    (tmp_path / "posture.yaml").write_text(text)
    app = app_with(config, tmp_path)
    before = objects(aws)
    assert "posture.yaml: statements[0].Action: s3:DeleteBucket writes" in publish(app, fails=1)
    assert objects(aws) == before
    app.extensions["deputy"].db.engine.dispose()


def objects(aws):
    s3 = root_client(aws, "s3", VENDOR_ACCOUNT)
    found = s3.list_objects_v2(Bucket=f"deputy-templates-{VENDOR_ACCOUNT}").get("Contents", [])
    return [item["Key"] for item in found]
