"""The page's section "Something not working?": the sandbox fails in each of these ways, and the page knows AWS's words."""

import json
import re
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError
from playwright.sync_api import Locator, Page, expect

from app.onboarding.registrations import REFUSAL
from sandbox.organization import organization
from tests.attacks.evidence import on_sqlite
from tests.conftest import in_a_browser, publish_templates
from tests.support.cast import Customer, path_of, root_client
from tests.support.versions import READS, Vendor, registered
from tests.web.conftest import Visitor, served, visit

pytestmark = [in_a_browser, on_sqlite]  # a browser sees no difference between databases

EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}
VENDOR = "111122223333"


class Administrator:
    """Somebody who launches the page's stack, in an account and region, and reads what AWS shows then."""

    def __init__(self, visitor: Visitor) -> None:
        self.visitor, self.customer = visitor, Customer(visitor.world.aws)
        self.kit = visitor.world.kit(visitor.tenant)

    @property
    def account(self) -> str:
        return self.customer.account

    def launch(self, link: str = "launch_stack_url", cloudformation: Any = None, **changes: Any) -> str:
        """AWS's refusal; or the stack's status and all of its events."""
        wanted = dict(parse_qsl(urlsplit(self.kit[link]).fragment.partition("?")[2]))
        parameters = {k.removeprefix("param_"): v for k, v in wanted.items() if k.startswith("param_")}
        parameters |= changes.pop("parameters", {})
        options = {
            "StackName": wanted["stackName"],
            "TemplateURL": wanted["templateURL"],
            "Parameters": [{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
            "Capabilities": ["CAPABILITY_NAMED_IAM"],
        } | changes
        with closing(cloudformation or root_client(self.visitor.world.aws, "cloudformation", self.account)) as aws:
            try:
                aws.create_stack(**options)
            except ClientError as error:
                return error.response["Error"]["Message"]
            return self.shown(options["StackName"])

    def shown(self, stack_name: str) -> str:
        with closing(root_client(self.visitor.world.aws, "cloudformation", self.account)) as aws:
            stack = aws.describe_stacks(StackName=stack_name)["Stacks"][0]
            events = aws.describe_stack_events(StackName=stack["StackId"])["StackEvents"]
        return "\n".join([stack["StackStatus"], *(event.get("ResourceStatusReason", "") for event in events)])

    def govern(self, *statements: dict[str, Any]) -> None:
        document = {"Version": "2012-10-17", "Statement": [EVERYTHING, *statements]}
        organization.govern(self.account, service_control=document)

    def allow_everything(self, name: str) -> str:
        """The ARN of a new policy of the account's."""
        document = json.dumps({"Version": "2012-10-17", "Statement": [EVERYTHING]})
        with closing(root_client(self.visitor.world.aws, "iam", self.account)) as iam:
            return iam.create_policy(PolicyName=name, PolicyDocument=document)["Policy"]["Arn"]

    def as_somebody_who_may(self, *actions: str) -> Any:
        """CloudFormation, for a role of the account's own that may do these."""
        trust = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}],
        }
        role = self.customer.role("developer", trust)
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": [*actions], "Resource": "*"}]}
        with closing(root_client(self.visitor.world.aws, "iam", self.account)) as iam:
            iam.put_role_policy(RoleName="developer", PolicyName="p", PolicyDocument=json.dumps(policy))
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
def administrator(visitor: Visitor):
    publish_templates(visitor.world.admin.app)
    yield Administrator(visitor)
    organization._policies.clear()


class Section:
    def __init__(self, page: Page) -> None:
        self.page = page

    def find(self, name: str, said: str) -> Locator:
        """Open the case whose words AWS said; what to do is hidden until then."""
        case = self.page.locator(f"#trouble-{name}")
        to_do = case.locator("p").last
        expect(to_do).to_be_hidden()
        case.locator("summary").click()
        expect(to_do).to_be_visible()
        shows = case.locator("p", has_text="AWS shows").locator("code").all_inner_texts()
        patterns = [".*".join(map(re.escape, shown.split("…"))) for shown in shows]
        assert any(re.search(pattern, said, re.DOTALL) for pattern in patterns), (said, shows)
        return to_do


@pytest.fixture
def section(url: str, browser_page: Page) -> Section:
    browser_page.goto(url)
    return Section(browser_page)


def test_no_rights_to_create_roles(administrator: Administrator, section: Section):
    said = administrator.launch(cloudformation=administrator.as_somebody_who_may("cloudformation:*", "s3:GetObject"))
    assert said.startswith("ROLLBACK_COMPLETE")
    expect(section.find("rights", said)).to_contain_text("Send this page to an administrator")


def test_no_rights_to_create_stacks(administrator: Administrator, section: Section):
    said = administrator.launch(cloudformation=administrator.as_somebody_who_may("s3:GetObject"))
    expect(section.find("rights", said)).to_contain_text("Send this page to an administrator")


def test_an_organizations_policy(administrator: Administrator, section: Section):
    administrator.govern({"Effect": "Deny", "Action": "iam:Create*", "Resource": "*"})
    to_do = section.find("organization", administrator.launch())
    expect(to_do).to_contain_text(f"an exception for the role {administrator.kit['role_name']}")
    expect(to_do).to_contain_text(f"an exception for Example Vendor's account {VENDOR}")


def test_a_boundary_that_is_demanded(administrator: Administrator, section: Section):
    without = {"StringNotLike": {"iam:PermissionsBoundary": "arn:aws:iam::*:policy/boundary"}}
    administrator.govern({"Effect": "Deny", "Action": "iam:CreateRole", "Resource": "*", "Condition": without})
    expect(section.find("boundary", administrator.launch())).to_contain_text("under “Permissions boundary”")
    boundary = administrator.allow_everything("boundary")
    said = administrator.launch(StackName="again", parameters={"PermissionsBoundaryArn": boundary})
    assert said.startswith("CREATE_COMPLETE")


def test_the_capability_is_not_ticked(administrator: Administrator, section: Section):
    to_do = section.find("capability", administrator.launch(Capabilities=[]))
    expect(to_do).to_contain_text("Tick “I acknowledge that AWS CloudFormation might create IAM resources")
    assert administrator.launch().startswith("CREATE_COMPLETE")


def test_the_role_is_there_already(administrator: Administrator, section: Section):
    role_arn = administrator.customer.role(administrator.kit["role_name"], administrator.kit["trust_policy"])
    section.find("role-name", administrator.launch()).get_by_role("link").click()
    section.page.locator("#role-arn").fill(role_arn)
    section.page.keyboard.press("Enter")
    section.page.wait_for_selector("text=Connected. There is nothing left to do.")


def test_the_stack_is_there_already(administrator: Administrator, section: Section):
    administrator.launch()
    to_do = section.find("stack-name", administrator.launch())
    expect(to_do).to_contain_text(f"Open the stack {administrator.kit['stack_name']}")


def test_a_region_that_is_not_allowed(administrator: Administrator, section: Section):
    elsewhere = {"StringNotEquals": {"aws:RequestedRegion": "eu-west-1"}}
    administrator.govern({"Effect": "Deny", "Action": "cloudformation:*", "Resource": "*", "Condition": elsewhere})
    expect(section.find("region", administrator.launch())).to_contain_text("Choose another region above")


def test_the_page_explains_a_region_that_is_switched_off(
    administrator: Administrator, section: Section, visitor: Visitor, faults
):
    """Nothing of the stack fails; it is our call that AWS refuses."""
    administrator.launch()
    role_arn = f"arn:aws:iam::{administrator.account}:role/{administrator.kit['role_name']}"
    faults.add("region_disabled", role_arn=role_arn)
    visitor.paste(role_arn)
    assert "has switched STS off in the region" in visitor.page().find(id="live").get_text(" ")
    expect(section.find("region", "STS is not activated in this region")).to_contain_text("Security Token Service")


def test_a_stack_that_was_rolled_back_and_why(administrator: Administrator, section: Section):
    administrator.customer.role(administrator.kit["role_name"], administrator.kit["trust_policy"])
    said = administrator.launch()
    assert said.startswith("ROLLBACK_COMPLETE")
    expect(section.find("rolled-back", said)).to_contain_text("Find the lowest line with CREATE_FAILED")
    section.find("role-name", said)  # where the reason leads


def test_the_wrong_account(administrator: Administrator, section: Section, visitor: Visitor):
    """AWS shows nothing: the page shows the account's number."""
    assert administrator.launch().startswith("CREATE_COMPLETE")
    visitor.paste(administrator.account)
    section.page.reload()
    expect(section.page.locator("#status")).to_contain_text(administrator.account)
    section.page.locator("#trouble-account summary").click()
    expect(section.page.locator("#trouble-account p").last).to_contain_text(
        f"Delete the stack {administrator.kit['stack_name']} in the wrong account"
    )


@pytest.mark.parametrize("edited", ["too short", "dpy-" + "0" * 63])
def test_an_external_id_that_was_mistyped(administrator: Administrator, section: Section, edited: str):
    to_do = section.find("edited", administrator.launch(parameters={"ExternalId": edited}))
    expect(to_do).to_contain_text(f"your External ID is {administrator.kit['external_id']}")


def test_an_external_id_that_is_another_ones(administrator: Administrator, section: Section, visitor: Visitor):
    """The stack works, and the role refuses us."""
    assert administrator.launch(parameters={"ExternalId": "dpy-" + "0" * 64}).startswith("CREATE_COMPLETE")
    visitor.paste(administrator.account)
    [made] = visitor.world.admin("GET", f"/v1/tenants/{visitor.tenant['id']}/connections")["items"]
    found = visitor.world.admin("POST", path_of(made, "/diagnose"))
    assert [step["name"] for step in found["steps"] if step["outcome"] == "problem"] == ["role"]
    expect(section.page.locator("#trouble-edited p").nth(1)).to_contain_text("the role may exist but refuses")


@pytest.fixture
def seller(aws, vendor, config, tmp_path) -> Vendor:
    """A vendor whose customers' stacks register themselves."""
    made = Vendor(aws, config.database_url, vendor, tmp_path)
    made.write(made.reads, 1, READS)
    return made


@pytest.mark.parametrize("edited", [lambda token: f"{token[:-1]}.", lambda token: token[:40], lambda _: ""])
def test_an_edited_token(seller: Vendor, browser_page: Page, edited: Callable[[str], str]):
    """Deputy refuses the stack's message, and says so among the stack's events."""
    with seller.release() as (world, app), served(app) as base:
        administrator = Administrator(visit(world, world.tenant()))
        wanted = dict(parse_qsl(urlsplit(administrator.kit["launch_stack_url"]).fragment.partition("?")[2]))
        token = edited(wanted["param_RegistrationToken"])
        assert administrator.launch(parameters={"RegistrationToken": token}).startswith("CREATE_IN_PROGRESS")
        registered(world, app, administrator.customer)
        said = administrator.shown(wanted["stackName"])
        assert said.startswith("ROLLBACK_COMPLETE")
        assert REFUSAL in said
        browser_page.goto(f"{base}{administrator.visitor.path}")
        to_do = Section(browser_page).find("edited", said)
        expect(to_do).to_contain_text("Change nothing under “External ID” and “Registration”")
        expect(to_do).to_contain_text(f"your External ID is {administrator.kit['external_id']}")


def test_a_stack_set_without_trusted_access(administrator: Administrator, section: Section):
    organization._units.clear()
    said = administrator.launch("organization_launch_url", parameters={"OrganizationalUnitIds": "ou-ab12-1a2b3c4d"})
    expect(section.find("trusted-access", said)).to_contain_text("choose “Activate trusted access”")


def test_a_scanners_finding(administrator: Administrator, section: Section):
    """The sandbox has no Access Analyzer."""
    said = f"Access Analyzer: external access to {administrator.kit['role_name']}"
    to_do = section.find("findings", said)
    expect(to_do).to_contain_text(administrator.kit["broker_principal_arn"])
    expect(to_do).to_contain_text(VENDOR)
    expect(section.page.locator("#findings-commands")).to_contain_text(administrator.kit["role_name"])


def test_there_are_twelve_and_none_is_open(section: Section):
    assert section.page.locator("details.trouble").count() == 12
    assert section.page.locator("details.trouble[open]").count() == 0
