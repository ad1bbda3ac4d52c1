"""The hosted onboarding page as a browser without JavaScript sees it."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from app.errors import StoreUnavailableError
from app.store.models.base import Base
from app.web.onboarding.pages import HEADERS
from tests.attacks.evidence import on_sqlite
from tests.support.cast import Customer, World
from tests.web.conftest import Visitor, visit

if TYPE_CHECKING:
    pass

# test_many_accounts.py, test_searches.py and others look at the page on both databases
pytestmark = on_sqlite


def text_of(found) -> str:
    return " ".join(found.get_text(" ").split())


# --- what it says ---


def test_the_policies_of_the_page_are_the_kits(visitor: Visitor):
    page, kit = visitor.page(), visitor.world.kit(visitor.tenant)
    sets = {
        found["name"]: found["policy"]
        for found in visitor.world.admin("GET", "/v1/permission-sets")["items"]
    }
    assert json.loads(page.find(id="trust").text) == kit["trust_policy"]
    assert json.loads(page.find(id="policy").text) == sets["inventory"]
    assert page.find(id="external-id").text == kit["external_id"]


def test_the_four_ways_are_the_kits(visitor: Visitor):
    page, kit = visitor.page(), visitor.world.kit(visitor.tenant)
    assert page.select_one("a.launch")["href"] == kit["launch_stack_url"]
    assert page.find(id="terraform").text == kit["terraform"]
    assert page.find(id="aws-cli").text == kit["aws_cli"]
    assert [label.text for label in page.select(".tabs label")] == [
        "Launch stack",
        "Terraform",
        "AWS CLI",
        "Whole organization",
    ]
    for way, template in (
        ("stack", kit["template_url"]),
        ("organization", "/v1/templates/customer-org.yaml"),
    ):
        (to_read,) = (
            link["href"] for link in page.select(f".{way} a") if link.text == "the template"
        )
        assert to_read.startswith(template)
    assert visitor.world.admin.with_key(None).raw("GET", to_read).status_code == 200


def test_the_link_chooses_the_permission_set_and_the_region(world: World):
    visitor = visit(world, world.tenant(), permission_set="bucket-sync", region="eu-west-1")
    page = visitor.page()
    assert "read and write access" in text_of(page.main)
    assert page.select_one("option[selected]").text == "eu-west-1"
    assert "region=eu-west-1#" in page.select_one("a.launch")["href"]
    visitor.paste(world.role(visitor.tenant))
    made = world.admin("GET", f"/v1/tenants/{visitor.tenant['id']}/connections")["items"]
    assert [connection["permission_set"] for connection in made] == ["bucket-sync"]


def test_the_region_and_the_way_are_chosen_without_javascript(visitor: Visitor):
    page = visitor.page("?way=terraform&region=eu-north-1")
    assert page.select_one("input[checked]")["id"] == "way-terraform"
    assert "region=eu-north-1#" in page.select_one("a.launch")["href"]
    for junk in (
        "?region=cn-north-1",
        "?region=<script>",
        "?way=<script>",
        "?region=" + "x" * 5000,
    ):
        page = visitor.page(junk)
        assert page.select_one("option[selected]").text == "us-east-1"
        assert page.select_one("input[checked]")["id"] == "way-stack"
        assert "<script>" not in str(page.main)


def test_a_tenants_name_is_text_and_never_markup(world: World):
    tenant = world.admin("POST", "/v1/tenants", {"name": "<script>alert(1)</script>"}, expect=201)
    page = visit(world, tenant).page()
    assert "alert(1)" in text_of(page.main)
    assert not page.main.find_all("script")


# --- live status ---


def test_waiting_then_refused_then_connected(visitor: Visitor):
    world, customer = visitor.world, Customer(visitor.world.aws)
    assert visitor.steps() == ["now", "todo", "todo", "todo", "todo"]
    kit = world.kit(visitor.tenant)
    arn = f"arn:aws:iam::{customer.account}:role/{kit['role_name']}"
    assert visitor.paste(f"  {arn}\n").status_code == 303
    assert visitor.steps() == ["done", "failed", "todo", "todo", "todo"]
    page = visitor.page()
    assert json.loads(page.find(id="trust-should-be").text) == kit["trust_policy"]
    command = page.find(id="trust-command").text
    assert command.startswith(
        f"aws iam update-assume-role-policy --region us-east-1 --role-name {kit['role_name']} "
    )
    customer.role(kit["role_name"], kit["trust_policy"])
    assert visitor.raw(again(page), "POST").status_code == 303
    assert visitor.steps() == ["done"] * 5
    page = visitor.page()
    assert text_of(page.find(id="summary")) == "Connected. There is nothing left to do."
    assert page.find(id="trust-should-be") is None
    assert "Checked on " in text_of(page.select_one(".actions"))
    # Also when there is nothing to repair
    assert visitor.raw(again(page), "POST").status_code == 303
    assert visitor.steps() == ["done"] * 5


def test_the_fragment_is_sent_only_when_it_says_something_new(visitor: Visitor):
    first = visitor.raw("/status")
    assert first.status_code == 200
    seen = visitor.page().select_one("[hx-get]")["hx-get"]
    assert visitor.world.admin.app.test_client().get(seen).status_code == 204
    visitor.world.connection(visitor.tenant)
    changed = visitor.world.admin.app.test_client().get(seen)
    assert changed.status_code == 200
    assert 'hx-swap-oob="innerHTML:#summary"' in changed.text
    assert "every 30s" in changed.text


def again(page) -> str:
    action = page.select_one("form[action$=verify]")["action"]
    return "/connections/" + action.partition("/connections/")[2]


# --- entering a role ---


@pytest.mark.parametrize(
    ("arn", "status", "said"),
    [
        ("", 422, "Enter a role ARN or a 12-digit account ID."),
        ("1234567890123", 422, "Enter a role ARN or a 12-digit account ID."),
        ("<b>bold</b>", 422, "Enter a role ARN or a 12-digit account ID."),
        ("arn:aws:iam::123456789012:user/x", 422, "not the ARN of an IAM role"),
        ("arn:aws:iam::111122223333:role/deputy-x", 422, "vendor's own accounts"),
        ("arn:aws:iam::123456789012:role/admin", 422, "must start with deputy-"),
        ("arn:aws:iam::123456789012:role/" + "x" * 3000, 422, "at most 2048"),
        ("arn:\0", 422, "not the ARN of an IAM role"),
    ],
)
def test_a_role_that_is_no_good_is_said_beside_the_field_which_keeps_it(
    visitor: Visitor, arn, status, said
):
    response = visitor.paste(arn)
    assert response.status_code == status
    assert said in response.text.replace("&#39;", "'")
    assert 'aria-invalid="true"' in response.text
    assert "<b>bold" not in response.text
    if arn.startswith("arn:"):
        assert f'value="{arn}"' in response.text


def test_a_role_that_is_connected_already_is_checked_again(visitor: Visitor):
    arn = visitor.world.role(visitor.tenant)
    assert visitor.paste(arn).status_code == 303
    calls = len(visitor.world.calls_for(arn))
    response = visitor.paste(arn)
    assert response.status_code == 303
    assert response.headers["Location"] == f"{visitor.path}#status"
    assert len(visitor.world.calls_for(arn)) == 2 * calls


def test_what_a_visitor_does_is_audited_as_the_links(visitor: Visitor):
    visitor.paste(visitor.world.role(visitor.tenant))
    verified, created, *_ = visitor.world.audit(tenant_id=visitor.tenant["id"])
    assert (verified["action"], created["action"]) == ("connection.verified", "connection.created")
    actor = {"kind": "onboarding_link", "id": visitor.link_id, "name": "onboarding link"}
    assert verified["actor"] == created["actor"] == actor


# --- as HTTP ---


def test_a_get_writes_no_row_of_any_table(visitor: Visitor):
    database = visitor.world.admin.app.extensions["deputy"].db

    def rows() -> dict[str, int]:
        with database.read() as db:
            return {
                table.name: db.scalar(select(func.count()).select_from(table))
                for table in Base.metadata.sorted_tables
            }

    visitor.paste(visitor.world.role(visitor.tenant))
    before, calls = rows(), len(visitor.world.aws.sts_calls)
    for what in ("", "/status", "?way=cli", "/connections"):
        for method in ("GET", "HEAD"):
            visitor.raw(what, method)
    assert (rows(), len(visitor.world.aws.sts_calls)) == (before, calls)


@pytest.mark.parametrize("what", ["", "/status", "/nothing", "/static/onboard.css"])
def test_the_pages_headers_are_their_own(visitor: Visitor, what):
    path = f"/onboard{what}" if "static" in what else f"{visitor.path}{what}"
    with visitor.world.admin.app.test_client().get(path) as response:
        headers = response.headers
    # In full, as a word that is missing here is a hole there.
    assert headers["Content-Security-Policy"].split("; ") == [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Robots-Tag"] == "noindex, nofollow"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Request-Id"]
    assert "Set-Cookie" not in headers
    assert ("no-store" in headers["Cache-Control"]) is ("static" not in what)


def test_every_other_path_and_method_gets_a_page_too(visitor: Visitor):
    absent = visitor.raw("x").text
    for path in ("/onboard", "/onboard/", "/onboard/a/b/c", "/onboard/static/", "/onboard/x%0a"):
        for method in ("PUT", "OPTIONS", "TRACE", "BREW"):
            response = visitor.world.admin.raw(method, path)
            assert (response.status_code, response.text) == (404, absent), (method, path)
            assert response.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]
    for path in ("/onboardx", "/v1/onboard"):
        visitor.world.admin.refused("GET", path, expect=404, code="not_found")


def test_nothing_is_inline_and_nothing_comes_from_elsewhere(visitor: Visitor):
    visitor.world.connection(visitor.tenant)
    visitor.paste(
        f"arn:aws:iam::123456789012:role/{visitor.world.kit(visitor.tenant)['role_name']}"
    )
    page = visitor.page()
    assert all(script.get("src") and not script.text for script in page.find_all("script"))
    assert page.find_all("style") == []
    for tag in page.find_all(True):
        assert not [
            name for name in tag.attrs if name == "style" or name.startswith(("on", "hx-on"))
        ], tag
    sources = [
        tag.get("src") or tag.get("href") for tag in page.find_all(["script", "link", "img"])
    ]
    assert sources
    assert all(source.startswith("/onboard/static/") for source in sources)
    client = visitor.world.admin.app.test_client()
    for source in sources:
        with client.get(source) as response:
            assert response.status_code == 200, source


def test_the_log_has_the_route_and_never_the_token(visitor: Visitor, caplog):
    token = visitor.path.rpartition("/")[2]
    with caplog.at_level(logging.DEBUG):
        visitor.raw()
        visitor.raw("/status")
        visitor.raw("/elsewhere")
        visitor.raw("/connections", "PUT")
        visitor.paste("nonsense")
        visitor.raw(f"/connections/{token}/verify", "POST")
    assert "'route': '/onboard/<token>'" in str([record.msg for record in caplog.records])
    assert token not in str(
        [(record.msg, record.args, record.exc_text) for record in caplog.records]
    )


def test_a_bug_is_a_page_and_logged_without_the_token(visitor: Visitor, monkeypatch, capfd, caplog):
    monkeypatch.setattr("app.web.onboarding.progress.headline", lambda *_: 1 / 0)
    response = visitor.raw()
    assert response.status_code == 500
    assert response.content_type == "text/html; charset=utf-8"
    assert "division" not in response.text
    assert "ZeroDivisionError" in str([record.msg for record in caplog.records])
    out, err = capfd.readouterr()
    assert visitor.path.rpartition("/")[2] not in out + err + caplog.text


def test_a_database_that_is_away_is_told_as_ours_and_to_be_tried_again(
    visitor: Visitor, monkeypatch
):
    def away(*_: object) -> str:
        raise StoreUnavailableError("The database can't be reached right now; try again.")

    monkeypatch.setattr("app.web.onboarding.progress.headline", away)
    response = visitor.raw()
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
    assert "Example Vendor can't answer right now" in response.text.replace("&#39;", "'")
    assert "database" not in response.text


def test_an_account_id_is_enough_for_a_search(visitor: Visitor):
    """For a stack that can't tell us: the kit's role is looked for in that account."""
    customer, kit = Customer(visitor.world.aws), visitor.world.kit(visitor.tenant)
    assert visitor.paste(f" {customer.account} ").status_code == 303
    path = f"/v1/tenants/{visitor.tenant['id']}/connections"
    [made] = visitor.world.admin("GET", path)["items"]
    assert made["role_arn"] == f"arn:aws:iam::{customer.account}:role/{kit['role_name']}"
    assert (made["status"], made["verification"]) == ("pending", None)
    assert text_of(visitor.page().find(id="summary")) == "Looking for your role."
    customer.role(kit["role_name"], kit["trust_policy"])
    # Tried at once, as it is known by now
    assert visitor.paste(customer.account).status_code == 303
    [made] = visitor.world.admin("GET", path)["items"]
    assert made["status"] == "verified"
