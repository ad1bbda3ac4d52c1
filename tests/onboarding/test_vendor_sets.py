"""A folder of the vendor's own permission sets, used as it is: from publishing it to calls with
what is issued.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from urllib.parse import parse_qsl

import boto3
import pytest
from botocore.exceptions import ClientError
from flask import Flask

from app.access.callers import ALL_SCOPES
from app.config import ConfigError
from app.factory import create_app
from sandbox.vendor import VENDOR_ACCOUNT
from tests.attacks.evidence import on_sqlite
from tests.conftest import OPERATOR, as_the_pipeline, make_config
from tests.support import hcl
from tests.support.cast import Api, Customer, World, path_of, root_client
from tests.support.sets import MISTAKEN, VENDOR
from tests.support.shells import run_as

pytestmark = on_sqlite  # nothing here depends on the database

NAMES = ("posture", "invoices", "repair")


def app_with(config, folder: Path, default: str | None = None) -> Flask:
    return create_app(
        make_config(config.database_url, permission_sets=folder, default_permission_set=default)
    )


def publish(app: Flask, *, fails: int = 0) -> str:
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
def world(aws, vendor_app) -> World:
    _, key = vendor_app.extensions["deputy"].api_keys.create_key(
        OPERATOR, name="x", scopes=ALL_SCOPES, tenant_id=None, expires_at=None
    )
    return World(aws, Api(vendor_app, key))


def kit_of(world: World, tenant, name: str):
    return world.admin("GET", f"/v1/tenants/{tenant['id']}/onboarding?permission_set={name}")


def connected(world: World, tenant, role_arn: str, name: str):
    body = {"role_arn": role_arn, "permission_set": name}
    made = world.admin("POST", f"/v1/tenants/{tenant['id']}/connections", body, expect=201)
    assert (made["status"], made["permission_set"]) == ("verified", name), made
    return made


def s3_with(world: World, connection) -> boto3.client:
    issued = world.admin("POST", path_of(connection, "/credentials"), {})
    session = boto3.session.Session(
        issued["AccessKeyId"], issued["SecretAccessKey"], issued["SessionToken"]
    )
    return session.client("s3", endpoint_url=world.aws.url, region_name="us-east-1")


def test_three_sets_are_three_roles_of_one_tenant_in_one_account(world: World, customer: Customer):
    tenant = world.tenant()
    reports, other = f"{customer.account}-reports", f"{customer.account}-other"
    with closing(root_client(world.aws, "s3", customer.account)) as s3:
        for bucket in (reports, other):
            s3.create_bucket(Bucket=bucket)
            s3.put_object(Bucket=bucket, Key="a", Body=b"content")
    base = f"deputy-{tenant['id'].replace('-', '')[-8:]}"
    made = {}
    for name in NAMES:
        kit, ending = kit_of(world, tenant, name), "" if name == "posture" else f"-{name}"
        assert (kit["role_name"], kit["stack_name"]) == (base + ending, base + ending)
        assert dict(parse_qsl(kit["organization_launch_url"].partition("?")[2].partition("?")[2]))[
            "stackName"
        ] == (f"{base}{ending}-organization")
        given = {"ReportBucket": reports} if name == "invoices" else {}
        made[name] = connected(
            world, tenant, customer.launch(kit["launch_stack_url"], **given), name
        )
    assert len({one["role_arn"] for one in made.values()}) == 3
    for name in NAMES:
        found = world.admin("POST", path_of(made[name], "/diagnose"))["permissions"]
        assert (found["set"], found["version"], found["missing"], found["beyond"]) == (
            name,
            1,
            [],
            [],
        ), found
    with closing(s3_with(world, made["posture"])) as s3:
        assert s3.get_bucket_acl(Bucket=reports), "SecurityAudit"
        assert refused(s3.get_object, Bucket=reports, Key="a")
        assert refused(
            s3.put_public_access_block, Bucket=reports, PublicAccessBlockConfiguration={}
        )
    with closing(s3_with(world, made["invoices"])) as s3:
        assert s3.get_object(Bucket=reports, Key="a")["Body"].read() == b"content"
        assert refused(s3.get_object, Bucket=other, Key="a")
        assert refused(s3.get_bucket_acl, Bucket=reports)
    with closing(s3_with(world, made["repair"])) as s3:
        s3.put_public_access_block(
            Bucket=other, PublicAccessBlockConfiguration={"BlockPublicAcls": True}
        )
        assert refused(s3.get_object, Bucket=reports, Key="a")


def refused(call, **wanted) -> bool:
    with pytest.raises(ClientError) as caught:
        call(**wanted)
    return caught.value.response["Error"]["Code"] == "AccessDenied"


def test_a_role_is_searched_for_by_its_sets_name(world: World, customer: Customer):
    tenant = world.tenant()
    body = {"account_id": customer.account, "permission_set": "repair"}
    made = world.admin("POST", f"/v1/tenants/{tenant['id']}/connections", body, expect=201)
    assert made["role_arn"].endswith(f"role/{kit_of(world, tenant, 'repair')['role_name']}")
    other = world.admin(
        "POST",
        f"/v1/tenants/{tenant['id']}/connections",
        {"account_id": customer.account},
        expect=201,
    )
    assert other["role_arn"] == made["role_arn"].removesuffix("-repair")


def test_an_organisations_stack_passes_the_parameter_on(world: World):
    text = world.admin.raw("GET", "/v1/templates/customer-org.yaml?permission_set=invoices").text
    own, _, stack_set = text.partition("  Accounts:\n")
    assert "  ReportBucket:\n    Type:" in own
    assert (
        "- ParameterKey: ReportBucket\n          ParameterValue: !Ref ReportBucket\n" in stack_set
    )
    assert "ReportBucket: !Ref ReportBucket\n" in own, (
        "so that CloudFormation sends a message when it changes"
    )


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("customer-role", ["ReportBucket"]),
        ("customer-org", ["OrganizationalUnitIds", "CallAs", "ReportBucket"]),
    ],
)
def test_what_the_customer_fills_in_comes_first_in_the_template(world: World, name, first):
    text = world.admin.raw("GET", f"/v1/templates/{name}.yaml?permission_set=invoices").text
    own = text.partition("TemplateBody: |")[0]
    groups = re.findall(
        "^          - ([A-Za-z]+)$", own.partition("ParameterLabels:")[0], re.MULTILINE
    )
    declared = re.findall("^  ([A-Za-z]+):$", own.partition("\nParameters:\n")[2], re.MULTILINE)
    assert (groups[: len(first)], declared[: len(first)]) == (first, first)
    sets = world.admin("GET", "/v1/permission-sets")["items"]
    [invoices] = [one for one in sets if one["name"] == "invoices"]
    assert all(f"# {statement['why']}" in text for statement in invoices["statements"])


@pytest.fixture
def shell(world: World, customer: Customer) -> Callable[..., CompletedProcess[str]]:
    """Runs a kit's script in the customer's account."""
    return partial(run_as, world.aws, customer.account)


def test_the_script_asks_for_the_parameter_and_takes_no_other_value(
    world: World, customer: Customer, shell
):
    tenant = world.tenant()
    kit = kit_of(world, tenant, "invoices")
    for env in (
        {},
        {"ReportBucket": "*"},
        {"ReportBucket": 'good\nbad"'},
        {"ReportBucket": "$(reboot)"},
    ):
        done = shell(kit["aws_cli"], **env)
        assert (done.returncode, done.stdout) == (1, "")
        assert (
            "Set ReportBucket: The bucket with your cost reports (such as acme-cost-reports)"
            in done.stderr
        )
    done = shell(kit["aws_cli"], ReportBucket="acme-reports")
    assert done.returncode == 0, done.stderr
    with closing(root_client(world.aws, "iam", customer.account)) as iam:
        policy = iam.get_role_policy(RoleName=kit["role_name"], PolicyName="permissions")[
            "PolicyDocument"
        ]
        assert iam.list_attached_role_policies(RoleName=kit["role_name"])["AttachedPolicies"] == []
    text = json.dumps(kit_policy(world, "invoices")).replace("${ReportBucket}", "acme-reports")
    assert policy == json.loads(text)
    connected(world, tenant, done.stdout.strip(), "invoices")


def kit_policy(world: World, name: str):
    return next(
        one["policy"]
        for one in world.admin("GET", "/v1/permission-sets")["items"]
        if one["name"] == name
    )


def test_terraform_has_a_variable_for_the_parameter_and_attaches_what_aws_keeps(world: World):
    tenant = world.tenant()
    written = kit_of(world, tenant, "invoices")["terraform"]
    assert hcl.formatted(written) == written
    found = hcl.parse(written)
    [variable] = [item for item in found["variable"] if "ReportBucket" in item]
    condition = variable["ReportBucket"]["validation"][0]["condition"]
    assert condition == r'${can(regex("^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])$", var.ReportBucket))}'
    assert '"arn:aws:s3:::${var.ReportBucket}/*"' in written
    written = kit_of(world, tenant, "posture")["terraform"]
    assert hcl.formatted(written) == written
    assert not any("ReportBucket" in item for item in hcl.parse(written)["variable"])
    assert re.search(
        r'for_each = toset\(\[\s+"arn:aws:iam::aws:policy/SecurityAudit",\s+\]\)', written
    )


def test_a_folder_with_mistakes_publishes_nothing_and_names_them_all(aws, vendor, config, tmp_path):
    """One of its mistakes is seen only by the command; a process with the others does not start."""
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
    with pytest.raises(ConfigError, match=r"everything\.yaml: statements\[1\]\.why"):
        app_with(config, MISTAKEN)


def objects(aws) -> list[str]:
    with closing(root_client(aws, "s3", VENDOR_ACCOUNT)) as s3:
        found = s3.list_objects_v2(Bucket=f"deputy-templates-{VENDOR_ACCOUNT}").get("Contents", [])
        return [item["Key"] for item in found]
