"""The console from a launch link to a deleted stack, over the sandbox. What people do in it with a
browser is in tests/dev/test_click_through.py.
"""

import re
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import pytest
from werkzeug.test import Client

from sandbox.console.app import console_app

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


def test_the_console_refuses_what_its_own_page_would_not_send(console, upload, name):
    url = upload(CUSTOMER_ROLE)
    for change, message in (
        ({"account": "12"}, "12 digits"),
        ({"account": "44445555666\N{ARABIC-INDIC DIGIT SIX}"}, "12 digits"),
        ({"region": "nowhere"}, "no AWS region"),
        ({"stack_name": "9lives"}, "Value '9lives' at 'stackName' failed to satisfy constraint"),
        ({"parameters": {"ExternalId": 3}}, "ExternalId"),
        ({"capabilities": ["CAPABILITY_EVERYTHING"]}, "capabilities"),
        ({"surprise": "x"}, "Unknown field"),
    ):
        refused = console.post(STACKS, json=launch(url, name, **change))
        assert refused.status_code == 400
        assert message in refused.json["message"]


@pytest.mark.parametrize("call", [Client.post, Client.put, Client.delete])
def test_a_form_of_another_page_can_do_nothing(console, call):
    assert call(console, STACKS, data={"account": ACME}).status_code == 415


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
