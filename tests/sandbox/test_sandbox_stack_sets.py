"""StackSets over a whole organisation: each account's own stack, with its own registration."""

import itertools
import json
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from urllib.error import HTTPError

import pytest

from tests.sandbox.sandbox_vendor import CUSTOMER_STACK, respond
from tests.support.waiting import until

_names = itertools.count()
VENDOR = "111122223333"

ORGANISATION_STACK = """
Parameters:
  Topic: {Type: String}
  Name: {Type: String}
  Template: {Type: String}
  Units: {Type: CommaDelimitedList}
  Token: {Type: String, Default: first}
  Tolerated: {Type: Number, Default: 100}
Resources:
  Everywhere:
    Type: AWS::CloudFormation::StackSet
    Properties:
      StackSetName: !Ref Name
      PermissionModel: SERVICE_MANAGED
      CallAs: SELF
      AutoDeployment: {Enabled: true, RetainStacksOnAccountRemoval: false}
      ManagedExecution: {Active: true}
      OperationPreferences:
        {FailureTolerancePercentage: !Ref Tolerated, MaxConcurrentPercentage: 100}
      Capabilities: [CAPABILITY_NAMED_IAM]
      TemplateURL: !Ref Template
      Parameters:
        - {ParameterKey: Topic, ParameterValue: !Ref Topic}
        - {ParameterKey: Name, ParameterValue: !Ref Name}
        - {ParameterKey: Token, ParameterValue: !Ref Token}
      StackInstancesGroup:
        - DeploymentTargets: {OrganizationalUnitIds: !Ref Units}
          Regions: [!Ref AWS::Region]
Outputs:
  Id: {Value: !Ref Everywhere}
"""


def organise(sandbox, units):
    """Returns the HTTP status."""
    request = urllib.request.Request(
        f"{sandbox.url}/_sandbox/organization", json.dumps({"ous": units}).encode()
    )
    try:
        with urllib.request.urlopen(request) as response:
            return response.status
    except HTTPError as error:
        with error:
            return error.code


class Organisation:
    """A management account, and the stack in it that reaches the others."""

    def __init__(self, sandbox, template_url, topic):
        self.sandbox = sandbox
        number = next(_names)
        self.account = f"2000{number:08}"
        self.unit = f"ou-abcd-{number:08}"
        self.cloudformation = sandbox.client("cloudformation", self.account)
        self.name = f"everywhere{number}"
        self.parameters = {
            "Topic": topic,
            "Name": self.name,
            "Template": template_url,
            "Units": self.unit,
        }

    def members(self, count):
        prefix = self.account[-3:]
        return [f"1{prefix}{number:08}" for number in range(count)]

    def accounts(self, accounts):
        assert organise(self.sandbox, {self.unit: accounts}) == 200

    def options(self, changes):
        return {
            "StackName": self.name,
            "TemplateBody": ORGANISATION_STACK,
            "Parameters": [
                {"ParameterKey": key, "ParameterValue": value}
                for key, value in (self.parameters | changes).items()
            ],
        }

    def create(self, **changes):
        self.id = self.cloudformation.create_stack(**self.options(changes))["StackId"]

    def update(self, **changes):
        self.cloudformation.update_stack(**self.options(changes))

    def delete(self):
        self.cloudformation.delete_stack(StackName=self.name)

    @property
    def stack(self):
        return self.cloudformation.describe_stacks(StackName=self.id)["Stacks"][0]

    @property
    def status(self):
        return self.stack["StackStatus"]

    def instances(self):
        found = self.cloudformation.list_stack_instances(StackSetName=self.name)["Summaries"]
        return {instance["Account"]: instance["Status"] for instance in found}

    def roles(self, accounts):
        """How many of the accounts have the role."""
        count = 0
        for account in accounts:
            with closing(self.sandbox.client("iam", account)) as iam:
                count += any(role["RoleName"] == self.name for role in iam.list_roles()["Roles"])
        return count


@pytest.fixture(scope="module")
def template_url(sandbox):
    """World-readable, as a published template is."""
    anyone = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::stack-set-tests/*",
    }
    with closing(sandbox.client("s3", VENDOR)) as s3:
        s3.create_bucket(Bucket="stack-set-tests")
        s3.put_bucket_policy(
            Bucket="stack-set-tests",
            Policy=json.dumps({"Version": "2012-10-17", "Statement": [anyone]}),
        )
        s3.put_object(Bucket="stack-set-tests", Key="role.yaml", Body=CUSTOMER_STACK.encode())
    return f"{sandbox.url}/stack-set-tests/role.yaml"


@pytest.fixture
def organisation(sandbox, topic_reader, template_url) -> Iterator[Organisation]:
    made = Organisation(sandbox, template_url, topic_reader.topic)
    with closing(made.cloudformation):
        yield made
    organise(sandbox, {})


def test_an_account_that_joins_gets_a_stack_and_one_that_leaves_loses_it(
    organisation, topic_reader
):
    first, second, third = organisation.members(3)
    organisation.accounts([first, second])
    organisation.create()
    topic_reader.serve(lambda: organisation.status == "CREATE_COMPLETE")
    organisation.accounts([second, third])
    asked = topic_reader.serve(
        lambda: organisation.roles([first, third]) == 1 and organisation.roles([first]) == 0
    )
    assert {(request["RequestType"], request["StackId"].split(":")[4]) for request in asked} == {
        ("Delete", first),
        ("Create", third),
    }
    until(lambda: organisation.instances() == {second: "CURRENT", third: "CURRENT"})


@pytest.mark.parametrize(
    ("tolerated", "outcome"), [("100", "CREATE_COMPLETE"), ("25", "ROLLBACK_COMPLETE")]
)
def test_failures_are_tolerated_as_far_as_is_said(organisation, topic_reader, tolerated, outcome):
    members = organisation.members(2)
    organisation.accounts(members)
    organisation.create(Tolerated=tolerated)

    def answer():
        for request in topic_reader.read(10):
            refused = (
                request["RequestType"] == "Create"
                and request["StackId"].split(":")[4] == members[0]
            )
            respond(request, "FAILED" if refused else "SUCCESS", Reason="No.")
        return not organisation.status.endswith("_IN_PROGRESS")

    until(answer)
    assert organisation.status == outcome
    assert organisation.roles(members) == (1 if outcome == "CREATE_COMPLETE" else 0)
    if outcome == "CREATE_COMPLETE":
        assert organisation.instances() == {members[0]: "OUTDATED", members[1]: "CURRENT"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Units": "ou-zzzz-99999999"}, "Organizational unit ou-zzzz-99999999 does not exist"),
        ({"Template": "https://example.com/x.yaml"}, "TemplateURL must be a supported URL."),
    ],
)
def test_what_a_stack_set_cannot_reach(organisation, change, reason):
    organisation.accounts(organisation.members(1))
    organisation.create(**change)
    until(lambda: organisation.status == "ROLLBACK_COMPLETE")
    assert reason in organisation.stack["StackStatusReason"]
