"""Keys that change keys at the same time, on PostgreSQL: each request is answered, and none is
in a deadlock.
"""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.exc import OperationalError

from app.clock import now
from app.errors import NotFoundError
from app.identity import family_revocation, lock_owned, owned, tenant_of
from app.identity.principals import ApiKeyPrincipal, LinkPrincipal
from app.identity.scopes import ALL_SCOPES
from app.ids import new_id
from app.limits.limits import KEYS
from app.services import Services
from app.store import database
from app.store.database import SYSTEM
from app.store.models import ApiKey, Connection, OnboardingLink, Tenant, WebhookEndpoint
from app.store.models.webhook import locked_endpoints
from tests.conftest import OPERATOR
from tests.identity.test_stops import Place, all_dead, deadlocks
from tests.support.rows import at_once, link_row, tenant_row
from tests.support.waiting import until, waiting_for_locks

EVERYTHING = {"name": "a program", "scopes": ["keys:write", "tenants:write", "connections:write"]}


@pytest.fixture
def services(app) -> Services:
    return app.extensions["deputy"]


@pytest.fixture(autouse=True)
def no_deadlock(services) -> Iterator[None]:
    """What PostgreSQL broke up would be a 409, and perhaps one that is right: so it is asked
    itself.
    """
    before = deadlocks(services.db)
    yield
    assert deadlocks(services.db) == before


def made(by, **wanted):
    """The path of a new key, and its own API."""
    found = by("POST", "/v1/api-keys", EVERYTHING | wanted, expect=201)
    return f"/v1/api-keys/{found['id']}", by.with_key(found["key"])


def statuses(*requests):
    """What all of them are answered, sent at once."""
    jobs = [
        lambda api=api, method=method, path=path: (
            api.with_key(api.key).raw(method, path).status_code
        )
        for api, method, path in requests
    ]
    return at_once(jobs)


def test_of_keys_that_revoke_themselves_or_each_other_at_once_one_wins(world):
    for _ in range(2):
        (one, first), (other, second) = made(world.admin), made(world.admin)
        for requests in (
            [(first, "DELETE", other), (second, "DELETE", one)] * 3,
            [(api, "DELETE", path) for path, api in [made(world.admin)] * 6],
        ):
            answers = statuses(*requests)
            assert answers.count(204) == 1
            # 404: the key was revoked between this request's authentication and its look for it
            assert set(answers) <= {204, 401, 404}


def test_families_that_are_revoked_from_both_ends_at_once(world):
    path, maker = made(world.admin)
    chain = [(path, maker)]
    for _ in range(4):
        chain.append(made(chain[-1][1]))
    answers = statuses(
        *[(world.admin, "DELETE", path) for path, _ in chain],
        *[(api, "DELETE", chain[0][0]) for _, api in chain],
    )
    assert set(answers) <= {204, 401, 404}
    assert [api.raw("GET", "/v1/api-keys").status_code for _, api in chain] == [401] * 5


def test_a_tenant_is_deleted_while_its_keys_revoke_replace_and_make_others(world):
    tenant = world.tenant()
    _, maker = made(world.admin, tenant_id=tenant["id"])
    children = [made(maker) for _ in range(4)]
    answers = statuses(
        (world.admin, "DELETE", f"/v1/tenants/{tenant['id']}"),
        *[(maker, "DELETE", path) for path, _ in children],
        *[(maker, "POST", f"{path}/replace") for path, _ in children],
        *[(api, "POST", f"/v1/tenants/{tenant['id']}/onboarding-links") for _, api in children],
    )
    assert answers[0] == 204
    assert set(answers[1:]) <= {201, 204, 401, 404, 409}
    assert maker.raw("GET", "/v1/api-keys").status_code == 401


def test_keys_that_are_replaced_and_revoked_at_once(world):
    path, maker = made(world.admin)
    children = [made(maker)[0] for _ in range(3)]
    answers = statuses(
        *[(world.admin, "POST", f"{path}/replace")] * 2,
        (maker, "POST", f"{path}/replace"),
        *[(maker, "DELETE", child) for child in children],
        *[(world.admin, "POST", f"{child}/replace") for child in children],
    )
    assert set(answers) <= {201, 204, 401, 404, 409}
    assert answers[:3].count(201) == 1


def test_a_key_is_replaced_while_its_endpoints_are_delivered(services):
    """The endpoint that was made first had an event, so its row lies behind the other's."""
    key, _ = services.api_keys.create_key(OPERATOR, name="x", scopes=ALL_SCOPES)
    first, second = new_id(), new_id()
    of_key = {"url_by": key.id, "secret_by": key.id, "by_vendor": True}
    with services.db.write(SYSTEM) as db:
        db.add_all(
            WebhookEndpoint(id=each, url="https://x.example/", types=["*"], secret=b"s", **of_key)
            for each in (first, second)
        )
    with services.db.write(SYSTEM) as db:
        db.get(WebhookEndpoint, first).due_at = now()
    with ThreadPoolExecutor(1) as pool:
        with services.db.write(SYSTEM) as db:
            db.execute(locked_endpoints(WebhookEndpoint.id == first))
            replacing = pool.submit(services.api_keys.replace_key, OPERATOR, key.id)
            until(lambda: waiting_for_locks(services.db))
            db.execute(locked_endpoints(WebhookEndpoint.id == second))
        successor, _, _ = replacing.result(60)
    with services.db.read() as db:
        makers = [db.get(WebhookEndpoint, each).url_by for each in (first, second)]
    assert makers == [successor.id] * 2


def test_the_last_place_is_taken_once(world, app, monkeypatch):
    tenant = world.tenant()
    monkeypatch.setattr(app.extensions["deputy"].api_keys, "_limit", KEYS._replace(most=3))
    bodies = EVERYTHING | {"tenant_id": tenant["id"]}
    jobs = [
        lambda: (
            world.admin.with_key(world.admin.key).raw("POST", "/v1/api-keys", bodies).status_code
        )
        for _ in range(6)
    ]
    assert sorted(at_once(jobs)) == [201, 201, 201, 429, 429, 429]


@pytest.mark.parametrize("kind", ["api_key", "onboarding_link"])
def test_requests_of_one_key_or_link_write_side_by_side_and_lock_no_row(services, kind):
    tenant_id = tenant_row(services.db)
    if kind == "api_key":
        made, _ = services.api_keys.create_key(
            OPERATOR, name="x", scopes=ALL_SCOPES, tenant_id=tenant_id
        )
        table, row_id = ApiKey, made.id
        caller = ApiKeyPrincipal(row_id, "0" * 16, b"", "x", frozenset(), tenant_id, None)
    else:
        table, row_id = OnboardingLink, link_row(services.db, tenant_id)
        caller = LinkPrincipal(tenant_id, row_id)
    with services.db.write(caller), services.db.write(caller), services.db.write(SYSTEM) as other:
        for row in (
            sqlalchemy.select(table.id).where(table.id == row_id),
            sqlalchemy.select(Tenant.id),
        ):
            assert other.scalars(row.with_for_update(nowait=True)).first()


# --- whom it holds up ---


@pytest.fixture
def besieged(app) -> Place:
    return Place(app.extensions["deputy"])


def tenant_apart(besieged, *others):
    """A tenant that shares no lock with these tenants and keys."""
    tenants, locks = iter(lambda: tenant_row(besieged.db), None), database._PRINCIPALS
    return next(
        found for found in tenants if all((found.int - other.int) % locks for other in others)
    )


@pytest.fixture
def elsewhere(besieged) -> uuid.UUID:
    return tenant_apart(besieged, besieged.tenant_id)


def write_once(besieged, caller):
    with besieged.db.write(caller):
        """Its lock is what counts."""


def test_a_revocation_in_a_tenant_holds_up_no_writer_of_another_tenant(besieged, elsewhere):
    stolen, _ = besieged.key(OPERATOR, besieged.tenant_id)
    neighbour, _ = besieged.key(OPERATOR, elsewhere)
    key = sqlalchemy.select(ApiKey).where(ApiKey.id == stolen.key_id)
    with ThreadPoolExecutor(2) as pool:
        with besieged.db.write(family_revocation.ending(besieged.vendor, key)):
            pool.submit(write_once, besieged, neighbour).result(timeout=30)
            waiting = pool.submit(write_once, besieged, stolen)
            until(lambda: waiting_for_locks(besieged.db) or waiting.done())
            assert not waiting.done()
        waiting.result(timeout=30)


@pytest.mark.parametrize("writes", ["itself", "its child"])
def test_a_replacement_waits_for_what_the_key_and_its_children_write(besieged, writes):
    """Otherwise a key that they create meanwhile would not belong to the successor."""
    first, _ = besieged.key(OPERATOR)
    child, _ = besieged.key(first)
    with ThreadPoolExecutor(1) as pool:
        with besieged.db.write(first if writes == "itself" else child):
            replacing = pool.submit(besieged.services.api_keys.replace_key, OPERATOR, first.key_id)
            until(lambda: waiting_for_locks(besieged.db) or replacing.done())
            assert not replacing.done()
        replacing.result(timeout=30)


def test_a_replacement_holds_up_no_writer_further_down_the_family(besieged):
    first, _ = besieged.key(OPERATOR)
    child, _ = besieged.key(first)
    grandchild, _ = besieged.key(child, tenant_apart(besieged, first.key_id, child.key_id))
    key = sqlalchemy.select(ApiKey).where(ApiKey.id == first.key_id)
    with (
        ThreadPoolExecutor(1) as pool,
        besieged.db.write(family_revocation.replacing(OPERATOR, key)),
    ):
        writing = pool.submit(write_once, besieged, grandchild)
        assert wait([writing], 30).done == {writing}
        writing.result()


def test_a_caller_who_names_what_is_not_theirs_locks_nothing_of_it(besieged, elsewhere):
    stranger, _ = besieged.key(OPERATOR, elsewhere)
    with besieged.db.write(besieged.vendor) as db:
        owned(db, besieged.vendor, besieged.tenant_id, besieged.connection_id, lock=True)
        tenant_of(db, besieged.vendor, besieged.tenant_id, lock=True)
        with besieged.db.write(stranger) as other:
            for tenant_id in (besieged.tenant_id, elsewhere):
                with pytest.raises(NotFoundError):
                    owned(other, stranger, tenant_id, besieged.connection_id, lock=True)
            with pytest.raises(NotFoundError):
                tenant_of(other, stranger, besieged.tenant_id, lock=True)


def test_lock_owned_locks_the_tenant_and_the_connection(besieged):
    with besieged.db.write(besieged.vendor) as db, besieged.db.write(SYSTEM) as other:
        lock_owned(db, besieged.vendor, besieged.tenant_id, besieged.connection_id)
        for row, row_id in ((Tenant, besieged.tenant_id), (Connection, besieged.connection_id)):
            unlocked = sqlalchemy.select(row.id).where(row.id == row_id)
            assert other.scalars(unlocked.with_for_update(skip_locked=True)).all() == []


def test_unbound_keys_are_replaced_one_after_the_other(besieged):
    """Two at once, each by what the other key made, would be a ring of successors that no
    revocation reaches.
    """
    first, _ = besieged.key(OPERATOR)
    second, _ = besieged.key(OPERATOR)
    key = sqlalchemy.select(ApiKey).where(ApiKey.id == first.key_id)
    with ThreadPoolExecutor(1) as pool:
        with besieged.db.write(family_revocation.ending(besieged.vendor, key)):
            replacing = pool.submit(besieged.services.api_keys.replace_key, OPERATOR, second.key_id)
            until(lambda: waiting_for_locks(besieged.db) or replacing.done())
            assert not replacing.done()
        replacing.result(timeout=30)


# --- collisions ---


def test_a_stop_that_collides_is_tried_again(besieged, monkeypatch):
    """No two of our own transactions collide; those of a release before, or of a person at a SQL
    prompt, may.
    """
    stolen, text = besieged.key(OPERATOR)
    inner, collisions = family_revocation.revoke_family, []

    class Broken(psycopg.errors.DeadlockDetected):
        pass

    def collide_first(db, key_id):
        if len(collisions) < 2:
            collisions.append(None)
            raise OperationalError("UPDATE", None, Broken())
        return inner(db, key_id)

    monkeypatch.setattr(family_revocation, "revoke_family", collide_first)
    besieged.services.api_keys.revoke_key(besieged.vendor, stolen.key_id)
    assert all_dead(besieged, [text])
