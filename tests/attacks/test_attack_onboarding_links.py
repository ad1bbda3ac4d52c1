"""Attacks on onboarding links: guessing, outliving, crossing over, and sending forms from
elsewhere.
"""

import hashlib
import secrets

import sqlalchemy

from app.audit.log import AuditLog
from app.errors import StoreUnavailableError
from app.store.database import SYSTEM
from sandbox.vendor import VENDOR_ACCOUNT
from tests.attacks.chunks import MALFORMED_CHUNKS, chunked
from tests.attacks.evidence import case, newest, refusal
from tests.support.cast import path_of
from tests.web.conftest import Visitor, visit


def change_row(visitor, change):
    statement = sqlalchemy.text(f"UPDATE onboarding_links SET {change} WHERE digest = :digest")  # noqa: S608
    digest = hashlib.sha256(visitor.path.rpartition("/")[2].encode()).digest()
    with visitor.world.services.db.write(SYSTEM) as db:
        db.execute(statement, {"digest": digest})


def expire(visitor):
    change_row(visitor, "expires_at = created_at")


def revoke(visitor):
    path = f"/v1/tenants/{visitor.tenant['id']}/onboarding-links/{visitor.link_id}"
    visitor.world.admin("DELETE", path, expect=204)


def suspend(visitor):
    visitor.world.admin("POST", f"/v1/tenants/{visitor.tenant['id']}/suspend", {"reason": "x"})


def offboard(visitor):
    visitor.world.admin("DELETE", f"/v1/tenants/{visitor.tenant['id']}", expect=204)


def malform(visitor):
    visitor.path = visitor.path[:-1]


def change_case(visitor):
    visitor.path = f"/onboard/{visitor.path.rpartition('/')[2].swapcase()}"


SOME_ID = "01890000-0000-7000-8000-000000000000"
NOWHERE, STOP = (f"/connections/{SOME_ID}/{what}" for what in ("verify", "stop"))
FOREIGN = {"Sec-Fetch-Site": "cross-site"}


def answers(visitor):
    """What the page's addresses answer, and others below it."""
    role = {"data": {"role_arn": "arn:aws:iam::123456789012:role/deputy-x"}}
    forms = (("POST", role), ("POST", {"headers": FOREIGN}))
    seen = []
    pages = ("", "/status", "/review", "/review.json")
    for path in (*pages, "/connections", NOWHERE, STOP, "/nothing/here"):
        for method, options in (("GET", {}), ("HEAD", {}), *forms, ("DELETE", {})):
            answer = visitor.raw(path, method, **options)
            headers = {*answer.headers.keys()}
            seen.append((answer.status_code, answer.content_type, answer.data, headers))
    return seen


def test_every_link_that_is_no_good_reads_alike_and_leaves_no_record(scene):
    """One body for all, so nobody learns that a link was good once, or whose tenant is
    suspended.
    """
    world = scene.world
    absent = answers(Visitor(world, scene.acme, f"/onboard/{secrets.token_urlsafe(32)}", ""))
    assert {answer[0] for answer in absent} <= {404, 405}
    assert {answer[1] for answer in absent} == {"text/html; charset=utf-8"}
    for end in (expire, revoke, suspend, offboard, malform, change_case):
        with case(end.__name__):
            visitor = visit(world, world.tenant())
            assert visitor.raw().status_code == 200
            end(visitor)
            calls, before = len(world.aws.sts_calls), newest(world)
            for answer, expected in zip(answers(visitor), absent, strict=True):
                # It says goodbye for 30 days
                assert answer == expected or (end is offboard and answer[0] == 410)
            assert len(world.aws.sts_calls) == calls
            assert newest(world) == before
            if end is suspend:
                path = f"/v1/tenants/{visitor.tenant['id']}/resume"
                world.admin("POST", path, {"reason": "x"})
                assert visitor.raw().status_code == 200


def test_a_link_reaches_no_other_tenants_connection(scene):
    mine = visit(scene.world, scene.world.tenant("Mallory"))
    calls = len(scene.world.aws.sts_calls)
    bodies = []
    for connection_id in (scene.theirs["id"], SOME_ID):
        answer = mine.raw(f"/connections/{connection_id}/verify", "POST")
        event = refusal(scene.world, answer)
        assert (answer.status_code, event["tenant_id"], event["connection_id"]) == (404, None, None)
        assert event["details"]["path"] == {"connection_id": connection_id}
        bodies.append(answer.data)
    assert bodies[0] == bodies[1]
    assert len(scene.world.aws.sts_calls) == calls
    assert scene.theirs["account_id"] not in mine.raw().text
    mine.paste(scene.theirs["role_arn"])
    made = scene.admin("GET", f"/v1/tenants/{mine.tenant['id']}/connections")["items"]
    assert [connection["status"] for connection in made] == ["pending"]


def test_what_the_vendor_removed_is_not_brought_back_through_a_link(scene):
    """Invariant 12 (docs/architecture.md): only POST …/connections with the vendor's key clears
    a tombstone.
    """
    world = scene.world
    tenant = world.tenant("Mallory")
    connection, suspended = world.connection(tenant), world.connection(tenant)
    world.suspend(suspended)
    world.admin("DELETE", path_of(connection), expect=204)
    mine, calls = visit(world, tenant), len(world.aws.sts_calls)
    for answer, code in (
        (mine.paste(connection["role_arn"]), "conflict"),
        (mine.paste(connection["account_id"]), "conflict"),
        (mine.paste(suspended["role_arn"]), "suspended"),
        (mine.raw(f"/connections/{suspended['id']}/verify", "POST"), "suspended"),
    ):
        assert answer.status_code == 409, code
        assert code == "suspended" or "removed" in answer.text
        event = refusal(world, answer)
        assert (event["tenant_id"], event["details"]["code"]) == (tenant["id"], code)
    assert len(world.aws.sts_calls) == calls
    [listed] = world.admin("GET", f"/v1/tenants/{tenant['id']}/connections")["items"]
    assert (listed["id"], listed["status"]) == (suspended["id"], "suspended")
    world.connect(tenant, connection["role_arn"])


def test_a_link_is_no_api_key(scene):
    visitor = visit(scene.world, scene.world.tenant())
    api = scene.admin.with_key(visitor.path.rpartition("/")[2])
    path = f"/v1/tenants/{visitor.tenant['id']}"
    api.refused("GET", path, expect=401, code="unauthenticated")


OWN = "http://localhost:8000"
OWN_PAGE = [{}, {"Sec-Fetch-Site": "same-origin", "Origin": "null"}, {"Origin": OWN}]
OTHER_SITES = [
    *({"Sec-Fetch-Site": site, "Origin": OWN} for site in ("cross-site", "same-site", "none")),
    *({"Origin": origin} for origin in (f"{OWN}.evil.example", "http://localhost:8001")),
]


def test_a_form_of_the_pages_own_is_taken_and_from_another_site_refused(scene):
    visitor = visit(scene.world, scene.world.tenant())
    connection = scene.world.connection(visitor.tenant)
    calls = len(scene.world.aws.sts_calls)
    for headers in OTHER_SITES:
        for what in ("/connections", f"/connections/{connection['id']}/verify"):
            with case(what, headers=headers):
                form = {"role_arn": connection["role_arn"]}
                answer = visitor.raw(what, "POST", data=form, headers=headers)
                assert answer.status_code == 403
    assert len(scene.world.aws.sts_calls) == calls
    for headers in OWN_PAGE:
        with case(headers=headers):
            assert visitor.paste(connection["role_arn"], headers=headers).status_code == 303
    assert len(scene.world.aws.sts_calls) > calls


def test_a_forged_host_shows_up_nowhere(scene):
    visitor = visit(scene.world, scene.world.tenant())
    headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
    assert "evil.example" not in visitor.raw(headers=headers).text
    made = visitor.paste(scene.world.role(visitor.tenant), headers=headers)
    assert made.headers["Location"] == f"{visitor.path}#status"


def test_what_is_no_form_or_no_host_is_a_page_and_not_an_error_of_ours(scene):
    visitor = visit(scene.world, scene.world.tenant())
    form = {"content_type": "application/x-www-form-urlencoded"}
    for chunks in MALFORMED_CHUNKS:
        with case(chunks=chunks):
            answer = visitor.raw("/connections", "POST", **form, **chunked(chunks))
            assert answer.status_code == 400
            assert "could not be read" in answer.text
    for host in (".", "a..b", "x" * 64):
        for what, method in (("", "GET"), ("/connections", "POST"), ("/nothing/here", "GET")):
            with case(what, host=host):
                answer = visitor.raw(what, method, headers={"Host": host})
                assert answer.status_code == 400
                assert answer.headers["Cache-Control"] == "no-store"


# --- what is refused is on record ---

VENDORS_ROLE = f"arn:aws:iam::{VENDOR_ACCOUNT}:role/deputy-x"
REFUSED = [
    ("/connections", {"data": {"role_arn": VENDORS_ROLE}}, (422, "role_not_allowed", ["role_arn"])),
    ("/connections", {"data": {"role_arn": "x"}, "headers": FOREIGN}, (403, "forbidden", [])),
    ("/connections", {"data": {"role_arn": "x" * 2_000_000}}, (413, "payload_too_large", [])),
    (NOWHERE, {"headers": FOREIGN}, (403, "forbidden", [])),
]


def test_a_refused_form_is_recorded_as_the_links(scene):
    tenant = scene.world.tenant()
    visitor = visit(scene.world, tenant)
    token = visitor.path.rpartition("/")[2]
    bad = "/connections", {"data": {"role_arn": token}}, (422, "validation_failed", ["role_arn"])
    actor = {"kind": "onboarding_link", "id": visitor.link_id, "name": "onboarding link"}
    for what, sent, (status, code, fields) in (bad, *REFUSED):
        with case(what, code=code):
            answer = visitor.raw(what, "POST", **sent)
            assert answer.status_code == status
            event = refusal(scene.world, answer)
            assert token not in str(event)
            assert (event["action"], event["tenant_id"]) == ("connection.refused", tenant["id"])
            assert event["actor"] == actor
            route, path = "/onboard/<token>/connections", {}
            if what == NOWHERE:
                route += "/<uuid:connection_id>/verify"
                path = {"connection_id": SOME_ID}
            about = {"code": code, "method": "POST", "route": route, "path": path}
            assert event["details"] == about | {"fields": fields}


def test_a_link_can_not_fill_the_audit_log(scene, stopped_clock):
    """Each form counts, a foreign one too, and those beyond the limit are not recorded."""
    mine = visit(scene.world, scene.world.tenant("Mallory"))
    for what in ("/connections", NOWHERE):
        answers = [
            mine.raw(what, "POST", headers=FOREIGN if n % 2 else {}).status_code for n in range(22)
        ]
        assert answers[20:] == [429] * 2
    events = [e for e in newest(scene.world, 200) if e["actor"]["id"] == mine.link_id]
    assert len(events) == 40
    assert "rate_limited" not in {event["details"]["code"] for event in events}


def test_a_page_that_is_refused_again_and_again_leaves_no_record(scene):
    """A browser asks every few seconds, and a GET changes nothing."""
    mine = visit(scene.world, scene.world.tenant("Mallory"))
    change_row(mine, "permission_set = 'withdrawn'")
    before = newest(scene.world)
    assert [mine.raw(what).status_code for what in ("", "/status")] == [404, 404]
    assert newest(scene.world) == before


def test_a_refusal_stands_though_it_can_not_be_recorded(scene, monkeypatch):
    mine = visit(scene.world, scene.world.tenant("Mallory"))

    def away(*_):
        raise StoreUnavailableError("away")

    monkeypatch.setattr(AuditLog, "append", away)
    assert mine.paste("nonsense").status_code == 422
    assert mine.raw(NOWHERE, "POST").status_code == 404
