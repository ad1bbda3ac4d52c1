"""The onboarding page in a real browser: live updates, tabs, copying, under the strict Content-Security-Policy."""

import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright
from werkzeug.serving import make_server

from tests.cast import Customer, without_external_id
from tests.conftest import CHROMIUM, in_a_browser
from tests.web.conftest import Visitor

pytestmark = in_a_browser


@pytest.fixture
def url(visitor: Visitor) -> Iterator[str]:
    """The visitor's page, served to browsers."""
    server = make_server("127.0.0.1", 0, visitor.world.admin.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}{visitor.path}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def browser_page() -> Iterator[Page]:
    """A browser that fails the test when the page's own policy, or a script of its own, is in its way."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        yield page
        browser.close()
    assert said == []


def test_the_page_turns_green_by_itself(visitor: Visitor, url: str, browser_page: Page):
    page, kit, customer = browser_page, visitor.world.kit(visitor.tenant), Customer(visitor.world.aws)
    page.goto(url)
    page.evaluate("window.sameDocument = true")
    assert page.inner_text("#summary") == "Waiting for your stack."
    arn = customer.role(kit["role_name"], without_external_id(kit["trust_policy"]))
    made = visitor.world.connect(visitor.tenant, arn, status="insecure")
    page.wait_for_selector("#trust-should-be")
    customer.retrust(kit["role_name"], kit["trust_policy"])
    visitor.world.admin("POST", f"/v1/tenants/{visitor.tenant['id']}/connections/{made['id']}/verify")
    page.wait_for_selector("text=Connected. There is nothing left to do.")
    assert page.evaluate("window.sameDocument")


def test_the_tabs_work_with_the_arrow_keys(url: str, browser_page: Page):
    browser_page.goto(url)
    browser_page.focus("#way-stack")
    for shown in ("#terraform", "#aws-cli"):
        browser_page.keyboard.press("ArrowRight")
        assert browser_page.is_visible(shown)
    assert not browser_page.is_visible("#terraform")
