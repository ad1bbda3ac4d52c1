"""Lists and the audit log show only one's own rows, with any filter, order or cursor."""

import pytest
from itsdangerous import URLSafeSerializer

from tests.attacks.evidence import Scene, absent, on_sqlite, problem, refusal, untouched
from tests.attacks.routes import LISTS


def items(api, path):
    found, cursor = [], None
    while True:
        page = api("GET", path + (f"{'&' if '?' in path else '?'}cursor={cursor}" if cursor else ""))
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def test_a_bound_key_lists_its_own_tenant_alone(scene: Scene):
    assert [tenant["id"] for tenant in items(scene.mallory, "/v1/tenants?limit=1")] == [scene.acme["id"]]


def test_a_bound_key_finds_no_tenant_by_its_reference(scene: Scene, world):
    world.admin("POST", "/v1/tenants", {"name": "Initech", "reference": "initech-7"}, expect=201)
    assert scene.mallory("GET", "/v1/tenants?reference=initech-7")["items"] == []


@pytest.mark.parametrize("query", ["account_id={account}", "status=verified&account_id={account}"])
def test_a_bound_key_finds_no_connection_by_another_tenants_account(scene: Scene, query: str):
    path = f"/v1/tenants/{scene.acme['id']}/connections?{query.format(account=scene.theirs['account_id'])}"
    assert scene.mallory("GET", path)["items"] == []


def test_a_bound_key_reads_only_its_own_audit_events(scene: Scene):
    events = items(scene.mallory, "/v1/audit-events?limit=200")
    assert events
    assert {event["tenant_id"] for event in events} == {scene.acme["id"]}
    assert not scene.tells_of_globex(str([{**event, "details": None} for event in events]))


def test_another_tenants_audit_log_is_like_one_that_does_not_exist(scene: Scene):
    responses = [
        scene.mallory.raw("GET", f"/v1/audit-events?tenant_id={tenant}") for tenant in (scene.globex["id"], absent())
    ]
    foreign, nothing = (problem(response, 404, "not_found") for response in responses)
    assert foreign == nothing
    assert refusal(scene.world, responses[0])["tenant_id"] is None


@pytest.mark.parametrize("query", ["connection_id={id}", "connection_id={id}&action=connection.verified"])
def test_no_audit_event_is_found_by_another_tenants_connection(scene: Scene, query: str):
    for connection_id in (scene.theirs["id"], absent()):
        found = scene.mallory("GET", f"/v1/audit-events?{query.format(id=connection_id)}")
        assert found == {"items": [], "next_cursor": None}


@pytest.mark.parametrize("order", ["{ours}&tenant_id={theirs}", "{theirs}&tenant_id={ours}"])
def test_the_same_filter_twice_opens_nothing(scene: Scene, order: str):
    query = order.format(ours=scene.acme["id"], theirs=scene.globex["id"])
    problem(scene.mallory.raw("GET", f"/v1/audit-events?tenant_id={query}"), 400, "malformed_request")


@pytest.mark.parametrize(
    "query",
    [
        "tenant_id={theirs}",
        "include=tenant",
        "expand=connections",
        "sort=tenant_id",
        "order_by=tenant_id",
        "offset=1",
        "page=2",
        "q=globex",
        "filter[tenant_id]={theirs}",
        "tenant_id[]={theirs}",
        "limit=201",
        "limit=0",
        "limit=-1",
        "limit=all",
        "limit=1;drop table tenants",
    ],
)
def test_there_is_no_other_way_to_ask(scene: Scene, query: str):
    text = query.format(theirs=scene.globex["id"])
    for path in LISTS:
        if path == "/v1/connections" or (path == "/v1/audit-events" and query.startswith("tenant_id=")):
            continue
        response = scene.mallory.raw("GET", f"{path.format(tenant_id=scene.acme['id'])}?{text}")
        problem(response, 422, "validation_failed")


@pytest.fixture
def cursor(scene: Scene) -> str:
    """A good cursor, of Acme's own audit log."""
    found = scene.mallory("GET", "/v1/audit-events?limit=1")["next_cursor"]
    assert found
    return found


@on_sqlite
@pytest.mark.parametrize(
    "forge",
    [
        # Not B for A: the last letter's last two bits are none of the signature's, so both say the same.
        lambda cursor: cursor[:-1] + ("A" if cursor[-1] != "A" else "Q"),
        lambda cursor: cursor[:-4],
        lambda cursor: cursor + "A",
        lambda cursor: cursor.partition(".")[0],
        lambda cursor: cursor.partition(".")[2],
        lambda cursor: "." + cursor,
        lambda cursor: absent(),
        lambda cursor: "1",
        lambda cursor: "null",
        lambda cursor: "%00",
        lambda cursor: "%ED%A0%80",
        lambda cursor: "' OR 1=1 --",
        lambda cursor: URLSafeSerializer("a guess", salt="deputy cursor").dumps(absent()),
        lambda cursor: URLSafeSerializer("", salt="").dumps(absent()),
    ],
)
def test_a_forged_cursor_is_malformed(scene: Scene, cursor: str, forge):
    response = scene.mallory.raw("GET", f"/v1/audit-events?limit=1&cursor={forge(cursor)}")
    problem(response, 400, "malformed_request")
    assert refusal(scene.world, response)["details"]["code"] == "malformed_request"


def test_a_cursor_is_good_for_its_own_list_alone(scene: Scene, cursor: str):
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


def test_the_vendors_cursor_shows_a_bound_key_only_its_own_rows(scene: Scene):
    cursor = scene.world.admin("GET", "/v1/audit-events?limit=1")["next_cursor"]
    page = scene.mallory("GET", f"/v1/audit-events?limit=200&cursor={cursor}")
    assert {event["tenant_id"] for event in page["items"]} == {scene.acme["id"]}


def test_pages_show_every_row_once(scene: Scene, world):
    tenant = world.tenant()
    for number in range(7):
        world.connect(tenant, f"arn:aws:iam::210987654321:role/deputy-page-{number}", status="pending")
    found = items(world.admin, f"/v1/tenants/{tenant['id']}/connections?limit=3")
    assert len(found) == len({connection["id"] for connection in found}) == 7


def test_ids_say_nothing_about_each_other(world):
    first, second = world.tenant(), world.tenant()
    tails = {tenant["id"].replace("-", "")[-16:] for tenant in (first, second)}
    assert len(tails) == 2
    assert abs(int(first["id"].replace("-", ""), 16) - int(second["id"].replace("-", ""), 16)) > 2**48


def test_refusals_of_strangers_are_for_the_vendors_eyes_only(scene: Scene):
    with untouched(scene.world, scene.theirs):
        response = scene.mallory.raw("GET", f"/v1/tenants/{scene.globex['id']}")
    request_id = response.headers["X-Request-Id"]
    assert refusal(scene.world, response)["request_id"] == request_id
    victim = scene.world.key("audit:read", tenant=scene.globex)
    for api in (scene.mallory, victim):
        assert request_id not in {event["request_id"] for event in items(api, "/v1/audit-events?limit=200")}
