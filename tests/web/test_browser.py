"""The onboarding page in a real browser: live updates, tabs, copying, under the strict
Content-Security-Policy.
"""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from app.store.models import ConnectionStatus
from tests.conftest import in_a_browser
from tests.support.cast import Customer, without_external_id
from tests.support.waiting import until
from tests.web.conftest import many

pytestmark = in_a_browser

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


def y_of(page, selector):
    return page.evaluate(
        "(selector) => document.querySelector(selector).getBoundingClientRect().top + scrollY",
        selector,
    )


def test_an_open_page_on_a_phone_follows_a_connection_until_it_is_green(
    visitor, url, browser_page, monkeypatch
):
    """The status moves to the top. What is looked at does not jump, and typing goes on."""
    # As in production: nothing refreshes between two looks
    monkeypatch.setattr("app.web.onboarding.page_data._STATUS_SECONDS", {False: 3, True: 30})
    page, kit = browser_page, visitor.world.kit(visitor.tenant)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(url)
    page.evaluate("window.sameDocument = true")
    assert page.inner_text("#summary") == "Waiting for your stack."
    assert y_of(page, "#status") > y_of(page, "#ways")
    field = page.locator("#role-arn")
    field.scroll_into_view_if_needed()
    field.press_sequentially("arn:aws")
    before = field.bounding_box()
    customer = Customer(visitor.world.aws)
    arn = customer.role(kit["role_name"], without_external_id(kit["trust_policy"]))
    made = visitor.world.connect(visitor.tenant, arn, status="insecure")
    page.wait_for_selector("#trust-should-be")
    assert y_of(page, "#status") < y_of(page, "#asked")
    until(lambda: abs(field.bounding_box()["y"] - before["y"]) <= 1)  # scrolled in the next frame
    page.keyboard.type(":iam")
    assert page.input_value("#role-arn") == "arn:aws:iam"
    assert "another" not in page.inner_text("a.launch")
    customer.retrust(kit["role_name"], kit["trust_policy"])
    visitor.verify(made)
    page.wait_for_selector("text=Connected. There is nothing left to do.")
    assert page.evaluate("window.sameDocument")
    assert "Launch stack in us-east-1 for another account" in page.inner_text("a.launch")
    page.goto(url)
    assert y_of(page, "#status") < y_of(page, "#asked")
    box = page.locator("#summary").bounding_box()
    assert box["y"] + box["height"] < 844  # without scrolling


def test_keys_reach_and_do_everything_and_a_list_stays_when_it_refreshes(
    visitor, url, browser_page
):
    """Enter follows a link. Space scrolls the page: a button would be pressed by it."""
    page = browser_page
    many(visitor, ConnectionStatus.PENDING, 60)
    page.goto(url)
    reached = []
    while "BODY" not in reached:
        page.keyboard.press("Tab")
        name, ring = page.evaluate("""() => {
          const at = document.activeElement, { outlineStyle, outlineWidth } = getComputedStyle(at);
          return [at.id || at.tagName, `${outlineStyle} ${outlineWidth}`];
        }""")
        reached.append(name)
        # A tab's ring is its label's
        assert ring == "solid 2px" or name in {"way-stack", "BODY"}, name
    expected = ["list-refused", "list-next", "role-arn", "way-stack", "region"]
    assert [name for name in reached if name in expected] == expected
    launch = page.locator("a.launch:visible")
    assert launch.get_attribute("role") is None
    launch.focus()
    before = page.evaluate("scrollY")
    page.keyboard.press("Space")
    # Asked from here: a function that the page itself polls would be an eval, which its policy
    # forbids.
    until(lambda: page.evaluate("scrollY") > before)
    assert len(page.context.pages) == 1
    assert page.locator("input[type=radio][autocomplete]").count() == 0
    page.focus("#way-stack")
    for shown in ("#terraform", "#aws-cli"):
        page.keyboard.press("ArrowRight")
        assert page.is_visible(shown)
    assert not page.is_visible("#terraform")
    with page.expect_navigation():
        page.click("#list-next")
    rows = page.locator("tbody th").all_inner_texts()
    assert len(rows) == 25
    many(visitor, ConnectionStatus.INSECURE, 1)
    page.wait_for_selector("text=1 needs a change")
    assert page.locator("tbody th").all_inner_texts() == rows


def test_what_was_opened_stays_open_and_focused_when_the_page_refreshes(visitor, url, browser_page):
    made = visitor.world.proven(visitor.tenant)
    visitor.rotate()
    browser_page.goto(url)
    by_hand = browser_page.locator("#rotation details").last
    by_hand.locator("summary").click()
    checked = browser_page.locator("#live .actions small")
    before = checked.inner_text()
    until(lambda: visitor.verify(made) and checked.inner_text() != before)
    until(lambda: by_hand.get_attribute("open") is not None)  # a moment after the change
    assert by_hand.locator("summary").evaluate("(line) => line === document.activeElement")


def test_a_search_is_removed_with_a_click_and_an_open_page_turns_into_the_farewell(
    visitor, url, browser_page
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


def test_the_page_is_readable_and_fits_a_small_phone(visitor, url, browser_page):
    def look(way="stack"):
        browser_page.goto(f"{url}?way={way}")
        browser_page.evaluate(
            "document.querySelectorAll('details').forEach((one) => (one.open = true))"
        )
        for width in (320, 1280):
            browser_page.set_viewport_size({"width": width, "height": 600})
            assert browser_page.evaluate(BEYOND) == [0, 0]
            for scheme in ("light", "dark"):
                browser_page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                assert browser_page.evaluate(FAINT) == [], scheme

    for way in ("stack", "terraform", "cli", "organization"):
        look(way)
    visitor.paste_insecure()
    look()
    for status in set(ConnectionStatus) - {ConnectionStatus.DELETED}:
        many(visitor, status, 5)
    visitor.paste(f"arn:aws:iam::123456789012:role/deputy-{'long-name' * 6}")
    visitor.rotate()
    look()


@pytest.fixture
def plain(chromium) -> Iterator[Page]:
    """A browser without JavaScript."""
    with chromium.new_context(java_script_enabled=False) as context:
        yield context.new_page()


def test_without_javascript_the_tabs_turn_and_the_list_goes_on(visitor, url, plain):
    listed = many(visitor, count=30)
    plain.goto(url)
    for way, shown in (("terraform", "#terraform"), ("cli", "#aws-cli"), ("stack", "#region")):
        plain.click(f"label[for=way-{way}]")
        assert plain.is_visible(shown)
    assert not plain.is_visible("#copy-external-id")
    plain.select_option("#region", "eu-west-1")
    plain.click("text=Use this region")
    expect(plain.get_by_text("Launch stack in eu-west-1")).to_be_visible()
    plain.click("#list-next")
    expect(plain.locator("tbody code")).to_have_text(listed[25:])
