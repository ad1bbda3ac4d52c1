"""The hosted onboarding page as a browser without JavaScript sees it."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from app.access.callers import ALL_SCOPES
from app.errors import StoreUnavailableError
from app.factory import create_app
from app.store.models.base import Base
from app.web.onboarding.pages import HEADERS
from tests.attacks.evidence import on_sqlite
from tests.conftest import OPERATOR, make_config
from tests.support.cast import Api, Customer, World, without_external_id
from tests.support.sets import GOOD
from tests.web.conftest import Visitor, visit

if TYPE_CHECKING:
    from sandbox.server import Sandbox

pytestmark = on_sqlite  # test_many_accounts.py, test_searches.py and others look at the page on both databases


def text_of(found) -> str:
    return " ".join(found.get_text(" ").split())


# --- what it says ---


def test_the_page_says_who_asks_for_what_in_words_and_as_policies(visitor: Visitor):
    page = visitor.page()
    kit = visitor.world.kit(visitor.tenant)
    shown = text_of(page.main)
    assert visitor.tenant["name"] in shown
    assert "Example Vendor asks for read-only access" in shown
    assert (
        "Example Vendor connects as one AWS identity, with temporary credentials:"
        f" {kit['broker_principal_arn']}" in shown
    )
    assert "We cannot read what is inside any object" in shown
    assert json.loads(page.find(id="trust").text) == kit["trust_policy"]
    sets = visitor.world.admin("GET", "/v1/permission-sets")["items"]
    assert json.loads(page.find(id="policy").text) == next(
        found["policy"] for found in sets if found["name"] == "inventory"
    )
    assert page.find(id="external-id").text == kit["external_id"]
    assert "It is not a password" in shown
    assert "you may remove it" in shown
    assert "If the role may read itself, they also read its trust policy, and say here who else it trusts." in shown
    assert "The checks do not look at what the role permits." in shown


def test_the_page_explains_itself_in_these_words(visitor: Visitor):
    waiting = text_of(visitor.page().main)
    made = visitor.world.connection(visitor.tenant)
    connected = text_of(visitor.page().main)
    for said in (
        "connects as one AWS identity, with temporary credentials",
        "Without it, another customer could enter your role's ARN and trick us into reading your account",
        "Choose how to create the role",
        "Status",
        "Review the template before you launch.",
    ):
        assert said in waiting
    assert "The role accepted your External ID." in connected
    assert made["status"] == "verified"
    aws = "https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html"
    assert visitor.page().find("a", href=aws)["rel"] == ["noopener", "noreferrer"]
    for gone in (
        "comes as one AWS identity",
        "somebody else could enter",
        "Choose a way",
        "Where it stands",
        "It let us in with it",
        "To read first",
    ):
        assert gone not in waiting + connected


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
    for way, template in (("stack", kit["template_url"]), ("organization", "/v1/templates/customer-org.yaml")):
        (to_read,) = (link["href"] for link in page.select(f".{way} a") if link.text == "the template")
        assert to_read.startswith(template)
    assert visitor.world.admin.with_key(None).raw("GET", to_read).status_code == 200


def test_the_page_says_for_whom_it_is_and_with_what_to_compare_it(visitor: Visitor):
    """Before and after there is anything to tell of roles. Anybody can send somebody else a link of their own."""
    for _ in range(2):
        page = visitor.page()
        asked = page.header.find(id="for-whom")
        assert text_of(asked) == (
            f"This page is for administrators of {visitor.tenant['name']} who asked Example Vendor for it. Go on only if"
            " you or your colleagues did. Example Vendor shows what it reads in your account to"
            f" {visitor.tenant['name']}, and anybody can send you a genuine link of their own. So compare the name"
            f" {visitor.tenant['name']} and the External ID on this page with what Example Vendor's product shows when"
            " you sign in there. If they differ, close this page."
        )
        assert [link["href"] for link in asked.select("a")] == ["#external-id"]
        assert page.find(id="external-id").text == visitor.tenant["external_id"]
        visitor.paste(visitor.world.role(visitor.tenant))


def test_the_page_links_to_the_vendors_own_address_when_it_is_set(config, aws, admin):
    app = create_app(replace(config, vendor_url="https://app.example.com/<i>"))
    world = World(aws, Api(app, admin.key))
    asked = visit(world, world.tenant()).page().find(id="for-whom")
    assert "sign in there, at https://app.example.com/<i> . If they differ, close this page." in text_of(asked)
    link = asked.select("a")[-1]
    assert (link["href"], link["rel"]) == ("https://app.example.com/<i>", ["noopener", "noreferrer"])
    app.extensions["deputy"].db.engine.dispose()


def test_the_page_says_in_words_that_a_set_makes_an_administrator(config, aws, admin, tmp_path):
    administrator = GOOD | {
        "access": "write",
        "administrator": True,
        "managed_policies": [{"name": "PowerUserAccess", "why": "All."}],
    }
    (tmp_path / "admin.json").write_text(json.dumps(administrator))
    (tmp_path / "plain.json").write_text(json.dumps(GOOD))
    app = create_app(replace(config, permission_sets=tmp_path, default_permission_set="plain"))
    world = World(aws, Api(app, admin.key))
    tenant = world.tenant()
    assert visit(world, tenant).page().find(id="administrator") is None
    said = text_of(visit(world, tenant, permission_set="admin").page().find(id="administrator"))
    assert said.startswith("This makes the role an administrator. It can change permissions, or act as other roles")
    assert "Example Vendor could give itself, or others, more access than is listed here." in said
    sets = {found["name"]: found["administrator"] for found in world.admin("GET", "/v1/permission-sets")["items"]}
    assert sets == {"admin": True, "plain": False}
    app.extensions["deputy"].db.engine.dispose()


def test_the_link_chooses_the_permission_set_and_the_region(world: World):
    visitor = visit(world, world.tenant(), permission_set="bucket-sync", region="eu-west-1")
    page = visitor.page()
    assert "read and write access" in text_of(page.main)
    assert page.select_one("option[selected]").text == "eu-west-1"
    assert "region=eu-west-1#" in page.select_one("a.launch")["href"]
    visitor.paste(world.role(visitor.tenant))
    made = world.admin("GET", f"/v1/tenants/{visitor.tenant['id']}/connections")["items"]
    assert [connection["permission_set"] for connection in made] == ["bucket-sync"]


def test_where_stacks_cannot_register_the_page_offers_the_region_in_which_they_can(config, aws, admin):
    topic = {
        "registration_topic_arn": "arn:aws:sns:us-east-1:111122223333:registrations",
        "registration_queue_url": f"{aws.url}/111122223333/registrations",
    }
    app = create_app(replace(config, **topic))
    world = World(aws, Api(app, admin.key))
    visitor = visit(world, world.tenant())
    for way in ("stack", "organization"):
        assert "cannot register itself" not in text_of(visitor.page(f"?way={way}").select_one(f".{way}"))
        advice = visitor.page(f"?way={way}&region=eu-west-1").select_one(f".{way}")
        assert "A stack in eu-west-1 cannot register itself. Launch it in us-east-1" in text_of(advice)
        (offered,) = (link["href"] for link in advice.select("a") if link.text == "Launch it in us-east-1")
        assert f"?way={way}&region=us-east-1#" in offered
    app.extensions["deputy"].db.engine.dispose()


def test_the_region_and_the_way_are_chosen_without_javascript(visitor: Visitor):
    page = visitor.page("?way=terraform&region=eu-north-1")
    assert page.select_one("input[checked]")["id"] == "way-terraform"
    assert "region=eu-north-1#" in page.select_one("a.launch")["href"]
    for junk in ("?region=cn-north-1", "?region=<script>", "?way=<script>", "?region=" + "x" * 5000):
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
    assert command.startswith(f"aws iam update-assume-role-policy --region us-east-1 --role-name {kit['role_name']} ")
    customer.role(kit["role_name"], kit["trust_policy"])
    assert visitor.raw(again(page), "POST").status_code == 303
    assert visitor.steps() == ["done"] * 5
    page = visitor.page()
    assert text_of(page.find(id="summary")) == "Connected. There is nothing left to do."
    assert page.find(id="trust-should-be") is None
    assert "Checked on " in text_of(page.select_one(".actions"))
    assert visitor.raw(again(page), "POST").status_code == 303  # also when there is nothing to repair
    assert visitor.steps() == ["done"] * 5


def test_what_only_reading_finds_is_told_and_turns_green_and_others_are_named(visitor: Visitor):
    kit, customer = visitor.world.kit(visitor.tenant), Customer(visitor.world.aws)
    [own] = kit["trust_policy"]["Statement"]
    hidden = {**own, "Condition": {"StringEquals": {"sts:RoleSessionName": "maintenance"}}}
    visitor.paste(customer.reading_itself(kit["role_name"], {"Version": "2012-10-17", "Statement": [own, hidden]}))
    page = visitor.page()
    assert page.find(id="summary").text.startswith("Your role can be used without your External ID.")
    advice = text_of(page.select_one(".advice.urgent"))
    assert "lets us in without your External ID, or with another customer's." in advice
    assert "replace everything, but keep what Example Vendor asked you to keep for now" in advice
    other = {**own, "Principal": {"AWS": "arn:aws:iam::999999999999:root"}}
    customer.retrust(kit["role_name"], {"Version": "2012-10-17", "Statement": [own, other]})
    visitor.raw(again(page), "POST")
    page = visitor.page()
    assert page.find(id="summary").text == "Connected. There is nothing left to do."
    assert "also lets in arn:aws:iam::999999999999:root." not in text_of(page.find(id="live")), "not another broker's"
    del other["Condition"]
    customer.retrust(kit["role_name"], {"Version": "2012-10-17", "Statement": [own, other]})
    visitor.raw(again(page), "POST")
    assert "also lets in arn:aws:iam::999999999999:root." in text_of(visitor.page().select_one(".warnings"))


def test_a_role_that_lets_strangers_in_is_told_what_to_change_and_turns_green(visitor: Visitor):
    world, customer = visitor.world, Customer(visitor.world.aws)
    kit = world.kit(visitor.tenant)
    visitor.paste(customer.role(kit["role_name"], without_external_id(kit["trust_policy"])))
    assert visitor.steps() == ["done", "done", "done", "failed", "todo"]
    page = visitor.page()
    assert "The role can be used without your External ID" in text_of(page.select_one(".advice"))
    assert text_of(page.find(id="summary")).startswith("Your role can be used without your External ID.")
    customer.retrust(kit["role_name"], json.loads(page.find(id="trust-should-be").text))
    visitor.raw(again(page), "POST")
    assert visitor.steps() == ["done"] * 5


def test_a_day_without_aws_is_unclear_and_blames_nobody(visitor: Visitor, faults):
    arn = visitor.world.role(visitor.tenant)
    faults.add("throttle", role_arn=arn, times=50)
    visitor.paste(arn)
    assert visitor.steps() == ["done", "unclear", "todo", "todo", "todo"]
    page = visitor.page()
    assert page.select_one(".advice") is None
    assert text_of(page.find(id="summary")) == "Not connected yet: AWS gave no clear answer."
    assert "We also try again automatically" in text_of(page.find(id="live"))


def test_a_suspended_connection_is_paused_and_offers_no_check(visitor: Visitor):
    made = visitor.world.connection(visitor.tenant)
    path = f"/v1/tenants/{visitor.tenant['id']}/connections/{made['id']}"
    visitor.world.admin("POST", f"{path}/suspend", {"reason": "unpaid since spring"})
    assert text_of(visitor.page().find(id="summary")) == "This connection is paused."
    page = visitor.page()
    assert "unpaid since spring" not in str(page), "the vendor's own words"
    assert page.select("form[action$=verify], .steps") == []
    assert "Example Vendor has paused this connection" in text_of(page.find(id="live"))
    assert visitor.raw(f"/connections/{made['id']}/verify", "POST").status_code == 409


def test_many_accounts_are_a_table_with_counts(visitor: Visitor):
    world, kit = visitor.world, visitor.world.kit(visitor.tenant)
    for _ in range(2):
        visitor.paste(world.role(visitor.tenant))
    customer = Customer(world.aws)
    visitor.paste(customer.role(kit["role_name"], without_external_id(kit["trust_policy"])))
    page = visitor.page()
    assert text_of(page.find(id="summary")) == "2 of 3 connected; 1 needs a change."
    assert [text_of(item) for item in page.select(".counts li")] == ["2 connected", "1 needs a change"]
    assert len(page.select("tbody tr")) == 3
    assert f"Account {customer.account} :" in text_of(page.select_one(".advice")).replace(":", " :", 1)
    visitor.paste(Customer(world.aws).role(kit["role_name"], without_external_id(kit["trust_policy"])))
    page = visitor.page()
    assert text_of(page.find(id="summary")) == "2 of 4 connected; 2 need a change."
    assert [text_of(item) for item in page.select(".counts li")] == ["2 connected", "2 need a change"]
    assert "Accounts " in text_of(page.select_one(".advice"))


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
        ("123", 422, "Enter a role ARN or a 12-digit account ID."),
        ("1234567890123", 422, "Enter a role ARN or a 12-digit account ID."),
        ("<b>bold</b>", 422, "Enter a role ARN or a 12-digit account ID."),
        ("arn:aws:iam::123456789012:user/x", 422, "not the ARN of an IAM role"),
        ("arn:aws:iam::111122223333:role/deputy-x", 422, "vendor's own accounts"),
        ("arn:aws-cn:iam::123456789012:role/deputy-x", 422, "across partitions"),
        ("arn:aws:iam::123456789012:role/admin", 422, "must start with deputy-"),
        ("arn:aws:iam::123456789012:role/" + "x" * 3000, 422, "at most 2048"),
        ("\0", 422, "Enter a role ARN or a 12-digit account ID."),
        ("arn:\0", 422, "not the ARN of an IAM role"),
    ],
)
def test_a_role_that_is_no_good_is_said_beside_the_field_which_keeps_it(visitor: Visitor, arn, status, said):
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


def test_roles_and_checks_are_limited_for_each_link(aws: Sandbox, vendor, config, stopped_clock):
    app = create_app(make_config(config.database_url, link_rate=3))
    _, key = app.extensions["deputy"].api_keys.create_key(OPERATOR, name="tight", scopes=ALL_SCOPES)
    world = World(aws, Api(app, key))
    visitor = visit(world, world.tenant())
    made = world.connection(visitor.tenant)
    for what in ("/connections", f"/connections/{made['id']}/verify"):
        answers = [visitor.raw(what, "POST") for _ in range(4)]
        assert answers[-1].status_code == 429
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 3600
        assert answers[-1].content_type == "text/html; charset=utf-8"
        assert [answer.status_code for answer in answers[:3]].count(429) == 0
    assert visit(world, visitor.tenant).raw("/connections", "POST").status_code == 422
    app.extensions["deputy"].db.engine.dispose()


# --- as HTTP ---


def test_a_get_changes_nothing(visitor: Visitor):
    visitor.world.connection(visitor.tenant)
    events = visitor.world.audit(tenant_id=visitor.tenant["id"])
    calls = len(visitor.world.aws.sts_calls)
    for what in ("", "/status", "?way=cli", "/connections"):
        for method in ("GET", "HEAD"):
            visitor.raw(what, method)
    assert visitor.world.audit(tenant_id=visitor.tenant["id"]) == events
    assert len(visitor.world.aws.sts_calls) == calls


def test_a_get_writes_no_row_of_any_table(visitor: Visitor):
    database = visitor.world.admin.app.extensions["deputy"].db

    def rows() -> dict[str, int]:
        with database.read() as db:
            return {
                table.name: db.scalar(select(func.count()).select_from(table)) for table in Base.metadata.sorted_tables
            }

    visitor.paste(visitor.world.role(visitor.tenant))
    before = rows()
    for what in ("", "/status", "?way=cli", "/connections"):
        visitor.raw(what)
    assert rows() == before


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


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
@pytest.mark.parametrize("path", ["/onboard", "/onboard/", "/onboard/a/b/c", "/onboard/static/", "/onboard/x%0a"])
def test_every_other_path_and_method_gets_a_page_too(visitor: Visitor, method, path):
    response = visitor.world.admin.raw(method, path)
    assert response.status_code == 404
    assert response.text == visitor.raw("x").text
    assert response.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]


def test_only_these_pages_are_html(visitor: Visitor):
    for path in ("/onboardx", "/v1/onboard"):
        visitor.world.admin.refused("GET", path, expect=404, code="not_found")


def test_nothing_is_inline_and_nothing_comes_from_elsewhere(visitor: Visitor):
    visitor.world.connection(visitor.tenant)
    visitor.paste(f"arn:aws:iam::123456789012:role/{visitor.world.kit(visitor.tenant)['role_name']}")
    page = visitor.page()
    assert all(script.get("src") and not script.text for script in page.find_all("script"))
    assert page.find_all("style") == []
    for tag in page.find_all(True):
        assert not [name for name in tag.attrs if name == "style" or name.startswith(("on", "hx-on"))], tag
    sources = [tag.get("src") or tag.get("href") for tag in page.find_all(["script", "link", "img"])]
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
    assert token not in str([(record.msg, record.args, record.exc_text) for record in caplog.records])


def test_a_bug_is_a_page_and_logged_without_the_token(visitor: Visitor, monkeypatch, capfd, caplog):
    monkeypatch.setattr("app.web.onboarding.progress.headline", lambda *_: 1 / 0)
    response = visitor.raw()
    assert response.status_code == 500
    assert response.content_type == "text/html; charset=utf-8"
    assert "division" not in response.text
    assert "ZeroDivisionError" in str([record.msg for record in caplog.records])
    out, err = capfd.readouterr()
    assert visitor.path.rpartition("/")[2] not in out + err + caplog.text


def test_a_database_that_is_away_is_told_as_ours_and_to_be_tried_again(visitor: Visitor, monkeypatch):
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
    assert visitor.paste(customer.account).status_code == 303  # tried at once, as it is known by now
    [made] = visitor.world.admin("GET", path)["items"]
    assert made["status"] == "verified"


def test_a_role_that_was_removed_is_told_so_and_its_removal_is_no_mistake(visitor: Visitor):
    customer, kit = Customer(visitor.world.aws), visitor.world.kit(visitor.tenant)
    made = visitor.world.connect(visitor.tenant, visitor.world.role(visitor.tenant, customer))
    customer.remove_role(kit["role_name"])
    visitor.raw(f"/connections/{made['id']}/verify", "POST")
    live = text_of(visitor.page().find(id="live"))
    assert "No longer. It is absent, or it refuses us" in live
    assert "If you removed the role on purpose, there is nothing to do" in live
