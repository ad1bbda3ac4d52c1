"""One tenant against the service of all the others: what it may make everybody else pay for is
bounded.

Here is what needs nothing but the API. Lists, bodies, headers, sockets, STS, proofs and stacks are
attacked in the folders of what limits them.
"""

import itertools
import math
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from unittest.mock import Mock
from uuid import UUID

import pytest
import time_machine
from werkzeug.exceptions import UnprocessableEntity

from app.audit import Event
from app.clock import now
from app.concurrency.places import urgent, without_places
from app.errors import NotFoundError, RateLimitedError
from app.identity.key_text import generate_key
from app.identity.scopes import ALL_SCOPES
from app.ids import new_id
from app.limits import limits, tenant_share
from app.limits.counting_in_memory import TokenBucket
from app.limits.limits import (
    CPU_TIME,
    HELD_REFUSALS,
    PEAK_CPU_TIME,
    REFUSALS,
    REFUSALS_OF_KEY,
    REFUSED_CREDENTIALS,
    REQUESTS,
)
from app.limits.request_costs import MS_PER_ROW, price_of, price_of_body
from app.limits.tenant_share import MS_PER_FAILED_STOP, TenantShare
from app.store.database import Database
from tests.attacks.chunks import chunked
from tests.attacks.evidence import case
from tests.attacks.routes import ROUTES
from tests.support.cast import UNSET, path_of
from tests.support.rows import statements
from tests.support.waiting import until

BURST = 8  # of a DEPUTY_TENANT_REVOKES of two a second


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """It stands still unless a test moves it, so a slow machine counts the same."""
    with time_machine.travel(datetime.now(UTC), tick=False) as traveller:
        yield traveller


@pytest.fixture
def few_changes(app, monkeypatch) -> None:
    """A tenant's keys may make two keys a second, and four times as many at once."""
    quotas = app.extensions["deputy"].quotas
    monkeypatch.setattr(quotas, "_change", quotas._change._replace(most=2))


def mallory_of(world, connection):
    return world.key(*ALL_SCOPES, tenant={"id": connection["tenant_id"]})


SPARE, REASON = {"name": "spare", "scopes": ["audit:read"]}, {"reason": "mischief"}


def spare_key(api):
    return f"/v1/api-keys/{api('POST', '/v1/api-keys', SPARE, expect=201)['id']}"


def tenant_of(connection):
    return f"/v1/tenants/{connection['tenant_id']}"


@contextmanager
def held_places(share, tenant_id):
    """All places for a tenant's requests are taken."""
    with ExitStack() as held:
        for _ in range(REQUESTS.amount):
            held.enter_context(share.request(tenant_id, 0))
        yield


# --- what stops issuing makes every process read again what it knows of all tenants ---


@pytest.mark.usefixtures("few_changes")
def test_a_tenant_that_makes_keys_without_a_pause_is_held_back_and_may_revoke_all_of_them(
    world, clock
):
    mallory, neighbour = (mallory_of(world, world.connection()) for _ in range(2))
    with statements(world.services.db) as executed:
        made = [mallory.raw("POST", "/v1/api-keys", SPARE) for _ in range(BURST + 3)]
    assert [response.status_code for response in made] == [201] * BURST + [429] * 3
    assert int(made[-1].headers["Retry-After"]) >= 1
    counts = [query for query, _ in executed if "INTO quota_uses" in query]
    assert len(counts) == BURST + 1, "the others are refused from memory"
    for response in made[:BURST]:
        mallory("DELETE", f"/v1/api-keys/{response.get_json()['id']}", expect=204)
    spare_key(neighbour)
    for _ in range(BURST + 3):
        spare_key(world.admin)  # the vendor makes as many as it likes
    clock.shift(5)
    spare_key(mallory)


# method, path and body, for the ids of a tenant, its connection and a spare key
MAKES = [
    ("POST", "/v1/api-keys", SPARE),
    ("POST", "/v1/api-keys/{spare}/replace", {}),
    ("POST", "/v1/tenants/{tenant_id}/onboarding-links", {}),
    ("POST", "/v1/tenants/{tenant_id}/connections/{id}/resume", REASON),
    ("POST", "/v1/tenants/{tenant_id}/resume", REASON),
]
STOPS = [
    ("DELETE", "/v1/api-keys/{spare}", UNSET),
    ("DELETE", f"/v1/tenants/{{tenant_id}}/onboarding-links/{UUID(int=1)}", UNSET),
    ("POST", "/v1/tenants/{tenant_id}/connections/{id}/suspend", REASON),
    ("DELETE", "/v1/tenants/{tenant_id}/connections/{id}", UNSET),
    ("POST", "/v1/tenants/{tenant_id}/suspend", REASON),
]


@pytest.mark.usefixtures("few_changes")
def test_everything_that_makes_or_revives_counts_together(world, clock):
    connection = world.connection()
    mallory = mallory_of(world, connection)
    connection["spare"] = spare_key(mallory).rpartition("/")[2]
    for _ in range(BURST - 1):
        spare_key(mallory)
    for method, path, body in MAKES:
        with case(path):
            mallory.refused(
                method, path.format(**connection), body, expect=429, code="rate_limited"
            )


@pytest.mark.usefixtures("few_changes", "small_share")
def test_no_stop_is_refused_for_rate(world, clock):
    """Whoever stole one of a tenant's keys must not use up what the tenant needs to revoke it."""
    connection = world.connection()
    mallory, owner = (mallory_of(world, connection) for _ in range(2))
    connection["spare"] = spare_key(mallory).rpartition("/")[2]
    while mallory.raw("POST", "/v1/api-keys", SPARE).status_code != 429:
        pass
    while mallory.raw("GET", tenant_of(connection)).status_code != 429:
        pass
    share = world.services.tenant_share
    with held_places(share, UUID(connection["tenant_id"])):
        for method, path, body in STOPS:
            with case(path):
                assert owner.raw(method, path.format(**connection), body).status_code != 429


def test_a_bound_key_increments_the_revocation_counter_only_where_its_tenant_is_counted(
    world, by_hand
):
    """What a stop takes away was counted when it was made."""
    connection, moved = world.connection(), set()
    mallory = mallory_of(world, connection)
    ids = {"tenant_id": connection["tenant_id"], "connection_id": connection["id"]}
    ids["key_id"] = spare_key(mallory).rpartition("/")[2]
    quotas = "SELECT coalesce(sum(counted + counted_before), 0) FROM quota_uses WHERE id = :id"
    tenant_id = UUID(connection["tenant_id"]).hex
    for route in ROUTES:
        if route.method not in {"POST", "PATCH"}:
            continue
        with case(str(route)):
            before, counted = by_hand.counter, by_hand.one(quotas, id=tenant_id)
            route.send(mallory, route.at(**ids))
            if by_hand.counter != before and not route.path.endswith("/suspend"):
                moved.add(route.path.rpartition("/")[2])
                assert by_hand.one(quotas, id=tenant_id) > counted, "nothing limits how often"
    assert moved >= {"rotation", "replace"}


# --- requests that read and write the database ---


@pytest.fixture
def tenants_without_a_share() -> None:
    """Here they have one."""


@pytest.fixture
def hasty(monkeypatch) -> None:
    """A request beyond its tenant's share is not held for a second, as nobody would make others
    meanwhile.
    """
    for name in ("CPU_TIME", "REQUESTS", "REFUSED_CREDENTIALS"):
        limit = getattr(tenant_share, name)
        monkeypatch.setattr(tenant_share, name, limit._replace(patience=0.0))


PRICE = price_of("get_tenant")
SECONDS = 3  # of a small share
AFFORDED = CPU_TIME.amount * SECONDS // int(PRICE)  # at once
WITHOUT_PEAK = TokenBucket(1_000_000, 1)  # as if a burst came over many seconds


@pytest.fixture
def small_share(app, hasty, monkeypatch) -> None:
    """As the real one, but that a tenant has used it up after fewer requests."""
    share = app.extensions["deputy"].tenant_share
    monkeypatch.setattr(share, "_spent", TokenBucket(CPU_TIME.amount, SECONDS))
    monkeypatch.setattr(share, "_peak", WITHOUT_PEAK)
    monkeypatch.setattr(share, "_refused", TokenBucket(REFUSED_CREDENTIALS.amount, 1))


@pytest.mark.usefixtures("small_share")
def test_a_tenant_has_a_share_of_the_requests(world, stopped_clock):
    connection, other = world.connection(), world.connection()
    keys, neighbour = [mallory_of(world, connection) for _ in range(2)], mallory_of(world, other)
    path, revoked = tenant_of(connection), mallory_of(world, connection)
    revoked("GET", path)
    [stolen] = world.admin("GET", "/v1/api-keys?limit=1")["items"]
    world.admin("DELETE", f"/v1/api-keys/{stolen['id']}", expect=204)
    stale = {revoked.raw("GET", path).status_code for _ in range(AFFORDED)}
    assert stale == {401}
    stopped_clock.move(1)
    statuses = [keys[number % 2].raw("GET", path).status_code for number in range(AFFORDED + 4)]
    assert statuses == [200] * AFFORDED + [429] * 4, "a revoked key uses up nobody's share"
    response = keys[0].raw("GET", path)
    assert response.get_json()["code"] == "rate_limited"
    assert response.headers["Retry-After"] == "1"
    neighbour("GET", tenant_of(other))
    world.admin("GET", path)
    keys[0]("POST", path_of(connection, "/credentials"))
    stopped_clock.move(1)
    keys[0]("GET", path)


@pytest.mark.usefixtures("small_share")
def test_a_list_costs_more_with_each_row(world, stopped_clock):
    connection = world.connection()
    mallory = mallory_of(world, connection)
    for _ in range(3):
        world.connection(tenant={"id": connection["tenant_id"]})
    path = f"{tenant_of(connection)}/connections"
    statuses = [mallory.raw("GET", path).status_code for _ in range(AFFORDED)]
    first, rows = price_of("list_connections"), MS_PER_ROW * 4  # which are charged afterwards
    assert statuses.count(200) == math.floor((CPU_TIME.amount * SECONDS + rows) / (first + rows))


@pytest.mark.usefixtures("small_share", "stopped_clock")
def test_a_long_body_costs_more_with_each_kib(world):
    connection = world.connection()
    mallory = mallory_of(world, connection)
    body = {"reason": "x" * 100 * 1024}
    first, long = price_of("create_connection"), price_of_body(100 * 1024)
    assert long > 10
    path = f"{tenant_of(connection)}/connections"
    statuses = [mallory.raw("POST", path, json=body).status_code for _ in range(AFFORDED)]
    afforded = math.floor((CPU_TIME.amount * SECONDS + long) / (first + long))
    assert statuses == [422] * afforded + [429] * (AFFORDED - afforded)


@pytest.mark.usefixtures("small_share", "stopped_clock")
@pytest.mark.parametrize("form", ["long", "long and ignored", "in chunks"])
def test_a_request_for_credentials_with_a_costly_body_counts_as_any_other_request(world, form):
    """Its own limits count requests, which have a short body with a length."""
    connection = world.connection()
    worker = world.key("credentials:issue", tenant={"id": connection["tenant_id"]})
    ask = partial(worker.raw, "POST", path_of(connection, "/credentials"), json={})
    costly = partial(
        worker.raw, "POST", path_of(connection, "/credentials"), **chunked(b"2\r\n{}\r\n0\r\n\r\n")
    )
    if form == "long":
        costly = partial(ask, json={"session_policy": "x" * 4 * 1024})
    if form == "long and ignored":
        path = path_of(connection, "/container-credentials")
        costly = partial(worker.raw, "GET", path, data=b" " * 5 * 1024)
    statuses = [costly().status_code for _ in range(AFFORDED + 4)]
    assert 429 not in statuses[: AFFORDED - 4]
    assert statuses[-4:] == [429] * 4
    assert ask().status_code == 200


@pytest.mark.usefixtures("small_share", "stopped_clock")
def test_a_flood_with_a_known_key_is_refused_without_the_database(world, monkeypatch):
    connection = world.connection()
    mallory = mallory_of(world, connection)
    while mallory.raw("GET", tenant_of(connection)).status_code != 429:
        pass
    read = []
    monkeypatch.setattr(world.services.api_keys, "authenticate", lambda *_: read.append(1))
    assert mallory.raw("GET", tenant_of(connection)).status_code == 429
    assert not read


@pytest.mark.usefixtures("small_share")
def test_two_requests_of_a_tenant_are_worked_on_at_once(world, stopped_clock):
    connection, other = world.connection(), world.connection()
    mallory, neighbour = mallory_of(world, connection), mallory_of(world, other)
    mallory("GET", tenant_of(connection))
    share = world.services.tenant_share
    with held_places(share, UUID(connection["tenant_id"])):
        assert mallory.raw("GET", tenant_of(connection)).get_json()["code"] == "rate_limited"
        neighbour("GET", tenant_of(other))
        mallory("POST", path_of(connection, "/credentials"))
        with without_places():  # the last of those requests waits for AWS, or for a body
            mallory("GET", tenant_of(connection))
    mallory("GET", tenant_of(connection))


@pytest.mark.usefixtures("hasty", "stopped_clock")
def test_a_key_of_a_tenant_that_is_refused_two_hundred_times_at_once_is_told_why_each_time(
    world, monkeypatch
):
    """Its tenant's share has room for as many refusals as a key may have in a second
    (app/limits/refusal_events.py), if they come over several seconds.
    """
    monkeypatch.setattr(world.services.tenant_share, "_peak", WITHOUT_PEAK)
    monkeypatch.setattr("app.limits.refusal_events.REFUSALS", REFUSALS)
    monkeypatch.setattr("app.limits.refusal_events.REFUSALS_OF_KEY", REFUSALS_OF_KEY)
    monkeypatch.setattr("app.audit.events.Event", partial(Event, at=now()))
    tenant = world.tenant()
    weak, path = world.key("audit:read", tenant=tenant), f"/v1/tenants/{tenant['id']}"
    codes = Counter(weak.raw("GET", path).get_json()["code"] for _ in range(REFUSALS.amount + 5))
    assert codes == {"forbidden": REFUSALS.amount, "rate_limited": 5}
    world.services.refusals.flush()
    rest = world.audit(action="request.refused", tenant_id=tenant["id"])
    counted = sum(event["details"]["count"] for event in rest)
    assert counted == REFUSALS.amount - REFUSALS_OF_KEY.amount


@pytest.mark.usefixtures("small_share", "stopped_clock")
@pytest.mark.parametrize("way", ["plain", "Flask"])
def test_a_tenant_has_a_share_of_the_refusals_of_credentials(world, way):
    """Each costs several times what another tenant's credentials do, and a tenant may have a
    thousand keys.
    """
    connection, other = world.connection(), world.connection()
    tenant = {"id": connection["tenant_id"]}
    weak = itertools.cycle([world.key("audit:read", tenant=tenant) for _ in range(5)])
    path = path_of(connection, "/credentials?plain=0" if way == "Flask" else "/credentials")
    ask = lambda: next(weak).raw("POST", path).get_json()["code"]  # noqa: E731
    most = REFUSED_CREDENTIALS.amount
    codes = Counter(ask() for _ in range(most + 5))
    assert codes == {"forbidden": most, "rate_limited": 5}
    with statements(world.services.db) as executed:
        assert ask() == "rate_limited"
    assert executed == [], "what is refused beyond it reads nothing"
    mallory_of(world, connection)("POST", path_of(connection, "/credentials"))
    for tenant in (None, {"id": other["tenant_id"]}):
        free = world.key("audit:read", tenant=tenant)
        free.refused("POST", path_of(other, "/credentials"), expect=403, code="forbidden")


@pytest.fixture
def pauses(monkeypatch, stopped_clock) -> list[float]:
    """The seconds that requests wait for their share, in which no time passes."""
    waited = []
    for module in ("tenant_share", "counting_in_memory"):
        monkeypatch.setattr(f"app.limits.{module}.pause", waited.append)
    monkeypatch.setattr("app.limits.tenant_share.rest", lambda _: None)
    return waited


def _ask(share, tenant_id, times):
    for _ in range(times):
        with share.request(tenant_id, PRICE):
            pass


def test_a_request_beyond_the_share_waits_for_its_slot(monkeypatch, pauses):
    share, tenant_id = TenantShare(), new_id()
    monkeypatch.setattr(share, "_peak", WITHOUT_PEAK)
    _ask(share, tenant_id, int(CPU_TIME.amount * CPU_TIME.burst / PRICE))
    assert pauses == []
    _ask(share, tenant_id, 1)
    assert pauses == [pytest.approx(PRICE / CPU_TIME.amount)]


def test_a_burst_of_requests_is_spread_over_seconds(pauses):
    share, tenant_id = TenantShare(), new_id()
    _ask(share, tenant_id, PEAK_CPU_TIME.amount * 2 // int(PRICE))
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(1.5, abs=0.1)
    with pytest.raises(RateLimitedError):
        _ask(share, tenant_id, PEAK_CPU_TIME.amount // int(PRICE))


def _stop_nothing(share, key, tenant_id, error=NotFoundError):
    with pytest.raises(error), share.stop(key, tenant_id):
        raise error


@pytest.mark.parametrize("error", [NotFoundError, UnprocessableEntity])
@pytest.mark.parametrize("tenant_id", [new_id(), None], ids=["bound", "unbound"])
def test_who_stops_nothing_again_and_again_waits_longer_each_time(pauses, tenant_id, error):
    """Otherwise sixty connections that revoke keys which do not exist take half of a process."""
    share = TenantShare()
    for _ in range(100):
        _stop_nothing(share, "a key", tenant_id, error)
    assert pauses == sorted(pauses)
    spent = 50 * MS_PER_FAILED_STOP - PEAK_CPU_TIME.amount * PEAK_CPU_TIME.burst
    assert pauses[49] == pytest.approx(spent / PEAK_CPU_TIME.amount)
    assert pauses[-1] == 5
    _stop_nothing(share, "another key", tenant_id, error)
    assert pauses[-1] == 5, "many keys share one debt"
    _stop_nothing(share, "another tenant's key", new_id(), error)
    assert pauses[-1] == 0


def test_a_tenant_waits_for_seconds_at_most_after_a_flood_of_failed_stops(pauses):
    share, tenant_id = TenantShare(), new_id()
    for _ in range(2_000):
        _stop_nothing(share, "a stolen key", tenant_id)
    with pytest.raises(RateLimitedError) as refused:
        _ask(share, tenant_id, 1)
    assert refused.value.retry_after <= 6


def test_a_stop_with_an_invalid_body_is_held_too(world, pauses):
    connection = world.connection()
    mallory = mallory_of(world, connection)
    for _ in range(10):
        mallory.refused(
            "POST", path_of(connection, "/suspend"), {}, expect=422, code="validation_failed"
        )
    assert pauses[-1] > 0


def test_an_absent_connection_is_refused_without_the_writers_lock(world, monkeypatch):
    path = path_of(world.connection() | {"id": str(new_id())})
    monkeypatch.setattr(Database, "write", None)
    world.admin.refused("DELETE", path, expect=404, code="not_found")


def test_all_refusals_of_a_subject_are_held_in_turns(monkeypatch):
    """Otherwise a client with more connections than are held is refused without a pause."""
    share, tenant, held, most = TenantShare(), new_id(), Counter(), []

    def rest(_):
        held[tenant] += 1
        most.append(held[tenant])
        time.sleep(0.02)
        held[tenant] -= 1

    monkeypatch.setattr("app.limits.tenant_share.rest", rest)
    with ThreadPoolExecutor(HELD_REFUSALS.amount * 2) as pool:
        list(pool.map(share.hold, [tenant] * HELD_REFUSALS.amount * 3))
    assert len(most) == HELD_REFUSALS.amount * 3
    assert max(most) <= HELD_REFUSALS.amount


def test_a_stop_that_failed_keeps_its_place_while_there_is_a_debt(monkeypatch):
    """A client that closes its connections pays nothing else."""
    share, tenant_id, rests = TenantShare(), new_id(), []
    monkeypatch.setattr("app.limits.tenant_share.pause", lambda _: None)

    def rest(seconds):
        places = share._places["stops", tenant_id]
        rests.append((seconds, places.free.acquire(0)))

    monkeypatch.setattr("app.limits.tenant_share.rest", rest)
    for _ in range(20):
        _stop_nothing(share, "a key", tenant_id)
    assert rests[0] == (0, False)
    assert rests[-1] == (0.05, False)
    _stop_nothing(share, "a key that did not fail", tenant_id)
    assert rests[-1] == (0, False), "a thousand such keys must not add up"


def test_stops_with_keys_whose_stops_failed_come_last(pauses):
    share, tenant_id, order = TenantShare(), new_id(), []
    failing = [f"failing {number}" for number in range(3)]
    for key in failing:
        _stop_nothing(share, key, tenant_id)

    def stop(key):
        with share.stop(key, tenant_id):
            order.append(key)

    with ThreadPoolExecutor(5) as pool, share._place(limits.STOPS, tenant_id):
        places = share._places["stops", tenant_id].free
        for number, key in enumerate([*failing, "the owner's", "another"], start=1):
            pool.submit(stop, key)
            until(lambda number=number: len(places._waiting) + len(places._urgent) == number)
    assert order == ["the owner's", "another", *failing]


def test_an_unknown_key_or_link_takes_a_place_at_each_route_that_looks_it_up(world, monkeypatch):
    looks = Mock(side_effect=world.services.tenant_share.looking_up)
    monkeypatch.setattr(world.services.tenant_share, "looking_up", looks)
    issue = f"/v1/tenants/{new_id()}/connections/{new_id()}/credentials"
    for number, (method, path) in enumerate(
        (
            ("GET", "/v1/tenants"),
            ("POST", issue),
            ("GET", "/readyz"),
            ("GET", f"/onboard/{secrets.token_urlsafe(32)}"),
        )
    ):
        world.admin.with_key(generate_key()).raw(method, path)
        assert looks.call_count == number + 1, path


@pytest.mark.parametrize("limit", [limits.VENDOR_STOPS, limits.UNKNOWN_KEYS])
def test_stops_with_unbound_keys_and_unknown_keys_leave_room_in_the_database(limit):
    share, running, most = TenantShare(), Counter(), []
    stops = limit is limits.VENDOR_STOPS

    def work(number):
        with share.stop(f"key {number}", None) if stops else share.looking_up():
            running["all"] += 1
            most.append(running["all"])
            time.sleep(0.02)
            running["all"] -= 1

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(work, range(40)))
    assert max(most) == limit.amount


def test_a_waiting_stop_of_a_key_that_failed_meanwhile_is_not_urgent(pauses):
    """Otherwise many waiting stops of a key would all come before the administrator's."""
    share, tenant_id, seen = TenantShare(), new_id(), []

    def stop():
        with suppress(NotFoundError), share.stop("a key", tenant_id):
            seen.append(urgent.get())
            raise NotFoundError

    with ThreadPoolExecutor(2) as pool, share._place(limits.STOPS, tenant_id):
        both = [pool.submit(stop) for _ in range(2)]
        until(lambda: share._places["stops", tenant_id].free._urgent)
    assert [each.result(30) for each in both] == [None, None]
    assert seen == [True, False]
