"""A role that is to be updated, as its administrator clicks through it: a newer version, then a
set that writes.
"""

from collections.abc import Iterator

import pytest
from flask import Flask
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.attacks.evidence import on_sqlite
from tests.conftest import in_a_browser
from tests.support.cast import Customer, World, path_of
from tests.support.versions import MORE, READS, WRITES, Vendor, registered
from tests.support.waiting import until
from tests.web.conftest import served

DONE = "Connected. There is nothing left to do."
pytestmark = [in_a_browser, on_sqlite]  # a browser sees no difference between databases


@pytest.fixture
def browser(chromium: Browser) -> Iterator[BrowserContext]:
    with chromium.new_context() as context:
        yield context


def update_as_the_page_says(page: Page, browser: BrowserContext) -> None:
    """In the console of AWS: the stack, the template that the page names, "Update stack"."""
    asked = page.locator("#set-update-1")
    template = asked.locator("#set-update-1-template").inner_text()
    with browser.expect_page() as opened:
        asked.get_by_role("link", name="your stack").first.click()
    console = opened.value
    name = asked.get_by_role("link", name="your stack").first.inner_text().split()[2]
    console.get_by_role("link", name=name, exact=True).click()
    console.get_by_role("link", name="Update stack").click()
    console.fill("#template-url", template)
    console.get_by_role("button", name="Use this template").click()
    for block in asked.locator("code[id^=set-update-1-]:visible").all():
        parameter = console.locator(
            f"#param-{block.get_attribute('id').removeprefix('set-update-1-')}"
        )
        if parameter.count():
            parameter.fill(block.inner_text())
    console.check("#acknowledge")
    console.get_by_role("button", name="Update stack").click()
    console.wait_for_url("**/cloudformation/stack?**")
    console.close()
    page.bring_to_front()


def launch_from_the_page(page: Page, browser: BrowserContext, account: str) -> None:
    with browser.expect_page() as opened:
        page.get_by_role("link", name="Launch stack in").click()
    console = opened.value
    console.select_option("#account", "")
    console.fill("#other-account", account)
    console.check("#acknowledge")
    console.get_by_role("button", name="Create stack").click()
    console.wait_for_url("**/cloudformation/stack?**")
    console.close()


def test_an_update_and_a_move_are_clicked_through(
    aws, vendor, config, tmp_path, browser: BrowserContext
):
    seller, customer = Vendor(aws, config.database_url, vendor, tmp_path), Customer(aws)
    seller.write(seller.reads, 1, READS)
    seller.write(seller.writes, 1, READS, WRITES, access="write", title="Repair")
    with seller.release() as (world, app), served(app) as url:
        tenant = world.tenant()
        link = world.admin("POST", f"/v1/tenants/{tenant['id']}/onboarding-links", {}, expect=201)
        path = f"/onboard/{link['url'].rpartition('/')[2]}"
        page = browser.new_page()
        page.goto(f"{url}{path}")
        launch_from_the_page(page, browser, customer.account)
        made = connected(world, app, customer, tenant)
        expect(page.locator("#summary")).to_have_text(DONE)
        page.close()
    seller.write(seller.reads, 2, READS, MORE)
    with seller.release() as (world, app), served(app) as url:
        page = browser.new_page()
        page.goto(f"{url}{path}")
        a_newer_version(page)
        update_as_the_page_says(page, browser)
        registered(world, app, customer)
        expect(page.locator("#summary")).to_have_text(DONE)
        assert world.admin("GET", path_of(made))["permission_set_version"] == 2
        own = world.key("connections:write", tenant=tenant)
        own("PATCH", path_of(made), {"permission_set": seller.writes})
        page.reload()
        a_set_that_writes(page)
        update_as_the_page_says(page, browser)
        registered(world, app, customer)
        expect(page.locator("#set-update-1")).to_contain_text("Example Vendor must approve them")
        waiting = world.admin("GET", path_of(made))
        assert (waiting["permission_set"], waiting["awaiting_approval"], waiting["issues"]) == (
            seller.reads,
            True,
            True,
        )
        world.admin("POST", path_of(made, "/approve"), {})
        expect(page.locator("#summary")).to_have_text(DONE)
        after = world.admin("GET", path_of(made))
        assert (after["permission_set"], after["status"], after["role_arn"]) == (
            seller.writes,
            "verified",
            made["role_arn"],
        )


def a_newer_version(page: Page) -> None:
    expect(page.locator("#summary")).to_have_text(
        "Connected. Other permissions are asked for: see below."
    )
    asked = page.locator("#set-update-1")
    expect(asked).to_contain_text("The permissions that Example Vendor asks for have changed")
    expect(asked.locator(".difference")).to_contain_text("May use s3:GetBucketTagging.")
    expect(asked.locator(".difference")).to_contain_text(
        "Adds the statement Tags: Shows their tags. It allows s3:GetBucketTagging on *."
    )


def a_set_that_writes(page: Page) -> None:
    asked = page.locator("#set-update-1")
    expect(asked).to_contain_text("asks for other permissions: Repair")
    expect(asked).to_contain_text("After the update, Example Vendor must approve it")
    expect(asked.locator(".difference")).to_contain_text(
        "Adds the statement Write: Keeps old versions."
    )


def connected(world: World, app: Flask, customer: Customer, tenant):
    registered(world, app, customer)
    [made] = until(lambda: world.admin("GET", f"/v1/tenants/{tenant['id']}/connections")["items"])
    made = world.admin("POST", path_of(made, "/verify"))
    assert (made["status"], made["permission_set_version"]) == ("verified", 1)
    return made
