"""The vendor's look on every page, and the way back to the vendor's product."""

import re

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Page

from app.settings.return_urls import return_urls
from app.settings.vendor_look import Logo
from app.store.models import ConnectionStatus
from tests.client.people import served
from tests.conftest import in_a_browser
from tests.support.png import png
from tests.web.conftest import many, visit
from tests.web.test_browser import BEYOND, FAINT
from tests.web.test_page_texts import offboarded

WIDE = Logo(png(640, 80, pixel=lambda x, _: (11, 61, 145 + x // 8)), 640, 80)
SQUARE = Logo(png(120, 120, pixel=lambda x, y: (232, 89, 12) if x > y else (60, 20, 0)), 120, 120)
BLUE = {
    "vendor_name": "Meridian Ledger",
    "vendor_logo": WIDE,
    "vendor_color": "#3366cc",
    "vendor_url": "https://app.meridian.example",
    "support_url": "https://meridian.example/support",
    "privacy_url": "https://meridian.example/privacy",
}
ORANGE = {"vendor_name": "Ember", "vendor_logo": SQUARE, "vendor_color": "#e8590c"}
RETURN = "https://app.meridian.example/aws/connected?from=page"


def pages_of(visitor):
    """Every kind of page, as it is answered."""
    yield 200, visitor.raw()
    yield 403, visitor.raw("/connections", "POST", headers={"Sec-Fetch-Site": "cross-site"})
    yield 404, visitor.world.admin.with_key(None).raw("GET", f"/onboard/{'x' * 43}")
    yield 404, visitor.world.admin.with_key(None).raw("GET", "/onboard/look/absent.png")
    offboarded(visitor)
    yield 410, visitor.raw()


def test_every_page_has_the_vendors_look(visiting):
    visitor = visiting(**BLUE)
    for status, answer in pages_of(visitor):
        assert answer.status_code == status
        page = BeautifulSoup(answer.text, "html.parser")
        picture = page.select_one(".logo img")
        assert (picture["alt"], picture["width"], picture["height"]) == (
            "Meridian Ledger",
            "640",
            "80",
        )
        sheet = page.select("link[rel=stylesheet]")[-1]["href"]
        icon = page.select_one("link[rel=icon]")["href"]
        sites = {link.text: link["href"] for link in page.select("footer .sites a")}
        assert sites == {
            "Support": "https://meridian.example/support",
            "Privacy": "https://meridian.example/privacy",
            "Meridian Ledger": "https://app.meridian.example",
        }
        assert {tuple(a["rel"]) for a in page.select("footer a")} == {("noopener", "noreferrer")}
        client = visitor.world.admin.with_key(None)
        with client.raw("GET", picture["src"]) as file:
            assert (file.data, file.content_type) == (WIDE.content, "image/png")
            assert file.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert file.headers["X-Content-Type-Options"] == "nosniff"
        with client.raw("GET", icon) as file:
            assert "fill='#3366cc'" in file.text
            assert file.content_type.startswith("image/svg+xml")
        with client.raw("GET", sheet) as file:
            assert "--pico-primary-background: #3366cc;" in file.text
            assert file.content_type == "text/css; charset=utf-8"


def test_the_files_of_the_look_are_named_by_their_content(visiting):
    def names(**settings):
        page = visiting(**settings).page()
        return [page.select_one(".logo img")["src"], page.select("link")[-1]["href"]]

    blue, orange = names(**BLUE), names(**ORANGE)
    assert blue == names(**BLUE | {"vendor_name": "Another"})
    assert not {*blue} & {*orange}
    for name in (*blue, *orange):
        assert re.search(r"/onboard/look/[0-9a-f]{32}\.(png|css)$", name)


def test_a_vendor_without_logo_and_colour_is_named_on_every_page(visitor):
    for _, answer in pages_of(visitor):
        page = BeautifulSoup(answer.text, "html.parser")
        assert page.select_one(".who").text.startswith("Example Vendor")
        assert page.select(".logo, .sites") == []
        assert len(page.select("link[rel=stylesheet]")) == 2


# --- the way back ---


def way_back(visitor, page=None):
    link = (page or visitor.page()).find(id="way-back")
    return link and (link.text, link["href"], link["rel"])


RETURNS = {"return_urls": return_urls("https://app.meridian.example/aws")}


def test_the_way_back_appears_once_the_role_is_connected_and_says_nothing_secret(visiting):
    visitor = visiting(link={"return_url": RETURN}, **BLUE, **RETURNS)
    assert way_back(visitor) is None
    customer, kit = visitor.customer_and_kit()
    visitor.paste(f"arn:aws:iam::{customer.account}:role/{kit['role_name']}")
    assert way_back(visitor) is None
    customer.role(kit["role_name"], kit["trust_policy"])
    [made] = visitor.connections()
    visitor.verify(made)
    address = f"{RETURN}&deputy_link={visitor.link_id}&status=connected"
    expected = ("Back to Meridian Ledger", address, ["noreferrer"])
    assert way_back(visitor) == expected
    status = BeautifulSoup(visitor.raw("/status").text, "html.parser")
    assert way_back(visitor, status) == expected
    # One of the link's own is enough, whatever is wrong with others
    many(visitor, ConnectionStatus.BROKEN, 2)
    assert way_back(visitor) == expected
    visitor.change(made, status=ConnectionStatus.BROKEN)
    assert way_back(visitor) is None


def test_the_way_back_of_a_link_with_a_return_url_is_there_if_all_that_is_listed_is_connected(
    visiting,
):
    visitor = visiting(link={"return_url": RETURN}, **RETURNS)
    many(visitor, ConnectionStatus.VERIFIED, 2)
    assert way_back(visitor)
    assert way_back(visit(visitor.world, visitor.tenant)) is None
    many(visitor, ConnectionStatus.BROKEN, 1)
    assert way_back(visitor) is None


def test_the_way_back_is_not_there_while_the_external_id_is_withdrawn(visiting):
    visitor = visiting(link={"return_url": RETURN}, **RETURNS)
    many(visitor, ConnectionStatus.VERIFIED, 1)
    visitor.rotate(reason="x", emergency=True)
    assert way_back(visitor) is None


def test_an_entry_that_was_removed_leads_nowhere_from_then_on(visiting):
    visitor = visiting(link={"return_url": RETURN}, **RETURNS)
    visitor.world.connection(visitor.tenant)
    assert way_back(visitor)
    entry = "https://app.meridian.example/aws/other"
    later = visiting(visitor.tenant, return_urls=return_urls(entry))
    later.path = visitor.path
    assert way_back(later) is None


# --- in a browser ---


def shown(page, selector, property_name):
    return page.evaluate(
        "([selector, name]) => getComputedStyle(document.querySelector(selector))[name]",
        [selector, property_name],
    )


@in_a_browser
@pytest.mark.parametrize(
    ("settings", "button", "text"),
    [
        (BLUE, "rgb(51, 102, 204)", "rgb(255, 255, 255)"),
        (ORANGE, "rgb(232, 89, 12)", "rgb(0, 0, 0)"),
    ],
)
def test_the_page_is_readable_in_the_vendors_colour(
    visiting, browser_page: Page, settings, button, text
):
    visitor = visiting(link={"return_url": RETURN}, **settings, **RETURNS)
    with served(visitor.world.admin.app) as port:
        url = f"http://127.0.0.1:{port}{visitor.path}"

        def look(path=url):
            browser_page.goto(path)
            browser_page.evaluate(
                "document.querySelectorAll('details').forEach((one) => (one.open = true))"
            )
            assert browser_page.evaluate("document.querySelector('.logo img').naturalWidth") > 0
            for width in (320, 1280):
                browser_page.set_viewport_size({"width": width, "height": 700})
                assert browser_page.evaluate(BEYOND) == [0, 0]
                for scheme in ("light", "dark"):
                    browser_page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                    assert browser_page.evaluate(FAINT) == [], (path, width, scheme)
                    yield

        for _ in look():
            assert shown(browser_page, "a.launch", "backgroundColor") == button
            assert shown(browser_page, "a.launch", "color") == text
        visitor.world.connection(visitor.tenant)
        for _ in look():
            assert shown(browser_page, "#way-back", "backgroundColor") == button
        visitor.paste_insecure()
        assert len([*look()]) == len([*look(f"{url}/review")]) == 4
