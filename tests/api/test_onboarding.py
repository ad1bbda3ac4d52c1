"""The kit, the template and the permission sets."""

import itertools
import json
import shlex
from urllib.parse import parse_qsl, urlsplit

import pytest

from app.access import Scope
from app.factory import create_app
from app.ids import RoleArn
from tests.cast import Api, Customer, World
from tests.conftest import OPERATOR, make_config


def test_the_kit_has_all_that_a_customer_needs(world: World):
    tenant = world.tenant()
    kit = world.kit(tenant)
    assert list(kit) == [
        "external_id",
        "broker_principal_arn",
        "role_name",
        "stack_name",
        "region",
        "partition",
        "permission_set",
        "template_url",
        "template_version",
        "launch_stack_url",
        "registers_itself",
        "trust_policy",
        "terraform",
        "aws_cli",
    ]
    assert kit["external_id"] == tenant["external_id"]
    assert kit["role_name"] == "deputy-" + tenant["id"].replace("-", "")[-8:]
    assert kit["region"] == "us-east-1"
    assert kit["partition"] == "aws"
    assert kit["template_version"] in kit["template_url"]
    assert kit == world.kit(tenant)


def test_the_trust_policy_names_the_broker_and_the_external_id(world: World):
    kit = world.kit(world.tenant())
    (statement,) = kit["trust_policy"]["Statement"]
    assert statement["Principal"] == {"AWS": "arn:aws:iam::111122223333:root"}
    assert statement["Action"] == ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]
    assert statement["Condition"] == {
        "StringEquals": {"sts:ExternalId": kit["external_id"]},
        "ArnEquals": {"aws:PrincipalArn": kit["broker_principal_arn"]},
    }


def test_the_launch_link_is_aws_quick_create(world: World):
    kit = world.kit(world.tenant())
    link = urlsplit(kit["launch_stack_url"])
    assert f"{link.scheme}://{link.netloc}" == "https://us-east-1.console.aws.amazon.com"
    assert (link.path, link.query) == ("/cloudformation/home", "region=us-east-1")
    place, _, query = link.fragment.partition("?")
    assert place == "/stacks/create/review"
    assert dict(parse_qsl(query, strict_parsing=True)) == {
        "templateURL": kit["template_url"],
        "stackName": kit["stack_name"],
        "param_ExternalId": kit["external_id"],
        "param_RoleName": kit["role_name"],
    }
    assert "templateURL=http%3A%2F%2F" in query
    assert len(kit["launch_stack_url"]) < 2000


def test_another_region_is_another_console(world: World):
    tenant = world.tenant()
    kit = world.admin("GET", f"/v1/tenants/{tenant['id']}/onboarding?region=eu-west-1")
    assert kit["region"] == "eu-west-1"
    assert kit["launch_stack_url"].startswith("https://eu-west-1.console.aws.amazon.com/")
    assert "region=eu-west-1#" in kit["launch_stack_url"]


@pytest.mark.parametrize(
    "region", ["cn-north-1", "us-gov-west-1", "eu-nowhere-9", "EU-WEST-1", "x", "", "us-east-1%0A"]
)
def test_a_region_of_another_partition_or_of_none_is_refused(world: World, region):
    path = f"/v1/tenants/{world.tenant()['id']}/onboarding?region={region}"
    problem = world.admin.refused("GET", path, expect=422, code="validation_failed")
    assert "region" in problem["errors"]


def test_console_url_says_where_links_point(aws, config):
    app = create_app(make_config(config.database_url, console_url="http://localhost:4566/console"))
    services = app.extensions["deputy"]

    _, key = services.access.issue_key(
        OPERATOR, name="x", scopes=frozenset(Scope), tenant_id=None, expires_at=None
    )
    world = World(aws, Api(app, key))
    assert world.kit(world.tenant())["launch_stack_url"].startswith(
        "http://localhost:4566/console/cloudformation/home?region=us-east-1#/stacks/create/review?"
    )
    services.db.engine.dispose()


def test_the_aws_cli_kit_makes_a_role_that_is_verified(world: World, customer: Customer):
    """Its two commands, run through boto3 word by word, as the shell would split them."""
    tenant = world.tenant()
    kit = world.kit(tenant)
    words = shlex.split(kit["aws_cli"].replace("\\\n", " "), comments=True)
    create = words[words.index("create-role") : words.index("put-role-policy")]
    options = dict(itertools.pairwise(create))
    trust = json.loads(options["--assume-role-policy-document"])
    assert trust == kit["trust_policy"]
    policy = json.loads(words[words.index("--policy-document") + 1])
    assert {"Effect", "Action", "Resource"} <= set(policy["Statement"][0])
    role_arn = customer.role(options["--role-name"], trust, Description=options["--description"])
    world.connect(tenant, role_arn)


def test_the_terraform_kit_holds_the_same_role(world: World):
    kit = world.kit(world.tenant())
    assert f'"{kit["role_name"]}"' in kit["terraform"]
    assert kit["external_id"] in kit["terraform"]
    assert "jsonencode(" in kit["terraform"]


def test_the_template_can_be_read_without_a_key(world: World):
    anonymous = world.admin.with_key(None)
    response = anonymous.raw("GET", "/v1/templates/customer-role.yaml")
    assert response.status_code == 200
    assert response.content_type.startswith("text/yaml")
    assert "arn:aws:iam::111122223333:role/DeputyBroker" in response.text
    other = anonymous.raw("GET", "/v1/templates/customer-role.yaml?permission_set=bucket-sync")
    assert "s3:PutObject" in other.text
    assert other.headers["X-Template-Version"] != response.headers["X-Template-Version"]
    anonymous.refused(
        "GET", "/v1/templates/customer-role.yaml?permission_set=x", expect=422, code="validation_failed"
    )


def test_permission_sets_show_words_and_policies(world: World):
    items = world.admin("GET", "/v1/permission-sets")["items"]
    assert {item["name"]: item["access"] for item in items} == {"inventory": "read", "bucket-sync": "write"}
    sync = next(item for item in items if item["name"] == "bucket-sync")
    assert "arn:aws:s3:::deputy-shared-*" in json.dumps(sync["policy"])
    assert "${AWS::" not in json.dumps(items)


def test_the_role_of_the_kit_is_one_that_is_allowed(world: World):
    kit = world.kit(world.tenant())
    assert RoleArn.parse(f"arn:aws:iam::444455556666:role/{kit['role_name']}").name == kit["role_name"]
