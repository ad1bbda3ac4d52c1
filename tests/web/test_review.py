"""The page for a customer's security reviewer: one source with its JSON, two sheets, no token."""

import json
import re
import zlib

import pytest
from playwright.sync_api import BrowserContext

from app.ids import RoleArn
from app.proofs.schedule import ProofInterval
from tests.client.people import served
from tests.conftest import in_a_browser
from tests.support.sets import GOOD, VENDOR
from tests.web.conftest import many, text_of, visit
from tests.web.test_page_texts import assert_stored

SITES = {
    "vendor_url": "https://app.example.com",
    "support_url": "https://example.com/support",
    "privacy_url": "https://example.com/privacy",
}


def review(visitor):
    answer = visitor.raw("/review.json")
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    return answer.json


def answers(visitor):
    return {each["name"]: " ".join(each["paragraphs"]) for each in review(visitor)["answers"]}


def leaves(value):
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from leaves(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


# --- what it says ---


@pytest.mark.parametrize(
    ("names", "settings"),
    [
        (("inventory", "bucket-sync"), SITES),
        (("invoices", "posture"), {"permission_sets": VENDOR, "default_permission_set": "posture"}),
    ],
)
def test_the_page_shows_all_that_the_json_says(visiting, names, settings):
    world = visiting(**settings).world
    for name in names:
        page_shows_all_of_the_json(visit(world, world.tenant(), permission_set=name))


def page_shows_all_of_the_json(visitor):
    page, said = visitor.page("/review"), review(visitor)
    shown = text_of(page.main) + " ".join(link["href"] for link in page.select(".sites a"))
    assert ("read-only" in shown) is (said["permission_set"].pop("access") == "read")
    names = [answer.pop("name") for answer in said["answers"]]
    assert [section["id"] for section in page.select("section")] == names
    for parameter in said["parameters"]:
        assert parameter.pop("pattern")  # the template's
    del said["as_of"]
    written = "".join(shown.split())
    assert [text for text in leaves(said) if "".join(text.split()) not in written] == []
    policy = page.find("pre")
    assert (
        json.loads(policy.text)
        == said["trust_policy"]
        == visitor.world.kit(visitor.tenant)["trust_policy"]
    )


def test_each_permission_is_there_with_its_reason(world):
    visitor = visit(world, world.tenant(), permission_set="bucket-sync")
    sets = visitor.world.admin("GET", "/v1/permission-sets")["items"]
    [asked] = [each for each in sets if each["name"] == "bucket-sync"]
    *permissions, own = review(visitor)["permissions"]
    assert [
        {
            "Sid": each["name"],
            "Effect": each["effect"],
            "Action": each["actions"],
            "Resource": each["resources"],
            "Condition": each["condition"],
        }
        for each in permissions
    ] == asked["policy"]["Statement"]
    assert permissions[0]["why"] == "Finds the objects in the buckets that you share with us."
    assert own["name"] == "read-itself"
    assert own["resources"][0].endswith(f":role/{review(visitor)['role_name']}")


def test_of_many_other_roles_some_are_shown(visitor):
    many(visitor, count=25)
    assert review(visitor)["scope"].startswith("All that follows is about deputy-")
    many(visitor, count=1)
    assert review(visitor)["scope"].startswith("These are 25 of them. All that follows")
    assert len(review(visitor)["other_roles"]) == 25


def test_the_whole_page_reads_as_stored(visiting):
    page = visiting(**SITES).page("/review")
    page.find("dt", string="As of").find_next("dd").string = "TIME"
    assert_stored("review", page.main)


def test_what_makes_an_administrator_is_said(visiting, tmp_path):
    managed = [{"name": "PowerUserAccess", "why": "All."}]
    administrator = GOOD | {"access": "write", "administrator": True, "managed_policies": managed}
    (tmp_path / "admin.json").write_text(json.dumps(administrator))
    visitor = visiting(permission_sets=tmp_path, default_permission_set="admin")
    assert "makes the role an administrator" in text_of(visitor.page("/review").main)
    assert review(visitor)["permissions"][-2]["managed_policy"].endswith("/PowerUserAccess")


def test_the_numbers_are_the_settings(visitor, visiting):
    role = RoleArn.parse("arn:aws:iam::999988887777:role/deputy-canary")
    usual = answers(visitor)
    assert "A session lasts 1 hour at most." in usual["sessions"]
    assert "repeated about every hour." in usual["proof"]
    assert "older than 1 day." in usual["proof"]
    assert "A second AWS account" not in usual["proof"]
    assert "for at least 400 days." in usual["log"]
    other = answers(
        visiting(
            max_session_seconds=1800,
            reprove_every=5400,
            proof_max_age=10_000,
            audit_retention_days=0,
            canary_role_arn=role,
            stranger_role_arn=role,
            vendor_name="A {vendor} & Co.",
        )
    )
    assert "A {vendor} & Co. gets temporary" in other["sessions"]
    assert "A session lasts 30 minutes at most." in other["sessions"]
    assert "repeated about every 90 minutes." in other["proof"]
    assert "older than 10000 seconds." in other["proof"]
    assert "A second AWS account of A {vendor} & Co. sends it too" in other["proof"]
    assert "records without an end." in other["log"]


def test_the_proof_is_repeated_as_often_as_it_is_with_so_many_connections(visitor, monkeypatch):
    interval = visitor.world.services.proof_queue.interval
    monkeypatch.setattr(interval, "current", lambda: ProofInterval(3600, 39_599))
    assert "repeated about every 11 hours." in answers(visitor)["proof"]


def test_the_review_is_linked_from_the_page_and_warns_of_its_own_address(visitor):
    assert visitor.page().select_one("#asked ~ p a[href$='/review']")
    page = visitor.page("/review")
    [warning] = page.select("aside")
    assert "Forward this page as a file, not by its address." in text_of(warning)
    token_links = [a for a in page.main.select("a") if visitor.path in a["href"]]
    assert token_links
    assert all(warning in a.parents for a in token_links), "the warning alone is not printed"


def test_nothing_in_it_registers_a_role_or_opens_a_page(visiting, vendor):
    """What is forwarded gives the reader of the file no right."""
    visitor = visiting(
        registration_topic_arns=(vendor.registration_topic_arn,),
        registration_queue_url=vendor.registration_queue_url,
    )
    assert "dpt_" in visitor.raw().text
    said = visitor.raw("/review.json").text
    assert visitor.path.rpartition("/")[2] not in said
    assert "dpt_" not in said + visitor.raw("/review").text


# --- on paper ---


def streams(pdf):
    """What is drawn on the sheets."""
    compressed = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    # A stream may end in the bytes of a line break, which the pattern cuts off
    return [zlib.decompressobj().decompress(each) for each in compressed if each.startswith(b"x")]


@in_a_browser
@pytest.mark.parametrize("name", ["inventory", "bucket-sync"])
def test_the_review_prints_on_two_sheets_without_its_address(
    visiting, browsing: BrowserContext, name
):
    """Not even where the browser is asked to print a header and a footer with the address."""
    visitor = visiting(link={"permission_set": name}, **SITES)
    visitor.rotate()
    with served(visitor.world.admin.app) as port:
        page = browsing.new_page()
        page.goto(f"http://127.0.0.1:{port}{visitor.path}/review")
        for size, scheme in (("A4", "light"), ("Letter", "dark")):
            page.emulate_media(color_scheme=scheme)
            pdf = page.pdf(format=size)
            assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 2, (size, scheme)
            addresses = {each.decode().rstrip("/") for each in re.findall(rb"/URI \((.*?)\)", pdf)}
            assert addresses == {*SITES.values()}
            drawn = streams(pdf)
            assert drawn
            assert drawn == streams(page.pdf(format=size, display_header_footer=True))
        page.close()
