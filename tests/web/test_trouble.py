"""The page's section "Something not working?": the sandbox fails in each of these ways, and the
page knows AWS's words.
"""

import json
import re
from contextlib import closing

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.cloudformation.models import cloudformation_backends

from app.onboarding.registrations import REFUSAL
from sandbox.organization import organization
from tests.onboarding.conftest import opened
from tests.support.cast import path_of, root_client
from tests.support.rows import ANYBODY
from tests.support.versions import READS, Vendor, registered
from tests.web.conftest import text_of, visit

EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}


def document(*statements):
    return {"Version": "2012-10-17", "Statement": statements}


class Administrator:
    """Somebody who launches the page's stack, in an account and region, and reads what AWS shows
    then.
    """

    def __init__(self, visitor):
        self.visitor = visitor
        self.customer, self.kit = visitor.customer_and_kit()

    @property
    def account(self):
        return self.customer.account

    def launch(self, link="launch_stack_url", cloudformation=None, **changes):
        """AWS's refusal; or the stack's status and all of its events."""
        wanted = opened(self.kit[link])
        parameters = {
            k.removeprefix("param_"): v for k, v in wanted.items() if k.startswith("param_")
        }
        parameters |= changes.pop("parameters", {})
        options = {
            "StackName": wanted["stackName"],
            "TemplateURL": wanted["templateURL"],
            "Parameters": [{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
            "Capabilities": ["CAPABILITY_NAMED_IAM"],
        } | changes
        with closing(
            cloudformation or root_client(self.visitor.world.aws, "cloudformation", self.account)
        ) as aws:
            try:
                aws.create_stack(**options)
            except ClientError as error:
                return error.response["Error"]["Message"]
            return self.shown(options["StackName"])

    def shown(self, stack_name):
        aws = root_client(self.visitor.world.aws, "cloudformation", self.account)
        stack = aws.describe_stacks(StackName=stack_name)["Stacks"][0]
        events = aws.describe_stack_events(StackName=stack["StackId"])["StackEvents"]
        return "\n".join(
            [stack["StackStatus"], *(event.get("ResourceStatusReason", "") for event in events)]
        )

    def as_somebody_who_may(self, *actions):
        """CloudFormation, for a role of the account's own that may do these."""
        role = self.customer.role("developer", ANYBODY)
        allowed = document({"Effect": "Allow", "Action": [*actions], "Resource": "*"})
        iam = root_client(self.visitor.world.aws, "iam", self.account)
        iam.put_role_policy(
            RoleName="developer", PolicyName="p", PolicyDocument=json.dumps(allowed)
        )
        session = self.visitor.world.aws.open_session(role, "somebody")
        return boto3.client(
            "cloudformation",
            region_name="us-east-1",
            endpoint_url=self.visitor.world.aws.url,
            aws_access_key_id=session.access_key_id,
            aws_secret_access_key=session.secret_access_key,
            aws_session_token=session.token,
        )


@pytest.fixture
def administrator(visitor, published):
    yield Administrator(visitor)
    organization._policies.clear()


def to_do(visitor, name, said):
    """What the page says to do in the case whose words AWS showed."""
    case = visitor.page().select_one(f"details#trouble-{name}")
    assert not case.has_attr("open")
    paragraphs = case.select("p")
    shows = [
        code.text
        for shown in paragraphs
        if "AWS shows" in shown.text
        for code in shown.select("code")
    ]
    patterns = [".*".join(map(re.escape, shown.split("…"))) for shown in shows]
    assert any(re.search(pattern, said, re.DOTALL) for pattern in patterns), (said, shows)
    return text_of(paragraphs[-1])


def denied(a, action, **conditions):
    """What AWS shows where the organisation denies this."""
    deny = {"Effect": "Deny", "Action": action, "Resource": "*"} | conditions
    organization.govern(a.account, service_control=document(EVERYTHING, deny))
    return a.launch()


def with_the_role_there(a):
    a.customer.role(a.kit["role_name"], a.kit["trust_policy"])
    return a.launch()


def with_a_stack_that_is_stuck(a):
    a.launch()
    [stack] = cloudformation_backends[a.account]["us-east-1"].stacks.values()
    stack.status = "UPDATE_ROLLBACK_FAILED"
    aws = root_client(a.visitor.world.aws, "cloudformation", a.account)
    with closing(aws), pytest.raises(ClientError) as refused:
        aws.update_stack(StackName=stack.name, UsePreviousTemplate=True)
    return str(refused.value)


def in_no_organization(a):
    organization._units.clear()
    return a.launch(
        "organization_launch_url", parameters={"OrganizationalUnitIds": "ou-ab12-1a2b3c4d"}
    )


WITHOUT_BOUNDARY = {"StringNotLike": {"iam:PermissionsBoundary": "arn:aws:iam::*:policy/boundary"}}
ELSEWHERE = {"StringNotEquals": {"aws:RequestedRegion": "eu-west-1"}}
TROUBLE = {
    "no rights to create roles": (
        lambda a: a.launch(
            cloudformation=a.as_somebody_who_may("cloudformation:*", "s3:GetObject")
        ),
        {"rights": "Send this page to an administrator"},
    ),
    "no rights to create stacks": (
        lambda a: a.launch(cloudformation=a.as_somebody_who_may("s3:GetObject")),
        {"rights": "Send this page to an administrator"},
    ),
    "an organisation's policy": (
        lambda a: denied(a, "iam:Create*"),
        {"organization": "an exception for the role {role_name}"},
    ),
    "an organisation that keeps to its own topics": (  # the sandbox lets every stack publish
        lambda a: (
            "The role is not authorized to perform: SNS:Publish on resource:"
            " a topic with an explicit deny in a service control policy"
        ),
        {"perimeter": "launch again with “Registration topic” empty"},
    ),
    "a boundary that is demanded": (
        lambda a: denied(a, "iam:CreateRole", Condition=WITHOUT_BOUNDARY),
        {"boundary": "under “Permissions boundary”"},
    ),
    "a capability that is not ticked": (
        lambda a: a.launch(Capabilities=[]),
        {"capability": "Tick “I acknowledge that AWS CloudFormation might create IAM resources"},
    ),
    "a role that is there already": (
        with_the_role_there,
        {"rolled-back": "Find the lowest line with CREATE_FAILED", "role-name": "enter its ARN"},
    ),
    "a stack that is there already": (
        lambda a: a.launch() and a.launch(),
        {"stack-name": "Open the stack {stack_name}"},
    ),
    "a stack whose rollback failed": (
        with_a_stack_that_is_stuck,
        {"stuck": "skip the resource Registration"},
    ),
    "a region that is not allowed": (
        lambda a: denied(a, "cloudformation:*", Condition=ELSEWHERE),
        {"region": "Choose another region above"},
    ),
    "an External ID that was mistyped": (
        lambda a: a.launch(parameters={"ExternalId": "dpy-" + "0" * 63}),
        {"edited": "your External ID is {external_id}"},
    ),
    "a stack set without trusted access": (
        in_no_organization,
        {"trusted-access": "choose “Activate trusted access”"},
    ),
    "a scanner's finding": (  # the sandbox has no Access Analyzer
        lambda a: f"Access Analyzer: external access to {a.kit['role_name']}",
        {"findings": "{broker_principal_arn}"},
    ),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_the_page_knows_awss_words_and_what_to_do(administrator, visitor, trouble):
    happens, cases = TROUBLE[trouble]
    said = happens(administrator)
    for name, words in cases.items():
        assert words.format(**administrator.kit) in to_do(visitor, name, said)


def test_what_the_page_says_to_do_helps(administrator, visitor):
    denied(administrator, "iam:CreateRole", Condition=WITHOUT_BOUNDARY)
    iam = root_client(visitor.world.aws, "iam", administrator.account)
    allowed = json.dumps(document(EVERYTHING))
    boundary = iam.create_policy(PolicyName="boundary", PolicyDocument=allowed)["Policy"]["Arn"]
    said = administrator.launch(StackName="again", parameters={"PermissionsBoundaryArn": boundary})
    assert said.startswith("CREATE_COMPLETE")
    visitor.paste(f"arn:aws:iam::{administrator.account}:role/{administrator.kit['role_name']}")
    page = visitor.page()
    assert page.select_one("#summary").text == "Connected. There is nothing left to do."
    assert len(page.select("details.trouble")) == 14
    assert administrator.account in page.select_one("#status").text, (
        "AWS shows nothing of a wrong account"
    )
    wrong = f"Delete the stack {administrator.kit['stack_name']} in the wrong account"
    assert wrong in text_of(page.select("#trouble-account p")[-1])


def test_a_stack_without_the_topic_makes_the_same_role(administrator, visitor):
    """It is the way where an organisation refuses the stack's message."""
    said = administrator.launch(parameters={"RegistrationTopicArn": ""})
    assert said.startswith("CREATE_COMPLETE")
    assert visitor.connections() == []
    visitor.paste(administrator.account)
    visitor.verify(*visitor.connections())
    page = visitor.page()
    assert page.select_one("#summary").text == "Connected. There is nothing left to do."
    [_, means, _] = page.select("#trouble-perimeter p")
    assert "rolled back at the resource Registration" in means.text
    assert "its role was made, and only the report was refused" in means.text


def test_the_page_explains_a_region_that_is_switched_off(administrator, visitor, faults):
    """Nothing of the stack fails; it is our call that AWS refuses."""
    administrator.launch()
    role_arn = f"arn:aws:iam::{administrator.account}:role/{administrator.kit['role_name']}"
    faults.add("region_disabled", role_arn=role_arn)
    visitor.paste(role_arn)
    assert "has switched STS off in the region" in visitor.page().find(id="live").get_text(" ")
    assert "Security Token Service" in to_do(
        visitor, "region", "STS is not activated in this region"
    )


def test_an_external_id_that_is_another_ones_makes_a_role_that_refuses(administrator, visitor):
    assert administrator.launch(parameters={"ExternalId": "dpy-" + "0" * 64}).startswith(
        "CREATE_COMPLETE"
    )
    visitor.paste(administrator.account)
    [made] = visitor.connections()
    found = visitor.world.admin("POST", path_of(made, "/diagnose"))
    assert [step["name"] for step in found["steps"] if step["outcome"] == "problem"] == ["role"]
    assert "the role may exist but refuses" in visitor.page().select("#trouble-edited p")[1].text


def test_an_edited_token_is_refused_in_words_that_the_page_knows(aws, vendor, config, tmp_path):
    """Deputy refuses the stack's message, and says so among the stack's events."""
    seller = Vendor(aws, config.database.database_url, vendor, tmp_path)
    seller.write(seller.reads, 1, READS)
    with seller.release() as (world, app):
        for edit in (lambda token: token[:40], lambda _: ""):
            administrator = Administrator(visit(world, world.tenant()))
            shown = opened(administrator.kit["launch_stack_url"])["param_RegistrationToken"]
            token = {"RegistrationToken": edit(shown)}
            assert administrator.launch(parameters=token).startswith("CREATE_IN_PROGRESS")
            registered(world, app, administrator.customer)
            said = administrator.shown(administrator.kit["stack_name"])
            assert said.startswith("ROLLBACK_COMPLETE")
            assert REFUSAL in said
            words = to_do(administrator.visitor, "edited", said)
            assert "Change nothing under “External ID” and “Registration”" in words
