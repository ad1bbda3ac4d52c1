"""The onboarding page in a real browser: live updates, tabs, copying, under the strict
Content-Security-Policy.
"""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from app.store.models import ConnectionStatus
from tests.attacks.evidence import on_sqlite
from tests.conftest import in_a_browser
from tests.support.cast import Customer, without_external_id
from tests.support.waiting import until
from tests.web.conftest import Visitor, many

pytestmark = [in_a_browser, on_sqlite]  # a browser sees no difference between databases

# Text with less than 4.5:1 (WCAG AA) on what is behind it, and its ratio.
FAINT = """() => {
  const rgba = (said) => {
    const [r, g, b, a = 1] = said.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = (top, below) => below.map((value, i) => top[i] * top[3] + value * (1 - top[3]));
  const light = (colour) => colour
    .map((value) => value / 255)
    .map((value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => element
    ? over(rgba(getComputedStyle(element).backgroundColor), behind(element.parentElement))
    : [255, 255, 255];
  const shown = [...document.querySelectorAll("input[placeholder]")]
    .map((e) => [e, e.placeholder, "::placeholder"]);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    shown.push([walker.currentNode.parentElement, walker.currentNode.data.trim()]);
  }
  const visible = shown.filter(([element, text]) => text && element.checkVisibility());
  return visible.map(([element, text, part]) => {
    const back = behind(element);
    const front = over(rgba(getComputedStyle(element, part).color), back);
    const [less, more] = [light(front), light(back)].sort((a, b) => a - b);
    return [text, (more + 0.05) / (less + 0.05)];
  }).filter(([, ratio]) => ratio < 4.5);
}"""
# How far the page reaches to the right of the window, and below its own text.
BEYOND = """() => {
  const page = document.documentElement;
  const text = document.querySelector("main");
  return [page.scrollWidth - page.clientWidth, page.scrollHeight - text.offsetHeight];
}"""


def test_the_page_turns_green_by_itself(visitor: Visitor, url: str, browser_page: Page):
    page, kit = browser_page, visitor.world.kit(visitor.tenant)
    customer = Customer(visitor.world.aws)
    page.goto(url)
    page.evaluate("window.sameDocument = true")
    assert page.inner_text("#summary") == "Waiting for your stack."
    arn = customer.role(kit["role_name"], without_external_id(kit["trust_policy"]))
    made = visitor.world.connect(visitor.tenant, arn, status="insecure")
    page.wait_for_selector("#trust-should-be")
    customer.retrust(kit["role_name"], kit["trust_policy"])
    visitor.verify(made)
    page.wait_for_selector("text=Connected. There is nothing left to do.")
    assert page.evaluate("window.sameDocument")


@pytest.fixture
def phone(browser_page: Page) -> Page:
    browser_page.set_viewport_size({"width": 390, "height": 844})
    return browser_page


def y_of(page: Page, selector: str) -> float:
    return page.evaluate(
        "(selector) => document.querySelector(selector).getBoundingClientRect().top + scrollY",
        selector,
    )


def test_on_a_phone_the_status_comes_first_once_there_is_anything_to_tell(
    visitor: Visitor, url: str, phone: Page, monkeypatch
):
    """On a page that is open it moves there. What is looked at does not jump, and what is being
    typed goes on.
    """
    # As in production: nothing refreshes between two looks
    monkeypatch.setattr("app.web.onboarding.pages._STATUS_SECONDS", {False: 3, True: 30})
    phone.goto(url)
    assert y_of(phone, "#status") > y_of(phone, "#ways")
    phone.locator("#role-arn").scroll_into_view_if_needed()
    phone.locator("#role-arn").press_sequentially("arn:aws")
    before = phone.locator("#role-arn").bounding_box()
    visitor.world.connection(visitor.tenant)
    phone.wait_for_selector("text=Connected. There is nothing left to do.")
    assert y_of(phone, "#status") < y_of(phone, "#asked")
    place = phone.locator("#role-arn")
    until(lambda: abs(place.bounding_box()["y"] - before["y"]) <= 1)  # scrolled in the next frame
    phone.keyboard.type(":iam")
    assert phone.input_value("#role-arn") == "arn:aws:iam"
    phone.goto(url)
    assert y_of(phone, "#status") < y_of(phone, "#asked")
    box = phone.locator("#summary").bounding_box()
    assert box["y"] + box["height"] < 844  # without scrolling


def test_keys_act_on_the_main_button_as_on_a_link_and_on_the_tabs(url: str, browser_page: Page):
    """Enter follows a link. Space scrolls the page: a button would be pressed by it."""
    browser_page.goto(url)
    launch = browser_page.locator("a.launch:visible")
    assert launch.get_attribute("role") is None
    launch.focus()
    before = browser_page.evaluate("scrollY")
    browser_page.keyboard.press("Space")
    # Asked from here: a function that the page itself polls would be an eval, which its policy
    # forbids.
    until(lambda: browser_page.evaluate("scrollY") > before)
    assert len(browser_page.context.pages) == 1
    assert browser_page.locator("input[type=radio][autocomplete]").count() == 0
    browser_page.focus("#way-stack")
    for shown in ("#terraform", "#aws-cli"):
        browser_page.keyboard.press("ArrowRight")
        assert browser_page.is_visible(shown)
    assert not browser_page.is_visible("#terraform")


def test_a_search_is_removed_with_a_click_and_an_open_page_turns_into_the_farewell(
    visitor: Visitor, url: str, browser_page: Page
):
    visitor.paste("123456789012")
    browser_page.goto(url)
    browser_page.get_by_role("button", name="Remove").click()
    browser_page.wait_for_selector("text=Waiting for your stack.")
    assert y_of(browser_page, "#status") > y_of(browser_page, "#ways")
    page = browser_page.context.new_page()  # whose console may say that its link has ended
    browser_page.close()
    page.goto(url)
    visitor.world.admin("DELETE", f"/v1/tenants/{visitor.tenant['id']}", expect=204)
    page.wait_for_selector("text=This access has ended")


def test_the_page_is_readable_and_fits_a_small_phone(
    visitor: Visitor, url: str, browser_page: Page
):
    def look(way: str = "stack") -> None:
        for width in (320, 1280):
            browser_page.set_viewport_size({"width": width, "height": 600})
            browser_page.goto(f"{url}?way={way}")
            browser_page.evaluate(
                "document.querySelectorAll('details').forEach((one) => (one.open = true))"
            )
            assert browser_page.evaluate(BEYOND) == [0, 0]
            for scheme in ("light", "dark"):
                browser_page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                assert browser_page.evaluate(FAINT) == [], scheme

    for way in ("stack", "terraform", "cli", "organization"):
        look(way)
    kit = visitor.world.kit(visitor.tenant)
    visitor.paste(
        Customer(visitor.world.aws).role(kit["role_name"], without_external_id(kit["trust_policy"]))
    )
    look()
    for status in set(ConnectionStatus) - {ConnectionStatus.DELETED}:
        many(visitor, status, 5)
    visitor.paste(f"arn:aws:iam::123456789012:role/deputy-{'long-name' * 6}")
    visitor.rotate()
    look()


def test_each_element_that_the_tab_key_reaches_shows_its_focus(
    visitor: Visitor, url: str, browser_page: Page
):
    many(visitor, ConnectionStatus.PENDING, 30)
    browser_page.goto(url)
    reached = []
    while "BODY" not in reached:
        browser_page.keyboard.press("Tab")
        name, ring = browser_page.evaluate("""() => {
          const at = document.activeElement, { outlineStyle, outlineWidth } = getComputedStyle(at);
          return [at.id || at.tagName, `${outlineStyle} ${outlineWidth}`];
        }""")
        reached.append(name)
        # A tab's ring is its label's
        assert ring == "solid 2px" or name in {"way-stack", "BODY"}, name
    expected = ["list-refused", "list-next", "role-arn", "way-stack", "region"]
    assert [name for name in reached if name in expected] == expected


@pytest.fixture
def plain(chromium: Browser) -> Iterator[Page]:
    """A browser without JavaScript."""
    with chromium.new_context(java_script_enabled=False) as context:
        yield context.new_page()


def test_without_javascript_the_tabs_turn_and_the_list_goes_on(
    visitor: Visitor, url: str, plain: Page
):
    listed = many(visitor, count=30)
    plain.goto(url)
    for way, shown in (("terraform", "#terraform"), ("cli", "#aws-cli"), ("stack", "#region")):
        plain.click(f"label[for=way-{way}]")
        assert plain.is_visible(shown)
    assert not plain.is_visible("#copy-external-id")
    plain.select_option("#region", "eu-west-1")
    plain.click("text=Use this region")
    assert plain.is_visible("text=Launch stack in eu-west-1")
    plain.click("#list-next")
    assert plain.locator("tbody code").all_inner_texts() == listed[25:]


def test_what_the_page_shows_of_a_list_stays_when_it_refreshes(
    visitor: Visitor, url: str, browser_page: Page
):
    many(visitor, ConnectionStatus.PENDING, 60)
    browser_page.goto(url)
    browser_page.click("#list-next")
    shown = browser_page.locator("tbody th").all_inner_texts()
    assert len(shown) == 25
    many(visitor, ConnectionStatus.INSECURE, 1)
    browser_page.wait_for_selector("text=1 needs a change")
    assert browser_page.locator("tbody th").all_inner_texts() == shown
