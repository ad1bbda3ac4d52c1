"""The whole of it, as a customer's administrator clicks through it: `make run`, a real browser, the
sandbox's console.

Link → page → launch → "Create stack" → back on the page, which says "connected" without being
loaded again. Then the same with a role whose trust policy lacks the condition: the page's advice,
followed to the letter, turns it green.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from app.store.database import Database
from tests.conftest import in_a_browser
from tests.dev.make_run import call, database_url_of
from tests.support.rotations import PassingMinutes
from tests.support.waiting import until

pytestmark = in_a_browser


@pytest.fixture
def browser(chromium) -> Iterator[BrowserContext]:
    with chromium.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        yield context


def page_of_a_new_tenant(run, browser, name):
    tenant = call(run, run.admin_key, "POST", "/v1/tenants", {"name": name}, expect=201)
    link = call(
        run, run.admin_key, "POST", f"/v1/tenants/{tenant['id']}/onboarding-links", {}, expect=201
    )
    page = browser.new_page()
    page.goto(link["url"])
    page.evaluate("window.sameDocument = true")
    expect(page.locator("#summary")).to_have_text("Waiting for your stack.")
    return page


def launch(page, browser, account):
    """Follow the launch link to the console, as that account; the form of the stack, filled in."""
    with browser.expect_page() as opened:
        page.get_by_role("link", name=re.compile("^Launch stack in")).click()
    console = opened.value
    console.select_option("#account", account)
    console.check("#acknowledge")
    return console


def assert_connected(page):
    expect(page.locator("#summary")).to_contain_text("Connected", timeout=60_000)
    assert page.evaluate("window.sameDocument"), "it was loaded again"


def test_a_mistake_is_explained_and_mended_by_following_the_advice(run, browser):
    page = page_of_a_new_tenant(run, browser, "Initech")
    console = launch(page, browser, "444455556666")
    console.check("#without-external-id")
    console.get_by_role("button", name="Create stack").click()
    expect(console.get_by_role("status").first).to_contain_text("CREATE_COMPLETE")
    page.bring_to_front()
    expect(page.locator(".advice")).to_contain_text(
        "The role can be used without your External ID.", timeout=60_000
    )
    page.locator(".advice").get_by_role("button", name="Copy").first.click()
    policy = page.evaluate("navigator.clipboard.readText()")
    assert policy == page.locator("#trust-should-be").inner_text()
    console.bring_to_front()
    console.fill("textarea[name=policy]", policy)
    console.get_by_role("button", name="Save trust policy").click()
    expect(console.locator("[data-saved]")).not_to_be_empty()
    page.bring_to_front()
    page.evaluate("window.sameDocument = true")
    assert_connected(page)
    assert run.process.poll() is None
    said = Path(run.data / "web.log").read_text() + Path(run.data / "worker.log").read_text()
    assert page.url.rpartition("/")[2].split("#")[0] not in said, "the token is in a log"


@pytest.fixture
def minutes_pass(run) -> Iterator[PassingMinutes]:
    database = Database(database_url_of(run.data))
    yield PassingMinutes(database)
    database.engine.dispose()


def update_as_the_page_says(page, browser):
    """From the page to the console and to the stack, with each value that the page names."""
    rotation = page.locator("#rotation")
    values = {
        block.get_attribute("id").removeprefix("update-"): block.inner_text()
        for block in rotation.locator("code[id^=update-]:visible").all()
    }
    values |= dict.fromkeys(re.findall(r"(\w+): empty", rotation.inner_text()), "")
    with browser.expect_page() as opened:
        rotation.get_by_role("link", name=re.compile("^your stack")).first.click()
    console = opened.value
    console.get_by_role(
        "link", name=re.search(r"your stack (\S+)", rotation.inner_text())[1], exact=True
    ).click()
    console.get_by_role("link", name="Update stack").click()
    for name in ("ExternalId", "NextExternalId", "RegistrationToken"):
        console.fill(f"#param-{name}", values[name])
    console.check("#acknowledge")
    console.get_by_role("button", name="Update stack").click()
    expect(console.get_by_role("status").first).to_contain_text("UPDATE_COMPLETE", timeout=60_000)
    console.close()
    page.bring_to_front()


def test_a_stack_launched_from_the_page_turns_it_green_and_is_walked_through_a_rotation(
    run, browser, minutes_pass
):
    page = page_of_a_new_tenant(run, browser, "Hooli")
    console = launch(page, browser, "777788889999")
    console.get_by_role("button", name="Create stack").click()
    expect(console.get_by_role("status").first).to_contain_text("CREATE_COMPLETE")
    page.bring_to_front()
    assert_connected(page)
    [tenant] = call(run, run.admin_key, "GET", "/v1/tenants?name=Hooli")["items"]
    path = f"/v1/tenants/{tenant['id']}/external-id/rotation"
    begun = call(run, run.admin_key, "POST", path, {"reason": "it is old"}, expect=201)
    page.reload()  # a page that has nothing to wait for looks rarely
    page.evaluate("window.sameDocument = true")
    summary = page.locator("#summary")
    expect(summary).to_contain_text("being replaced: update your role", timeout=60_000)
    expect(page.locator("#new-external-id")).to_have_text(begun["next_external_id"])
    update_as_the_page_says(page, browser)

    def accepted():
        minutes_pass()
        return "every connected role accepts the new one" in summary.inner_text()

    until(accepted, "the page says so", seconds=60)
    connections = call(run, run.admin_key, "GET", f"/v1/tenants/{tenant['id']}/connections")
    [connection] = connections["items"]
    assert connection["external_id"] == begun["next_external_id"]
    assert connection["issues"] is True
    call(run, run.admin_key, "POST", f"{path}/complete")
    expect(summary).to_contain_text("remove the old one from your role", timeout=60_000)
    update_as_the_page_says(page, browser)
    until(
        lambda: minutes_pass() or call(run, run.admin_key, "GET", path)["state"] == "retired",
        seconds=60,
    )
    expect(summary).to_have_text("Connected. There is nothing left to do.", timeout=60_000)
    expect(page.locator("#rotation")).to_have_count(0)
    assert page.evaluate("window.sameDocument"), "it was loaded again"


def test_a_whole_organization_is_connected_from_the_page(run, browser):
    page = page_of_a_new_tenant(run, browser, "Acme's organization")
    page.locator("label[for=way-organization]").click()
    with browser.expect_page() as opened:
        page.locator(".way.organization a.launch").click()
    console = opened.value
    assert console.input_value("#account") == "444455556666", "whose organization it is"
    field = console.locator("#param-OrganizationalUnitIds")
    unit = console.get_by_role("button", name=re.compile("^Production"))
    development = console.get_by_role("button", name=re.compile("^Development"))
    for button in (unit, development):
        button.click()
    expect(field).to_have_value("ou-acme-production,ou-acme-development")
    assert field.evaluate("one => one.checkValidity()")
    development.click()
    expect(field).to_have_value("ou-acme-production")
    console.check("#acknowledge")
    console.get_by_role("button", name="Create stack").click()
    expect(console.get_by_role("status").first).to_contain_text("CREATE_COMPLETE", timeout=60_000)
    page.bring_to_front()
    for account in ("444455556666", "444400000001", "444400000002"):
        expect(page.locator("#live")).to_contain_text(account, timeout=60_000)
    expect(page.locator("#summary")).to_contain_text("3 roles are connected", timeout=60_000)
    assert "444400000003" not in page.content(), "of the unit that was taken out again"
