"""The hosted onboarding page as a browser without JavaScript sees it."""

import copy
import json
import logging
from uuid import UUID

from bs4 import BeautifulSoup
from markupsafe import escape
from sqlalchemy import func, select

from app.errors import StoreUnavailableError
from app.http.response_headers import ONBOARDING_PAGE
from app.store.database import SYSTEM
from app.store.models import OnboardingLink
from app.store.models.base import Base
from tests.onboarding.conftest import set_of
from tests.support.shells import run_as
from tests.web.conftest import text_of, visit

STYLE_SHEET = "/onboard/static/onboard.css"


# --- what it says ---


def test_the_policies_and_the_four_ways_of_the_page_are_the_kits(visitor):
    page, kit = visitor.page(), visitor.world.kit(visitor.tenant)
    assert json.loads(page.find(id="trust").text) == kit["trust_policy"]
    policy = set_of(visitor.world, "inventory")["policy"]
    assert json.loads(page.find(id="policy").text) == policy
    assert page.find(id="external-id").text == kit["external_id"]
    assert page.select_one("a.launch")["href"] == kit["launch_stack_url"]
    assert page.find(id="terraform").text == kit["terraform"]
    assert page.find(id="aws-cli").text == kit["aws_cli"]
    for way, template in (
        ("stack", kit["template_url"]),
        ("organization", "/v1/templates/customer-org.yaml"),
    ):
        links = page.select(f".{way} a")
        (to_read,) = (link["href"] for link in links if link.text == "the template")
        assert to_read.startswith(template)
    assert visitor.world.admin.with_key(None).raw("GET", to_read).status_code == 200


def test_the_link_chooses_the_permission_set_and_the_region(world):
    visitor = visit(world, world.tenant(), permission_set="bucket-sync", region="eu-west-1")
    page = visitor.page()
    assert "read and write access" in text_of(page.main)
    assert page.select_one("option[selected]").text == "eu-west-1"
    assert "region=eu-west-1#" in page.select_one("a.launch")["href"]
    visitor.paste(world.role(visitor.tenant))
    assert [made["permission_set"] for made in visitor.connections()] == ["bucket-sync"]


def test_a_link_for_a_permission_set_that_was_removed_does_not_work(visitor):
    with visitor.services.db.write(SYSTEM) as db:
        db.get_one(OnboardingLink, UUID(visitor.link_id)).permission_set = "removed"
    for what in ("", "/status", "/review"):
        response = visitor.raw(what)
        assert (response.status_code, "This link does not work" in response.text) == (404, True)


def test_the_region_and_the_way_are_chosen_without_javascript(visitor):
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


def test_a_tenants_name_is_text_and_never_markup(world):
    tenant = world.admin("POST", "/v1/tenants", {"name": "<script>alert(1)</script>"}, expect=201)
    page = visit(world, tenant).page()
    assert "alert(1)" in text_of(page.main)
    assert not page.main.find_all("script")


# --- live status ---


def test_waiting_then_refused_then_connected(visitor):
    world, (customer, kit) = visitor.world, visitor.customer_and_kit()
    assert visitor.steps() == ["now", "todo", "todo", "todo", "todo"]
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
    assert page.find(id="trust-should-be") is None
    # Also when there is nothing to repair
    for repeat in (lambda: visitor.raw(again(page), "POST"), lambda: visitor.paste(arn)):
        calls = len(world.calls_for(arn))
        answer = repeat()
        assert answer.status_code == 303
        assert answer.headers["Location"] == f"{visitor.path}#status"
        assert len(world.calls_for(arn)) > calls
        assert visitor.steps() == ["done"] * 5


def test_the_fragment_is_sent_only_when_it_says_something_new(visitor):
    first = visitor.raw("/status")
    assert first.status_code == 200
    seen = visitor.page().select_one("[hx-get]")["hx-get"]
    assert visitor.world.admin.app.test_client().get(seen).status_code == 204
    visitor.world.connection(visitor.tenant)
    changed = visitor.world.admin.app.test_client().get(seen)
    assert changed.status_code == 200
    assert 'hx-swap-oob="innerHTML:#summary"' in changed.text
    assert "every 30s" in changed.text


def again(page):
    action = page.select_one("form[action$=verify]")["action"]
    return "/connections/" + action.partition("/connections/")[2]


# --- entering a role ---


def test_a_role_that_is_no_good_is_said_beside_the_field_which_keeps_it(visitor):
    for text, message in (
        ("1234567890123", "Enter a role ARN or a 12-digit account ID."),
        ("<b>bold</b>", "Enter a role ARN or a 12-digit account ID."),
        ("arn:aws:iam::123456789012:user/x", "not the ARN of an IAM role"),
        ("arn:aws:iam::111122223333:role/deputy-x", "vendor's own accounts"),
        ("arn:aws:iam::123456789012:role/admin", "must start with deputy-</small>"),
        ("arn:aws:iam::123456789012:role/" + "x" * 3000, "at most 2048"),
        ("arn:\0", "not the ARN of an IAM role"),
    ):
        response = visitor.paste(text)
        assert response.status_code == 422, text
        assert message in response.text.replace("&#39;", "'")
        assert 'aria-invalid="true"' in response.text
        assert f'value="{escape(text)}"' in response.text


# --- as HTTP ---


def test_the_trust_policy_as_it_should_be_keeps_the_end_that_the_customer_set(visitor):
    customer, kit = visitor.customer_and_kit()
    trust = copy.deepcopy(kit["trust_policy"])
    conditions = trust["Statement"][0]["Condition"]
    conditions["DateLessThan"] = {"aws:CurrentTime": "2099-12-31T00:00:00Z"}
    as_it_should_be = copy.deepcopy(trust)
    made = visitor.world.connect(
        visitor.tenant, customer.reading_itself(kit["role_name"], as_it_should_be)
    )
    del conditions["StringEquals"]
    customer.retrust(kit["role_name"], trust)
    assert visitor.world.verify(made)["status"] == "insecure"
    page = visitor.page()
    shown = json.loads(page.find(id="trust-should-be").text)
    assert shown["Statement"][0]["Condition"] == as_it_should_be["Statement"][0]["Condition"]
    done = run_as(visitor.world.aws, customer.account, page.find(id="trust-command").text)
    assert done.returncode == 0, done.stderr
    repaired = visitor.world.verify(made)
    assert repaired["status"] == "verified"
    assert repaired["access_until"].startswith("2099")


def test_a_get_writes_no_row_of_any_table(visitor):
    database = visitor.services.db

    def rows():
        with database.read() as db:
            return {
                table.name: db.scalar(select(func.count()).select_from(table))
                for table in Base.metadata.sorted_tables
            }

    visitor.paste(visitor.world.role(visitor.tenant))
    before, calls = rows(), len(visitor.world.aws.sts_calls)
    for what in ("", "/status", "?way=cli", "/connections", "/review", "/review.json"):
        for method in ("GET", "HEAD"):
            visitor.raw(what, method)
    assert rows() == before
    assert len(visitor.world.aws.sts_calls) == calls


def test_the_pages_headers_are_their_own(visitor):
    pages = ("", "/status", "/review", "/review.json", "/nothing")
    for path in (*(f"{visitor.path}{what}" for what in pages), STYLE_SHEET):
        with visitor.world.admin.app.test_client().get(path) as response:
            headers = response.headers
        # In full, as a word that is missing here is a hole there.
        assert headers["Content-Security-Policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
            " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ), path
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Robots-Tag"] == "noindex, nofollow"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Request-Id"]
        assert "Set-Cookie" not in headers
        assert ("no-store" in headers["Cache-Control"]) is (path != STYLE_SHEET)


def test_every_other_path_and_method_gets_a_page_too(visitor):
    absent = visitor.raw("x").text
    for path in ("/onboard", "/onboard/", "/onboard//x", "/onboard/static/", "/onboard/x%0a"):
        for method in ("PUT", "OPTIONS", "TRACE", "BREW"):
            response = visitor.world.admin.raw(method, path)
            assert response.status_code == 404, (method, path)
            assert response.text == absent, (method, path)
            assert ONBOARDING_PAGE.items() <= dict(response.headers).items()
    for path in ("/onboardx", "/v1/onboard"):
        visitor.world.admin.refused("GET", path, expect=404, code="not_found")


def test_the_log_has_the_route_and_never_the_token(visitor, caplog):
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


def test_a_bug_and_a_database_that_is_away_are_pages_and_logged_without_the_token(
    visitor, monkeypatch, capfd, caplog
):
    def away(*_):
        raise StoreUnavailableError("The database can't be reached right now; try again.")

    monkeypatch.setattr("app.web.onboarding.statuses.headline", away)
    response = visitor.raw()
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "2"
    assert "Example Vendor can't answer right now" in response.text.replace("&#39;", "'")
    assert "database" not in response.text
    monkeypatch.setattr("app.web.onboarding.statuses.headline", lambda *_: 1 / 0)
    response = visitor.raw()
    assert response.status_code == 500
    assert response.content_type == "text/html; charset=utf-8"
    assert "division" not in response.text
    assert "ZeroDivisionError" in str([record.msg for record in caplog.records])
    out, err = capfd.readouterr()
    assert visitor.path.rpartition("/")[2] not in out + err + caplog.text


def test_a_form_beyond_a_limit_keeps_what_was_typed_and_says_what_to_do(visiting):
    visitor = visiting(link_rate=2, max_connections=1)
    visitor.world.connection(visitor.tenant)
    customer, kit = visitor.customer_and_kit()
    arn = f"arn:aws:iam::{customer.account}:role/{kit['role_name']}"
    for said in ("If you need more, ask Example Vendor.",) * 2 + ("Try again in",):
        response = visitor.paste(arn)
        assert (response.status_code, "Retry-After" in response.headers) == (429, True)
        page = BeautifulSoup(response.text, "html.parser")
        assert said in page.find(id="role-arn-problem").text
        assert page.find(id="role-arn")["value"] == arn


def test_a_role_whose_stacks_region_is_unknown_is_updated_in_the_one_that_is_chosen(visitor):
    """Also in what refreshes by itself, and after a form."""
    made = visitor.world.connection(visitor.tenant)
    visitor.rotate()
    page = visitor.page("?region=ap-south-1")
    refreshed = page.select_one("[hx-get]")["hx-get"].replace("seen=", "old=")
    for shown in (page, visitor.page(refreshed.removeprefix(visitor.path))):
        assert "--region ap-south-1" in shown.find(id="update-stack").text
    path = f"/connections/{made['id']}/verify?region=ap-south-1"
    assert "region=ap-south-1" in visitor.raw(path, "POST").headers["Location"]
