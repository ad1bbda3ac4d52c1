"""How often onboarding pages may be asked for: whatever the method and the path, by link and by
tenant.
"""

import pytest

from app.errors import RateLimitedError
from app.ids import new_id
from app.limits.counting_in_memory import Rate, Rates
from app.limits.limits import PAGE, PAGES
from app.web.onboarding import routes
from tests.support.rows import statements
from tests.web.conftest import visit

NO_ID = "00000000-0000-7000-8000-000000000000"
RENDERING = [
    ("GET", ""),
    ("HEAD", ""),
    ("GET", "/status"),
    ("HEAD", "/status"),
    ("GET", "/connections"),
    ("GET", "/review"),
    ("GET", "/review.json"),
]
RENDERING += [
    ("POST", "/connections"),
    ("POST", f"/connections/{NO_ID}/verify"),
    ("POST", f"/connections/{NO_ID}/stop"),
]


@pytest.fixture
def rates(app, monkeypatch, stopped_clock) -> Rates:
    """With the real limits, at a clock that stands still. Nothing waits for its turn."""
    found = app.extensions["deputy"].rates
    monkeypatch.setattr(found, "_page", Rate(PAGE, None))
    monkeypatch.setattr(found, "_pages", Rate(PAGES._replace(patience=0.0), None))
    return found


def link(world, tenant):
    return visit(world, tenant).path


def test_every_request_to_a_page_counts(world, app, rates, monkeypatch):
    monkeypatch.setattr(rates, "_page", Rate(PAGE._replace(most=2), None))
    client = app.test_client()
    for method, what in RENDERING:
        path = link(world, world.tenant())
        answers = [client.open(path + what, method=method).status_code for _ in range(5)]
        assert 429 not in answers[:-1], (method, what)
        assert answers[-1] == 429, (method, what)
    for method, what in RENDERING:
        refused = client.open(path + what, method=method)
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "1"
        assert refused.content_type.startswith("text/html")
    assert "Too many requests for this page" in client.get(path).text


def test_each_refused_request_is_held_for_a_moment(world, app, rates, monkeypatch):
    held = []
    monkeypatch.setattr(app.extensions["deputy"].tenant_share, "hold", held.append)
    monkeypatch.setattr(rates, "_page", Rate(PAGE._replace(most=1), None))
    path, client = link(world, world.tenant()), app.test_client()
    answers = [client.get(path).status_code for _ in range(4)]
    assert answers[-1] == 429
    assert len(held) == answers.count(429)


def test_the_links_of_a_tenant_count_together(world, app, rates):
    tenant, client = world.tenant(), app.test_client()
    links = [link(world, tenant) for _ in range(PAGES.amount + 1)]
    answers = [client.head(path).status_code for path in links]
    assert answers == [200] * PAGES.amount + [429]
    assert "Too many requests for your pages" in client.get(links[0]).text
    assert client.get(link(world, world.tenant())).status_code == 200, (
        "another tenant's pages are its own"
    )


def test_beyond_the_tenants_rate_a_request_waits_for_its_turn_where_that_comes_soon(
    world, app, rates, monkeypatch
):
    slept = []
    monkeypatch.setattr("app.limits.counting_in_memory.pause", slept.append)
    monkeypatch.setattr(rates, "_pages", Rate(PAGES, None))
    tenant, client = world.tenant(), app.test_client()
    links = [link(world, tenant) for _ in range(4)]
    answers = [client.get(path).status_code for _ in range(4) for path in links]
    assert set(answers) == {200}
    assert slept == pytest.approx([0.1 * (turn + 1) for turn in range(6)])


def test_a_link_that_does_not_work_is_counted_for_itself_alone(world, app, rates):
    tenant, client = world.tenant(), app.test_client()
    revoked, other = link(world, tenant), link(world, tenant)
    assert client.get(revoked).status_code == 200
    [made] = world.admin("GET", f"/v1/tenants/{tenant['id']}/onboarding-links?limit=2")["items"][1:]
    world.admin("DELETE", f"/v1/tenants/{tenant['id']}/onboarding-links/{made['id']}", expect=204)
    answers = [client.get(revoked).status_code for _ in range(3 * PAGE.amount)]
    assert answers == [404] * (2 * PAGE.amount - 1) + [429] * (PAGE.amount + 1)
    assert [client.get(other).status_code for _ in range(PAGE.amount)] == [200] * PAGE.amount


def test_links_that_never_worked_are_not_counted_for_their_tenant(world, app, rates):
    tenant, client = world.tenant(), app.test_client()
    for _ in range(3 * PAGE.amount):
        revoked = visit(world, tenant)
        path = f"/v1/tenants/{tenant['id']}/onboarding-links/{revoked.link_id}"
        world.admin("DELETE", path, expect=204)
        assert client.get(revoked.path).status_code == 404
    assert client.get(link(world, tenant)).status_code == 200


def test_a_request_beyond_the_limit_and_one_with_an_unknown_link_cost_next_to_nothing(
    world, app, rates, monkeypatch
):
    path, client = link(world, world.tenant()), app.test_client()
    for _ in range(3 * PAGE.amount):
        client.get(path)
    assert client.get("/onboard/" + "x" * 43).status_code == 404
    for module in ("routes", "page_data"):
        render = f"app.web.onboarding.{module}.render_template"
        monkeypatch.setattr(render, lambda *_, **__: pytest.fail("rendered"))
    with statements(app.extensions["deputy"].db) as executed:
        assert client.get(path).status_code == 429
        assert client.get("/onboard/short").status_code == 404
        assert client.options(path).status_code == 404
        assert executed == []
        assert client.get("/onboard/" + "y" * 43).status_code == 404
    [(read, _)] = executed
    assert read.endswith("WHERE onboarding_links.digest = %(digest)s")


def test_twenty_people_with_open_pages_do_not_meet_the_limit(rates, stopped_clock, monkeypatch):
    """Ten have the same link open and ten another one. Each page asks every three seconds."""
    monkeypatch.setattr(stopped_clock, "sleep", lambda _: None, raising=False)
    monkeypatch.setattr(rates, "_pages", Rate(PAGES._replace(waiting=20), None))
    tenant, links = new_id(), [new_id(), new_id()]
    people = [(3 * (number * 0.618 % 1), links[number % 2]) for number in range(20)]
    requests = sorted(
        (begin + 3 * turn, link_id) for begin, link_id in people for turn in range(20)
    )
    passed, refused = 0.0, []
    for at, link_id in requests:
        stopped_clock.move(at - passed)
        passed = at
        try:
            rates.acquire_page(link_id, tenant)
        except RateLimitedError:
            refused.append(at)
    assert refused == []


def test_a_form_of_more_than_an_arn_needs_is_not_read(world, app):
    path, client = f"{link(world, world.tenant())}/connections", app.test_client()
    form = "application/x-www-form-urlencoded"
    assert client.post(path, data=b"a=1&" * 5000, content_type=form).status_code == 413
    assert client.post(path, data=b"a=1&" * 2000, content_type=form).status_code == 422


def test_a_form_that_can_not_be_read_counts(world, app, monkeypatch):
    monkeypatch.setattr(routes, "ROLES_ENTERED", routes.ROLES_ENTERED._replace(most=2))
    path, client = f"{link(world, world.tenant())}/connections", app.test_client()
    form = {"data": b"a=1&" * 5000, "content_type": "application/x-www-form-urlencoded"}
    assert [client.post(path, **form).status_code for _ in range(3)] == [413, 413, 429]
