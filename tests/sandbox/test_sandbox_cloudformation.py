"""CloudFormation: what AWS checks, what moto gets wrong, and that failures leave nothing behind."""

import itertools

import pytest
from botocore.exceptions import ClientError

from tests.sandbox.sandbox_people import CUSTOMER, DENIED, OWN, VENDOR_ROOT, outcome

INVALID = (400, "ValidationError")
_names = itertools.count()

TEMPLATE = """
Parameters:
  ExternalId:
    {Type: String, NoEcho: true, MinLength: 2, MaxLength: 20, AllowedPattern: "dpy-[a-z0-9]*"}
  Name: {Type: String}
  Mode: {Type: String, Default: read, AllowedValues: [read, write]}
  Accounts: {Type: CommaDelimitedList, Default: "111122223333, 222233334444"}
  Hours: {Type: Number, Default: 1, MinValue: 1, MaxValue: 12}
Conditions:
  Write: !Equals [!Ref Mode, write]
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      RoleName: !Ref Name
      Description: !Sub "mode ${Mode}"
      MaxSessionDuration: 7200
      AssumeRolePolicyDocument:
        Version: 2012-10-17
        Statement:
          - Effect: Allow
            Principal: {AWS: !Ref Accounts}
            Action: sts:AssumeRole
            Condition: {StringEquals: {"sts:ExternalId": !Ref ExternalId}}
      Policies:
        - PolicyName: read
          PolicyDocument:
            Version: "2012-10-17"
            Statement: {Effect: Allow, Action: "s3:ListAllMyBuckets", Resource: "*"}
        - !If
          - Write
          - PolicyName: write
            PolicyDocument:
              Version: "2012-10-17"
              Statement: {Effect: Allow, Action: "s3:PutObject", Resource: "*"}
          - !Ref AWS::NoValue
      ManagedPolicyArns: ["arn:aws:iam::aws:policy/SecurityAudit"]
  Extra:
    Type: AWS::IAM::ManagedPolicy
    Condition: Write
    Properties:
      Roles: [!Ref Role]
      PolicyDocument:
        Version: "2012-10-17"
        Statement: {Effect: Allow, Action: "sqs:CreateQueue", Resource: "*"}
  Missing: {Type: AWS::Nothing::AtAll, Condition: Write}
Outputs:
  Arn: {Value: !GetAtt Role.Arn}
"""
QUIET = TEMPLATE[: TEMPLATE.index("  Missing:")] + TEMPLATE[TEMPLATE.index("Outputs:") :]


class Stacks:
    def __init__(self, people):
        self.cloudformation, self.iam = (
            people.client("cloudformation", CUSTOMER),
            people.client("iam", CUSTOMER),
        )
        self.name, self.role = f"stack{next(_names)}", f"deputy-cfn-{next(_names)}"

    def parameters(self, **changes):
        values = {"ExternalId": OWN, "Name": self.role, **changes}
        return [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]

    def options(self, template, changes):
        return {
            "StackName": self.name,
            "TemplateBody": template,
            "Parameters": self.parameters(**changes),
            "Capabilities": ["CAPABILITY_NAMED_IAM"],
        }

    def create(self, template=QUIET, **changes):
        self.cloudformation.create_stack(**self.options(template, changes))
        return self.describe()

    def update(self, template=QUIET, **changes):
        self.cloudformation.update_stack(**self.options(template, changes))
        return self.describe()

    def describe(self):
        return self.cloudformation.describe_stacks(StackName=self.name)["Stacks"][0]

    def policies(self):
        attached = self.iam.list_attached_role_policies(RoleName=self.role)["AttachedPolicies"]
        return self.iam.list_role_policies(RoleName=self.role)["PolicyNames"], len(attached)

    def exists(self):
        return outcome(lambda: self.iam.get_role(RoleName=self.role)) == "allowed"


@pytest.fixture
def stacks(people):
    return Stacks(people)


def test_a_role_from_a_stack_works(people, stacks):
    stack = stacks.create()
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    shown = {p["ParameterKey"]: p["ParameterValue"] for p in stack["Parameters"]}
    assert [shown[name] for name in ("ExternalId", "Accounts", "Hours")] == [
        "****",
        "111122223333,222233334444",
        "1",
    ]
    arn = stack["Outputs"][0]["OutputValue"]
    assert arn == f"arn:aws:iam::{CUSTOMER}:role/{stacks.role}"
    assert [people.outcome(arn, id_) for id_ in (OWN, None, "dpy-x")] == ["allowed", DENIED, DENIED]
    assert stacks.policies() == (["read"], 1)


def test_constraints_are_checked_on_create_and_update(stacks):
    wrong = (
        ({"ExternalId": "DPY-x"}, "must match pattern dpy-"),
        ({"ExternalId": "dpy-" + "x" * 20}, "must contain at most 20"),
        ({"Mode": "admin"}, "must be one of AllowedValues"),
        ({"Hours": "13"}, "not greater than 12"),
        ({"Surprise": "x"}, "do not exist in the template"),
    )
    for call in (stacks.create, stacks.update):
        for change, text in wrong:
            with pytest.raises(ClientError, match=text):
                call(**change)
        if call == stacks.create:
            assert not stacks.exists()
            stacks.create()
    assert stacks.describe()["StackStatus"] == "CREATE_COMPLETE"


def test_updates_reach_the_role(people, stacks):
    arn = stacks.create()["Outputs"][0]["OutputValue"]
    before = stacks.iam.get_role(RoleName=stacks.role)["Role"]
    changed = QUIET.replace(
        "MaxSessionDuration: 7200", "MaxSessionDuration: 3600\n      Tags: [{Key: a, Value: b}]"
    )
    assert (
        stacks.update(changed, ExternalId="dpy-new", Mode="write")["StackStatus"]
        == "UPDATE_COMPLETE"
    )
    role = stacks.iam.get_role(RoleName=stacks.role)["Role"]
    assert role["RoleId"] == before["RoleId"]
    assert (role["Description"], role["MaxSessionDuration"]) == ("mode write", 3600)
    assert role["Tags"] == [{"Key": "a", "Value": "b"}]
    assert [people.outcome(arn, id_) for id_ in ("dpy-new", OWN)] == ["allowed", DENIED]
    assert stacks.policies() == (["read", "write"], 2)  # a condition has turned true
    stacks.update(changed, ExternalId="dpy-new", Mode="read")
    assert stacks.policies() == (["read"], 1)  # and false again
    with pytest.raises(ClientError, match="No updates are to be performed"):
        stacks.update(changed, ExternalId="dpy-new", Mode="read")
    old, stacks.role = stacks.role, f"{stacks.role}-b"
    stacks.update(changed, ExternalId="dpy-new")
    assert stacks.exists(), "a new name is a new role"
    stacks.role = old
    assert not stacks.exists()


def test_what_is_no_template_is_refused(stacks):
    for body in ("just text", "Resources: {}", "{: :"):
        assert outcome(lambda body=body: stacks.create(body))[0] == 400


def test_a_failed_stack_rolls_back_and_says_why(people, stacks):
    people.role(VENDOR_ROOT, name=stacks.role)
    template = QUIET.replace(
        "Resources:\n",
        "Resources:\n  Topic: {Type: AWS::SNS::Topic, Properties: {TopicName: rolled-back}}\n",
        1,
    )
    stack = stacks.create(template)
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "Role" in stack["StackStatusReason"]
    assert "already exists" in stack["StackStatusReason"]
    assert "Outputs" not in stack
    events = stacks.cloudformation.describe_stack_events(StackName=stacks.name)["StackEvents"]
    failed = [event for event in events if event["ResourceStatus"] == "CREATE_FAILED"]
    assert [event["LogicalResourceId"] for event in failed] == ["Role"]
    topics = people.client("sns", CUSTOMER).list_topics()["Topics"]
    assert not any("rolled-back" in topic["TopicArn"] for topic in topics)
    assert stacks.exists()  # the role that was there before
    assert outcome(stacks.update) == INVALID
    stacks.cloudformation.delete_stack(StackName=stacks.name)
    assert stacks.exists()


def test_a_list_stays_as_it_was_in_an_update_that_names_the_previous_value(stacks):
    stacks.create(Accounts="111122223333,444455556666")
    kept = [
        {"ParameterKey": key, "UsePreviousValue": True}
        for key in ("ExternalId", "Name", "Accounts")
    ]
    changed = {"ParameterKey": "Hours", "ParameterValue": "2"}
    options = stacks.options(QUIET, {}) | {"Parameters": [*kept, changed]}
    stacks.cloudformation.update_stack(**options)
    stacks.cloudformation.create_change_set(**options, ChangeSetName="u", ChangeSetType="UPDATE")
    stacks.cloudformation.execute_change_set(ChangeSetName="u", StackName=stacks.name)
    shown = {p["ParameterKey"]: p["ParameterValue"] for p in stacks.describe()["Parameters"]}
    assert (shown["Accounts"], shown["Hours"]) == ("111122223333,444455556666", "2")
