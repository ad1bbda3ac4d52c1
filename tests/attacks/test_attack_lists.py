"""Lists and the audit log show only one's own rows, with any filter, order or cursor."""

import pytest
from itsdangerous import URLSafeSerializer

from tests.attacks.evidence import absent, case, problem, refusal
from tests.attacks.routes import LISTS


def items(api, path):
    page = api("GET", path)
    rows = page["items"]
    while cursor := page["next_cursor"]:
        page = api("GET", f"{path}&cursor={cursor}")
        rows += page["items"]
    return rows


def test_a_bound_key_finds_its_own_tenant_alone(scene):
    """Neither by another tenant's reference nor by its connection's account."""
    scene.world.tenant("Initech", reference="initech-7")
    [tenant] = items(scene.mallory, "/v1/tenants?limit=1")
    assert tenant["id"] == scene.acme["id"]
    for query in ("reference=initech-7", "name=initech"):
        assert scene.admin("GET", f"/v1/tenants?{query}")["items"]
        assert scene.mallory("GET", f"/v1/tenants?{query}")["items"] == []
    path = f"/v1/tenants/{scene.acme['id']}/connections?account_id={scene.theirs['account_id']}"
    for query in ("", "&status=verified"):
        assert scene.mallory("GET", path + query)["items"] == []


def test_a_bound_key_reads_only_its_own_audit_events(scene):
    events = items(scene.mallory, "/v1/audit-events?limit=200")
    assert {event["tenant_id"] for event in events} == {scene.acme["id"]}
    assert not scene.tells_of_globex(str([{**event, "details": None} for event in events]))


def test_another_tenants_audit_log_is_like_one_that_does_not_exist(scene):
    for order in ("", "&after=00000000-0000-0000-0000-000000000000"):
        responses = [
            scene.mallory.raw("GET", f"/v1/audit-events?tenant_id={tenant}{order}")
            for tenant in (scene.globex["id"], absent())
        ]
        foreign, nothing = (problem(response, 404, "not_found") for response in responses)
        assert foreign == nothing
        assert refusal(scene.world, responses[0])["tenant_id"] is None


def test_no_audit_event_is_found_by_another_tenants_connection(scene):
    for connection_id in (scene.theirs["id"], absent()):
        for query in ("", "&action=connection.verified"):
            page = scene.mallory("GET", f"/v1/audit-events?connection_id={connection_id}{query}")
            assert page == {"items": [], "next_cursor": None}


def test_there_is_no_other_way_to_ask(scene):
    theirs = f"tenant_id={scene.globex['id']}"
    queries = ["include=tenant", "sort=tenant_id", "offset=1", theirs.replace("=", "[]=")]
    queries += ["limit=201", "limit=0", "limit=-1", "limit=1;drop table tenants"]
    for path in set(LISTS) - {"/v1/connections"}:
        for query in queries if path == "/v1/audit-events" else [*queries, theirs]:
            with case(path, query=query):
                response = scene.mallory.raw(
                    "GET", f"{path.format(tenant_id=scene.acme['id'])}?{query}"
                )
                problem(response, 422, "validation_failed")


@pytest.fixture
def cursor(scene) -> str:
    """A good cursor, of Acme's own audit log."""
    found = scene.mallory("GET", "/v1/audit-events?limit=1")["next_cursor"]
    assert found
    return found


def test_a_forged_cursor_is_malformed(scene, cursor):
    body, _, signature = cursor.partition(".")
    forged = {
        # Not B for A: the last letter's last two bits are none of the signature's, so both say the
        # same.
        "last letter": cursor[:-1] + ("A" if cursor[-1] != "A" else "Q"),
        "truncated": cursor[:-4],
        "no signature": body,
        "signature alone": f".{signature}",
        "an id": absent(),
        "NUL": "%00",
        "SQL": "' OR 1=1 --",
        "another key": URLSafeSerializer("a guess", salt="deputy cursor").dumps(absent()),
        "no key": URLSafeSerializer("", salt="").dumps(absent()),
    }
    for name, text in forged.items():
        with case(name):
            response = scene.mallory.raw("GET", f"/v1/audit-events?limit=1&cursor={text}")
            problem(response, 400, "malformed_request")
            assert refusal(scene.world, response)["details"]["code"] == "malformed_request"


def test_a_cursor_is_good_for_its_own_list_alone(scene, cursor):
    for path in (
        "/v1/tenants",
        "/v1/api-keys",
        f"/v1/tenants/{scene.acme['id']}/connections",
        f"/v1/audit-events?tenant_id={scene.acme['id']}",
        "/v1/audit-events?action=tenant.created",
    ):
        joint = "&" if "?" in path else "?"
        response = scene.mallory.raw("GET", f"{path}{joint}limit=1&cursor={cursor}")
        problem(response, 400, "malformed_request")


def test_the_vendors_cursor_shows_a_bound_key_only_its_own_rows(scene):
    cursor = scene.admin("GET", "/v1/audit-events?limit=1")["next_cursor"]
    page = scene.mallory("GET", f"/v1/audit-events?limit=200&cursor={cursor}")
    assert {event["tenant_id"] for event in page["items"]} == {scene.acme["id"]}
