"""The console from a launch link to a deleted stack, over the sandbox."""

import json
import re
import shutil
import subprocess
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from werkzeug.test import Client

from sandbox.console import console_app
from sandbox.organization import organization
from sandbox.vendor import ORGANIZATION

CUSTOMER_ROLE = (Path(__file__).parents[2] / "cloudformation" / "customer-role.yaml").read_text()
CUSTOMER_ORG = (Path(__file__).parents[2] / "cloudformation" / "customer-org.yaml").read_text()
EXTERNAL_ID = "dpy-" + "0f" * 32
VENDOR = "999900001111"
ACME, GLOBEX, STRANGER = "444455556666", "777788889999", "123123123123"

QUICK_CREATE = "/console/cloudformation/quick-create"
STACKS = "/console/api/stacks"

TWO_PARAMETERS = """
Description: A topic <script>alert(1)</script>
Parameters:
  Colour: {Type: String, Default: red, AllowedValues: [red, blue]}
  Secret: {Type: String, NoEcho: true, Default: hidden}
Resources: {Topic: {Type: AWS::SNS::Topic}}
"""


def launch(url, name, **changes):
    return {
        "account": ACME,
        "region": "us-east-1",
        "template_url": url,
        "stack_name": name,
        "parameters": {
            "ExternalId": EXTERNAL_ID,
            "RoleName": name,
            "RegistrationTopicArn": "",
            "RegistrationToken": "",
        },
        "capabilities": ["CAPABILITY_NAMED_IAM"],
    } | changes


def has_role(aws, account, name):
    with closing(aws.client("iam", account)) as iam:
        return name in {role["RoleName"] for role in iam.list_roles()["Roles"]}


def quick_create(browser, **query):
    return browser.get(QUICK_CREATE, query_string=query)


# The quick-create page.


def test_the_console_shows_the_template_and_what_the_link_fills_in(console, upload):
    url = upload(CUSTOMER_ROLE)
    page = quick_create(
        console,
        templateURL=url,
        stackName="deputy-acme",
        region="eu-west-1",
        param_ExternalId=EXTERNAL_ID,
        param_RoleName="deputy-0f0f0f0f",
    )

    assert page.status_code == 200
    assert 'value="deputy-acme"' in page.text
    assert f'value="{EXTERNAL_ID}"' in page.text
    assert 'value="deputy-0f0f0f0f"' in page.text
    assert "Gives Example Vendor access to this account" in page.text
    assert "# permissions: begin" in page.text
    assert url in page.text
    assert "eu-west-1" in page.text
    assert "might create IAM resources with custom names" in page.text
    assert re.search(r'type="submit" disabled>Create stack', page.text)


def test_the_console_ignores_unknown_and_no_echo_parameters_of_a_link(console, upload):
    page = quick_create(
        console,
        templateURL=upload(TWO_PARAMETERS),
        param_Nonsense="zzz",
        param_Secret="sss",
        param_colour="zzz",
    )

    assert "zzz" not in page.text
    assert "sss" not in page.text
    assert "<option selected>red</option>" in page.text
    assert 'type="password"' in page.text


def test_a_templates_text_stays_text(console, upload):
    page = quick_create(
        console, templateURL=upload(TWO_PARAMETERS), stackName='"><script>x</script>'
    )
    assert "<script>" not in page.text
    assert page.headers["Content-Security-Policy"].startswith(
        "default-src 'none'; script-src 'self';"
    )


def test_the_console_sees_no_template_that_was_not_published(console, upload):
    page = quick_create(console, templateURL=upload(CUSTOMER_ROLE, folder="drafts"))
    assert page.status_code == 400
    assert "S3 error: Access Denied" in page.text


def test_pages_are_labelled_and_carry_no_code_of_their_own(console, upload):
    query = urlencode({"templateURL": upload(CUSTOMER_ROLE)})
    for path in (
        "/console/",
        "/console/cloudformation/home",
        f"{QUICK_CREATE}?{query}",
        QUICK_CREATE,
    ):
        text = console.get(path).text
        assert "Sandbox — not AWS." in text
        assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", text)
        assert set(re.findall(r'(?:src|href)="(https?:|//)', text)) == set()


# Creating, watching and deleting a stack.


def test_the_console_creates_the_stack_in_the_chosen_account_and_no_other(
    aws, console, upload, name
):
    created = console.post(STACKS, json=launch(upload(CUSTOMER_ROLE), name, account=GLOBEX))

    assert created.status_code == 201
    assert f":{GLOBEX}:stack/{name}/" in created.json["stack_id"]
    assert has_role(aws, GLOBEX, name)
    assert not has_role(aws, ACME, name)

    page = console.get(created.json["url"])
    assert page.status_code == 200
    assert "CREATE_COMPLETE" in page.text
    assert 'data-busy="false"' in page.text
    assert f"arn:aws:iam::{GLOBEX}:role/{name}" in page.text
    assert 'data-copy="output-RoleArn"' in page.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"account": "12"}, "12 digits"),
        ({"account": "44445555666\N{ARABIC-INDIC DIGIT SIX}"}, "12 digits"),
        ({"account": ACME + "\n"}, "12 digits"),
        ({"region": "nowhere"}, "no AWS region"),
        ({"stack_name": "9lives"}, "Value '9lives' at 'stackName' failed to satisfy constraint"),
        ({"parameters": {"ExternalId": 3}}, "ExternalId"),
        ({"capabilities": ["CAPABILITY_EVERYTHING"]}, "capabilities"),
        ({"surprise": "x"}, "Unknown field"),
    ],
)
def test_the_console_refuses_what_its_own_page_would_not_send(
    console, upload, name, change, message
):
    refused = console.post(STACKS, json=launch(upload(CUSTOMER_ROLE), name, **change))

    assert refused.status_code == 400
    assert message in refused.json["message"]


@pytest.mark.parametrize("call", [Client.post, Client.put, Client.delete])
def test_a_form_of_another_page_can_do_nothing(console, call):
    assert call(console, STACKS, data={"account": ACME}).status_code == 415


# Changing a stack, and who its role trusts.


@pytest.fixture
def made_stack(console, upload, name):
    """The address of a stack's page, and how the API names the stack."""
    created = console.post(STACKS, json=launch(upload(CUSTOMER_ROLE), name)).json
    return created["url"], {"account": ACME, "region": "us-east-1", "stack": created["stack_id"]}


def update(browser, stack, **changes):
    return browser.put(
        STACKS, json=stack | {"parameters": {}, "capabilities": ["CAPABILITY_NAMED_IAM"]} | changes
    )


def trust(aws, role_name):
    with closing(aws.client("iam", ACME)) as iam:
        return iam.get_role(RoleName=role_name)["Role"]["AssumeRolePolicyDocument"]


def test_a_stacks_parameters_can_be_changed(aws, console, made_stack, name):
    page, stack = made_stack
    assert "Update stack</a>" in console.get(page).text
    form = console.get("/console/cloudformation/update", query_string=stack)
    assert form.status_code == 200
    assert f'value="{EXTERNAL_ID}"' in form.text
    other = "dpy-" + "1e" * 32
    answer = update(console, stack, parameters={"ExternalId": other})
    assert answer.status_code == 202
    assert "UPDATE_COMPLETE" in console.get(answer.json["url"]).text
    condition = trust(aws, name)["Statement"][0]["Condition"]
    assert condition["StringEquals"] == {"sts:ExternalId": other}


def test_a_roles_trust_policy_can_be_edited(aws, console, made_stack, name):
    page = console.get(made_stack[0]).text
    assert "Trust policy" in page
    assert "sts:ExternalId" in page
    policy = trust(aws, name)
    policy["Statement"][0].pop("Condition")
    asked = {
        "account": ACME,
        "region": "us-east-1",
        "role_name": name,
        "policy": json.dumps(policy),
    }
    assert console.put("/console/api/trust-policy", json=asked).status_code == 200
    assert trust(aws, name) == policy
    refused = console.put("/console/api/trust-policy", json=asked | {"policy": "{"})
    assert (refused.status_code, refused.json["code"]) == (400, "MalformedPolicyDocument")
    assert trust(aws, name) == policy


def test_the_mistake_can_be_made(aws, console, upload, name):
    url = upload(CUSTOMER_ROLE)
    assert "Make the mistake" in quick_create(console, templateURL=url).text
    assert "Make the mistake" not in quick_create(console, templateURL=upload(TWO_PARAMETERS)).text
    url = upload(CUSTOMER_ROLE)
    assert console.post(STACKS, json=launch(url, name, without_external_id=True)).status_code == 201
    [statement] = trust(aws, name)["Statement"]
    assert list(statement["Condition"]) == ["ArnEquals"]


def test_a_busy_stack_is_followed_without_scripts_too(aws, console, upload, name):
    template_account = (  # whose topics the template takes, as it lies in the repository
        "111122223333"
    )
    with closing(aws.client("sns", template_account)) as sns:
        topic = sns.create_topic(Name=name)["TopicArn"]
    asked = launch(upload(CUSTOMER_ROLE), name)
    asked["parameters"]["RegistrationTopicArn"] = topic
    page = console.get(console.post(STACKS, json=asked).json["url"]).text
    assert 'data-busy="true"' in page
    assert '<noscript><meta http-equiv="refresh" content="2"></noscript>' in page
    assert "Registration<br>" in page
    assert "Update stack</a>" not in page
    assert "Trust policy" not in page
    assert "Delete stack</button>" in page


def test_the_index_lists_stacks_and_they_can_be_deleted(aws, console, upload, name):
    created = console.post(STACKS, json=launch(upload(CUSTOMER_ROLE), name)).json
    assert f">{name}</a>" in console.get("/console/").text

    gone = console.delete(
        STACKS, json={"account": ACME, "region": "us-east-1", "stack": created["stack_id"]}
    )

    assert gone.status_code == 202
    assert f">{name}</a>" not in console.get("/console/").text
    assert "DELETE_COMPLETE" in console.get(created["url"]).text
    assert not has_role(aws, ACME, name)


def test_a_sandbox_that_is_gone_is_said_to_be_gone():
    browser = Client(console_app(lambda: "http://localhost:1"))
    page = browser.get("/console/")
    assert page.status_code == 502
    assert "SandboxUnavailable" in page.text


# The organization.


@pytest.fixture
def organized():
    organization.change(ORGANIZATION)
    yield
    organization.clear()


def test_the_units_are_offered_where_a_template_asks_for_them(console, upload, organized):
    page = quick_create(console, templateURL=upload(CUSTOMER_ORG))
    assert re.findall(r'data-unit="([^"]+)"', page.text) == list(ORGANIZATION["ous"])
    assert "Production" in page.text
    assert "ou-acme-production, 2 accounts" in page.text
    assert "data-unit" not in quick_create(console, templateURL=upload(CUSTOMER_ROLE)).text


# How it is reached.


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium")
def test_a_browser_opens_the_launch_link(aws, upload, tmp_path):
    """What stands after the # is read by the page's script, so only a browser can show that it
    is.
    """
    link = (
        f"{aws.url}/console/cloudformation/home?region=eu-west-1#/stacks/create/review"
        f"?templateURL={quote(upload(CUSTOMER_ROLE), safe='')}&stackName=deputy-acme"
        f"&param_ExternalId={EXTERNAL_ID}&param_RoleName={quote('deputy+x', safe='')}"
    )
    dom = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--no-first-run", f"--user-data-dir={tmp_path}", "--virtual-time-budget=5000",
         "--dump-dom", link],
        capture_output=True, check=True, text=True, timeout=60,
    ).stdout  # fmt: skip

    assert 'value="deputy-acme"' in dom
    assert f'value="{EXTERNAL_ID}"' in dom
    assert 'value="deputy+x"' in dom
    assert 'data-region="eu-west-1"' in dom
