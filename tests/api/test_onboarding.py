"""The kit, the template and the permission sets."""

import json
from string import ascii_letters, digits

import pytest

from app.config import ConfigError
from app.ids import Broker
from tests.onboarding.conftest import opened
from tests.support.cast import Api, World


def test_the_kit_has_all_that_a_customer_needs(world):
    tenant = world.tenant()
    kit = world.kit(tenant)
    assert " ".join(kit) == (
        "external_id next_external_id broker_principal_arn role_name stack_name region partition"
        " permission_set permission_set_version template_url template_version launch_stack_url"
        " organization_launch_url registers_itself trust_policy terraform aws_cli update"
    )
    assert kit["external_id"] == tenant["external_id"]
    assert kit["role_name"] == "deputy-" + tenant["id"].replace("-", "")[-8:]
    assert kit["region"] == "us-east-1"
    assert kit["partition"] == "aws"
    assert kit["template_version"] in kit["template_url"]
    (statement,) = kit["trust_policy"]["Statement"]
    assert statement["Principal"] == {"AWS": "arn:aws:iam::111122223333:root"}
    assert statement["Action"] == "sts:AssumeRole"
    assert statement["Condition"] == {
        "StringEquals": {"sts:ExternalId": kit["external_id"]},
        "ArnEquals": {"aws:PrincipalArn": kit["broker_principal_arn"]},
    }
    assert kit == world.kit(tenant)


def test_the_organisations_link_differs_in_template_and_stack_alone(world):
    kit = world.kit(world.tenant())
    single, whole = opened(kit["launch_stack_url"]), opened(kit["organization_launch_url"])
    assert (
        kit["organization_launch_url"].partition("?")[0]
        == kit["launch_stack_url"].partition("?")[0]
    )
    assert "/templates/customer-org/inventory/" in whole.pop("templateURL")
    assert whole.pop("stackName") == f"{single.pop('stackName')}-organization"
    assert single.pop("templateURL") == kit["template_url"]
    assert whole == single  # the administrator fills in the units
    assert len(kit["organization_launch_url"]) < 2000


@pytest.fixture
def deploy(aws, admin, start):
    """Another deployment on the same database, with some settings changed; its world."""
    return lambda **changes: World(aws, Api(start({}, **changes), admin.key))


def broker_in(partition):
    return Broker.parse(f"arn:{partition}:iam::111122223333:role/DeputyBroker")


# Partitions: two regions of each, and the domains of its console and of its services
PLACES = [
    ("aws", "eu-west-1", "ap-southeast-2", "console.aws.amazon.com", "amazonaws.com"),
    (
        "aws-us-gov",
        "us-gov-west-1",
        "us-gov-east-1",
        "console.amazonaws-us-gov.com",
        "amazonaws.com",
    ),
    ("aws-cn", "cn-north-1", "cn-northwest-1", "console.amazonaws.cn", "amazonaws.com.cn"),
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place[0])
def test_links_are_those_of_the_brokers_partition(deploy, monkeypatch, place):
    """With a name whose characters all mean something in a URL, to see that each value arrives
    as it was.
    """
    partition, home, other, console, suffix = place
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    world = deploy(
        broker=broker_in(partition), region=home, template_bucket="acme", role_prefix="a+b=c,d@e.f-"
    )
    tenant = world.tenant()
    path = f"/v1/tenants/{tenant['id']}/onboarding?region="
    for region in (home, other):
        kit = world.admin("GET", path + region)
        assert kit["partition"] == partition
        assert kit["region"] == region
        for link in (kit["launch_stack_url"], kit["organization_launch_url"]):
            assert link.startswith(
                f"https://{region}.{console}/cloudformation/home?region={region}#/stacks/create/review?"
            )
            query = link.partition("review?")[2]
            assert set(query) <= set(ascii_letters + digits + "-._~%=&"), (
                "everything else is encoded"
            )
            parameters = opened(link)
            # The bucket stays in its region when the link opens another.
            assert parameters["templateURL"].startswith(
                f"https://s3.{home}.{suffix}/acme/templates/customer-"
            )
            assert parameters["param_RoleName"] == kit["role_name"]
            assert parameters["param_ExternalId"] == tenant["external_id"]
        assert kit["broker_principal_arn"].startswith(f"arn:{partition}:")
        for script in (kit["terraform"], kit["aws_cli"]):
            assert f"arn:{partition}:iam::111122223333:root" in script
        assert f"AWS_REGION={home} " in kit["aws_cli"]
    theirs, region, *_ = PLACES[PLACES.index(place) - 1]
    problem = world.admin.refused("GET", path + region, expect=422, code="validation_failed")
    [message] = problem["errors"]["region"]
    assert f"the partition {theirs}." in message
    assert f"in the partition {partition}," in message


def test_settings_that_lead_nowhere_are_refused_and_a_console_is_named_where_none_is_known(deploy):
    for partition, region, message in (
        ("aws-cn", "us-east-1", "AWS_REGION: us-east-1 is in the partition aws, but .* in aws-cn"),
        ("aws", "xx-nowhere-9", "AWS_REGION: xx-nowhere-9 is in no partition that is known here"),
        ("aws-iso", "us-iso-east-1", "DEPUTY_CONSOLE_URL: must be set"),
    ):
        settings = {"broker": broker_in(partition), "region": region}
        with pytest.raises(ConfigError, match=message):
            deploy(**settings)
    world = deploy(**settings, console_url="https://console.example")
    assert world.kit(world.tenant())["launch_stack_url"].startswith(
        "https://console.example/cloudformation/"
    )


def test_the_templates_can_be_read_without_a_key(world):
    anonymous = world.admin.with_key(None)
    role, whole = (f"/v1/templates/customer-{name}.yaml" for name in ("role", "org"))
    responses = []
    for path in (role, f"{role}?permission_set=bucket-sync", f"{whole}?permission_set=bucket-sync"):
        response = anonymous.raw("GET", path)
        assert response.status_code == 200
        assert response.content_type.startswith("text/yaml")
        assert response.headers["X-Template-Version"] in response.text
        responses.append(response)
    first, sync, organization = responses
    assert "arn:aws:iam::111122223333:role/DeputyBroker" in first.text
    assert "s3:PutObject" in sync.text
    assert sync.headers["X-Template-Version"] != first.headers["X-Template-Version"]
    assert "s3:PutObject" in organization.text
    for path in (role, whole):
        anonymous.refused("GET", f"{path}?permission_set=x", expect=422, code="validation_failed")


def test_permission_sets_show_words_and_policies(world):
    items = world.admin("GET", "/v1/permission-sets")["items"]
    assert {item["name"]: item["access"] for item in items} == {
        "inventory": "read",
        "bucket-sync": "write",
    }
    sync = next(item for item in items if item["name"] == "bucket-sync")
    assert "arn:aws:s3:::deputy-shared-*" in json.dumps(sync["policy"])
    assert "${AWS::" not in json.dumps([item["policy"] for item in items])
