"""Customers' stacks register by themselves in each region that has a topic, though all topics send
to a queue in one region.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from bs4 import BeautifulSoup

from app.settings.valid_values import topics
from dev.stack import ROOT
from sandbox.organization import organization
from sandbox.policy import Request, evaluate_service
from sandbox.vendor import VENDOR_ACCOUNT, Vendor, deploy_vendor
from tests.conftest import BROKER_TEMPLATE, publish_templates
from tests.onboarding.test_organization import deployed, working
from tests.support.cast import Customer, World, root_client
from tests.support.databases import new_database
from tests.support.shells import run_as
from tests.support.waiting import until

QUEUES_REGION, FRANKFURT, MILAN = "us-east-1", "eu-central-1", "eu-south-1"
REGIONS = [FRANKFURT, MILAN, QUEUES_REGION]


@pytest.fixture(scope="module")
def world(request, aws, vendor) -> Iterator[World]:
    """A deployment with topics in three regions, and its background worker. The first topic is
    not in the queue's region.
    """
    arns = (*vendor.further_topic_arns, vendor.registration_topic_arn)
    with new_database() as url, deployed(url, vendor, registration_topic_arns=arns) as app:
        publish_templates(app)
        assert [*app.extensions["deputy"].config.aws.registration_topics] == REGIONS
        with working(app):
            yield World.of(aws, app)


class Launched:
    """A stack that a customer launches from the kit's link for a region."""

    def __init__(
        self, world, region, form="launch_stack_url", account=None, tenant=None, **changes
    ):
        self.world, self.tenant, self.region = world, tenant or world.tenant(), region
        path = f"/v1/tenants/{self.tenant['id']}"
        self.kit = world.admin("GET", f"{path}/onboarding?region={region}")
        self.customer = Customer(world.aws, account)
        self.name = self.customer.create_stack(self.kit[form], **changes)
        self.cloudformation = root_client(
            world.aws, "cloudformation", self.customer.account, region
        )
        self.path = f"{path}/connections"

    def describe(self):
        [stack] = self.cloudformation.describe_stacks(StackName=self.name)["Stacks"]
        return stack

    def ends_as(self, status):
        until(lambda: self.describe()["StackStatus"] == status, status)

    def accounts(self, status="verified"):
        items = self.world.admin("GET", f"{self.path}?status={status}")["items"]
        return {item["account_id"] for item in items}


def test_the_page_tells_how_each_stack_is_updated_in_its_own_region(world):
    """The customer chose another region on the page of a link for the first one."""
    first = Launched(world, FRANKFURT)
    second = Launched(world, MILAN, tenant=first.tenant)
    for stack in (first, second):
        stack.ends_as("CREATE_COMPLETE")
        until(lambda stack=stack: stack.customer.account in stack.accounts())
    path = f"/v1/tenants/{first.tenant['id']}"
    world.admin("POST", f"{path}/external-id/rotation", {"reason": "it is old"}, expect=201)
    link = world.admin("POST", f"{path}/onboarding-links", {}, expect=201)
    client = world.admin.app.test_client()
    page = BeautifulSoup(client.get(urlsplit(link["url"]).path).text, "html.parser")
    commands = {each.text for each in page.select("#update-stack, #update-2-stack")}
    for stack in (first, second):
        [command] = [each for each in commands if f"--region {stack.region}" in each]
        done = run_as(world.aws, stack.customer.account, command)
        assert done.returncode == 0, done.stderr
        stack.ends_as("UPDATE_COMPLETE")


@pytest.mark.parametrize("region", REGIONS)
def test_a_stack_registers_by_itself_in_each_region_with_a_topic(world, region):
    stack = Launched(world, region)
    assert stack.kit["registers_itself"] is True
    stack.ends_as("CREATE_COMPLETE")
    assert stack.describe()["StackId"].split(":")[3] == region
    until(lambda: stack.accounts() == {stack.customer.account})


def test_a_stack_that_is_refused_is_told_so_in_its_region(world):
    stack = Launched(world, FRANKFURT, RegistrationToken="dpt_of-nobody")
    stack.ends_as("ROLLBACK_COMPLETE")
    assert "The registration was not accepted." in stack.describe()["StackStatusReason"]
    assert stack.accounts("pending") == set()


def test_the_accounts_of_an_organisation_register_in_the_region_of_its_stack(world):
    members = {f"5{number:011}" for number in range(3)}
    unit = "ou-abcd-00000055"
    organization.change({"ous": {unit: sorted(members)}})
    stack = Launched(
        world, FRANKFURT, "organization_launch_url", OrganizationalUnitIds=unit, CallAs="SELF"
    )
    stack.ends_as("CREATE_COMPLETE")
    set_name = stack.describe()["StackId"].split("/")[1]
    instances = stack.cloudformation.list_stack_instances(StackSetName=set_name)["Summaries"]
    assert {instance["Region"] for instance in instances} == {FRANKFURT}
    until(lambda: stack.accounts() == members | {stack.customer.account})
    organization.change({"ous": {unit: []}})


# --- the vendor's side ---


def test_the_guides_commands_add_regions_to_a_stack_that_is_there(aws):
    account = "666655554444"
    bucket = {"TemplateBucketName": f"deputy-templates-{account}", "RolePrefix": "acme-"}
    vendor = Vendor(account, parameters=bucket)
    deployed = deploy_vendor(aws.url, BROKER_TEMPLATE.read_text(), vendor)
    guide = (ROOT / "docs" / "deployment.md").read_text().partition("\n## Further regions\n")[2]
    commands = guide.partition("```sh\n")[2].partition("```")[0]
    done = run_as(aws, account, commands)
    assert done.returncode == 0, done.stderr
    name, _, value = done.stdout.splitlines()[-1].partition("=")
    assert name == "DEPUTY_REGISTRATION_TOPIC_ARN"
    queue = deployed.registration_queue_arn
    assert topics(value) == (
        deployed.registration_topic_arn,
        *(queue.replace(":sqs:us-east-1:", f":sns:{region}:") for region in REGIONS[:2]),
    )
    sns = root_client(aws, "sns", account, MILAN)
    [subscription] = sns.list_subscriptions_by_topic(TopicArn=value.split(",")[-1])["Subscriptions"]
    assert subscription["Endpoint"] == queue
    cloudformation = root_client(aws, "cloudformation", account)
    [stack] = cloudformation.describe_stacks(StackName=vendor.stack_name)["Stacks"]
    parameters = {one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]}
    assert parameters["RolePrefix"] == "acme-", "as before"


# --- who may send to the queue ---


@pytest.fixture(scope="module")
def queue_policy(aws, vendor):
    sqs = root_client(aws, "sqs", VENDOR_ACCOUNT)
    answer = sqs.get_queue_attributes(
        QueueUrl=vendor.registration_queue_url, AttributeNames=["Policy"]
    )
    return answer["Attributes"]["Policy"]


@pytest.mark.parametrize(
    ("service", "changes", "accepted"),
    [
        ("sns.amazonaws.com", {}, True),
        ("sns.eu-central-1.amazonaws.com", {}, True),
        ("sns.eu-west-1.amazonaws.com", {}, False),
        ("events.amazonaws.com", {}, False),
        ("sns.amazonaws.com", {FRANKFURT: MILAN}, True),
        ("sns.amazonaws.com", {FRANKFURT: "eu-west-1"}, False),
        ("sns.amazonaws.com", {VENDOR_ACCOUNT: "444455556666"}, False),
        ("sns.amazonaws.com", {":sns:": ":events:"}, False),
        ("sns.amazonaws.com", {"Queue-": "Other-"}, False),
        ("sns.amazonaws.com", {"arn:aws:": "arn:aws-cn:"}, False),
    ],
)
def test_only_the_topics_of_the_listed_regions_send_to_the_queue(
    vendor, queue_policy, service, changes, accepted
):
    topic = vendor.further_topic_arns[0]
    for old, new in changes.items():
        assert old in topic
        topic = topic.replace(old, new)
    context = {"aws:SourceArn": topic, "aws:SecureTransport": "true"}
    request = Request("sqs:SendMessage", vendor.registration_queue_arn, context)
    assert evaluate_service(queue_policy, service, request) is accepted
    context["aws:SecureTransport"] = "false"
    assert not evaluate_service(queue_policy, service, request)
