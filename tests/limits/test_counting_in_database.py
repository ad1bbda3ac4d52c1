"""Quotas: exact for the whole deployment; what is refused is not counted, and old rows go."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy
from sqlalchemy import event

from app import services as composition
from app.errors import RateLimitedError, StoreUnavailableError
from app.identity import LinkPrincipal
from app.ids import new_id
from app.limits.limits import ATTEMPTS, CHECKS, ROLES_ENTERED
from app.store.database import SYSTEM
from app.store.models import QuotaUse
from tests.conftest import make_config
from tests.support.databases import NOWHERE, new_database
from tests.support.rows import ADMIN, at_once
from tests.support.waiting import until

ROLE, CHECK = (ROLES_ENTERED, ATTEMPTS), (CHECKS, ATTEMPTS)
ROLES, OF_LINK = 24, 16  # a tenant's and a link's, in a minute and in an hour
NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def both_services():
    """Two of them, as two gunicorn workers, on a database of their own."""
    with new_database() as url:
        config = make_config(url, connection_rate=ROLES, link_rate=OF_LINK)
        both = [composition.Services(config) for _ in range(2)]
        yield both
        for services in both:
            services.db.engine.dispose()


@pytest.fixture
def two_services(both_services):
    """They have counted nothing yet."""
    with both_services[0].db.write(SYSTEM) as db:
        db.execute(sqlalchemy.delete(QuotaUse))
    return both_services


@pytest.fixture
def noon_plus(monkeypatch):
    """`noon_plus(seconds)`: the time is noon, and so many seconds."""

    def move(seconds):
        moved = NOON + timedelta(seconds=seconds)
        monkeypatch.setattr("app.limits.counting_in_database.now", lambda: moved)

    move(0)
    return move


class Visitor(LinkPrincipal):
    """A link without a row that could be read again."""

    def reauthorize(self, db):
        pass


def link(tenant_id):
    return Visitor(tenant_id, new_id())


def attempt(quotas, tenant):
    quotas.acquire(ADMIN, tenant, ATTEMPTS)


def enter(quotas, visitor):
    quotas.acquire(visitor, visitor.tenant_scope, *ROLE)


def admitted(count, *given):
    try:
        count(*given)
    except RateLimitedError:
        return False
    return True


def retry_after(count, *given):
    with pytest.raises(RateLimitedError) as refused:
        count(*given)
    return refused.value.retry_after


def uses(services):
    with services.db.read() as db:
        return {(use.name, use.id): use.counted for use in db.scalars(sqlalchemy.select(QuotaUse))}


def test_two_processes_together_acquire_exactly_the_limit(two_services, noon_plus):
    for limits, most in ((ATTEMPTS,), ROLES), (ROLE, OF_LINK), (CHECK, OF_LINK):
        tenant = new_id()
        visitor = link(tenant)
        counts = [services.quotas.acquire for services in two_services] * most
        assert [admitted(count, visitor, tenant, *limits) for count in counts] == [True] * most + [
            False
        ] * most, limits


def test_many_threads_of_both_processes_at_once_do_not_exceed_a_quota(two_services, noon_plus):
    """The first ones too, when there is no row that could be locked."""
    tenant = new_id()
    visitor = link(tenant)
    first = at_once([lambda s=s: enter(s.quotas, visitor) for s in two_services * 6])
    assert first == [None] * 12
    with ThreadPoolExecutor(16) as pool:
        more = pool.map(lambda n: admitted(enter, two_services[n % 2].quotas, visitor), range(24))
        assert sum(more) == OF_LINK - 12
    assert uses(two_services[0]) == {
        ("paste", visitor.link_id): OF_LINK,
        ("attempt", tenant): OF_LINK,
    }


def test_a_refused_request_writes_nothing_and_does_not_queue_to_write(two_services, noon_plus):
    one, other = two_services
    tenant = new_id()
    visitor = link(tenant)
    for _ in range(OF_LINK):
        enter(one.quotas, visitor)
    before, statements = uses(one), []
    event.listen(one.db.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    with ThreadPoolExecutor(1) as pool, other.db.write(SYSTEM) as db:
        db.execute(sqlalchemy.update(QuotaUse).values(counted=QuotaUse.counted))
        refused = pool.submit(admitted, enter, one.quotas, visitor)
        assert refused.result(timeout=60) is False
    assert statements
    assert {statement.split()[0] for statement in statements} <= {"BEGIN", "SELECT"}
    assert uses(one) == before


def test_a_request_that_looked_before_the_last_place_was_taken_is_refused_and_leaves_nothing(
    two_services, noon_plus
):
    one, other = two_services
    tenant = new_id()
    attempt(one.quotas, tenant)
    with ThreadPoolExecutor(1) as pool:
        with other.db.write(SYSTEM) as db:
            db.execute(sqlalchemy.update(QuotaUse).values(counted=ROLES))
            seen = []
            event.listen(one.db.engine, "after_cursor_execute", lambda *args: seen.append(args[2]))
            late = pool.submit(admitted, enter, one.quotas, link(tenant))
            until(
                lambda: sum("FROM quota_uses" in statement for statement in seen) >= 2,
                "it looked at both quotas",
            )
            assert not late.done()
        assert late.result() is False
    assert uses(other) == {("attempt", tenant): ROLES}


def test_other_names_links_and_tenants_have_quotas_of_their_own(two_services, noon_plus):
    quotas, tenant, other = two_services[0].quotas, new_id(), new_id()
    visitor = link(tenant)
    for _ in range(OF_LINK):
        enter(quotas, visitor)
    assert not admitted(enter, quotas, visitor)
    assert admitted(quotas.acquire, visitor, tenant, *CHECK)
    assert admitted(enter, quotas, link(tenant))
    assert admitted(attempt, quotas, tenant)
    assert admitted(attempt, quotas, other)


def test_another_tenants_key_counts_nothing_for_a_tenant(two_services, noon_plus):
    mallory = replace(ADMIN, tenant_scope=new_id())
    two_services[0].quotas.acquire(mallory, new_id(), ATTEMPTS)
    assert uses(two_services[0]) == {}


@pytest.mark.parametrize(("first", "asked"), [(0, 30), (50, 100)])
def test_a_request_is_admitted_after_the_wait_and_not_a_second_before(
    two_services, noon_plus, first, asked
):
    quotas, tenant = two_services[0].quotas, new_id()
    noon_plus(first)
    for _ in range(ROLES):
        attempt(quotas, tenant)
    noon_plus(asked)
    while admitted(attempt, quotas, tenant):  # what has faded by then
        pass
    wait = retry_after(attempt, quotas, tenant)
    assert 1 <= wait <= 60
    noon_plus(asked + wait - 1)
    assert not admitted(attempt, quotas, tenant)
    noon_plus(asked + wait)
    assert admitted(attempt, quotas, tenant)


def test_old_uses_of_quotas_do_not_pile_up(two_services, noon_plus):
    quotas = two_services[0].quotas
    old = [new_id() for _ in range(30)]
    for tenant in old:
        attempt(quotas, tenant)
    visitor = link(old[0])
    enter(quotas, visitor)
    noon_plus(60)
    attempt(quotas, new_id())
    assert len(uses(two_services[0])) == 32, "they still count for the window that follows theirs"
    noon_plus(120)
    attempt(quotas, new_id())
    assert len(uses(two_services[0])) == 33 - 20, "a few at a time"
    mine = new_id()
    for _ in range(2):
        attempt(quotas, mine)
    assert set(uses(two_services[0])) >= {("paste", visitor.link_id), ("attempt", mine)}
    noon_plus(240)
    attempt(quotas, mine)
    assert uses(two_services[0]) == {("paste", visitor.link_id): 1, ("attempt", mine): 1}


def test_the_uses_of_one_quota_leave_those_of_another_for_the_same_tenant(two_services, noon_plus):
    services, tenant = two_services[0], new_id()
    attempt(services.quotas, tenant)
    with services.db.write(SYSTEM) as db:
        db.add(QuotaUse(name="change", id=tenant, number=10**9, counted=7, counted_before=0))
    noon_plus(240)
    attempt(services.quotas, new_id())
    assert ("change", tenant) in uses(services)
    assert ("attempt", tenant) not in uses(services)


def test_many_who_begin_a_window_and_forget_at_once_do_not_fail(two_services, noon_plus):
    for _ in range(32):
        attempt(two_services[0].quotas, new_id())
    noon_plus(120)
    tenants = [new_id() for _ in range(16)]
    jobs = [lambda n=n, t=t: attempt(two_services[n % 2].quotas, t) for n, t in enumerate(tenants)]
    assert at_once(jobs) == [None] * 16
    assert uses(two_services[0]) == {("attempt", tenant): 1 for tenant in tenants}


def test_old_rows_that_somebody_else_has_are_left_and_not_waited_for(two_services, noon_plus):
    one, other = two_services
    attempt(one.quotas, new_id())
    noon_plus(120)
    with ThreadPoolExecutor(1) as pool, other.db.write(SYSTEM) as db:
        db.execute(sqlalchemy.update(QuotaUse).values(counted=QuotaUse.counted))
        assert pool.submit(admitted, attempt, one.quotas, new_id()).result(timeout=60)


def test_a_database_that_is_away_is_said():
    quotas = composition.Services(make_config(NOWHERE)).quotas
    with pytest.raises(StoreUnavailableError):
        attempt(quotas, new_id())
