"""Deliveries of webhooks: their contents, their times, and their number."""

import itertools
import json
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import jsonschema
import pytest
import sqlalchemy
from standardwebhooks import Webhook

from app import VERSION
from app.audit import actions
from app.audit.actions import WEBHOOK_TYPES
from app.background.housekeeping import tidy
from app.clock import now
from app.errors import (
    AppError,
    ConflictError,
    RateLimitedError,
    UnauthenticatedError,
    ValidationFailedError,
)
from app.health.checks import Status
from app.identity.scopes import Scope
from app.ids import first_id_at, new_id
from app.outbound.door import HttpAnswer
from app.store.database import SYSTEM
from app.store.models import (
    AuditEvent,
    EndpointStatus,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from app.webhooks import delivery
from app.webhooks.delivery import THREADS
from app.webhooks.endpoint_secrets import Secrets, check_secrets, seal_again
from app.webhooks.events import BODY_BYTES
from app.webhooks.retention import finding
from app.webhooks.retries_and_disabling import RETRIES, Outcome
from tests.support.cast import OPERATOR
from tests.support.waiting import until, waiting_for_locks
from tests.webhooks.conftest import deliver, endpoint_of, key_principal


def tenants(services, *names):
    return [services.tenants.create(OPERATOR, name=name) for name in names]


def rows(services, model):
    with services.db.read() as db:
        return list(db.scalars(sqlalchemy.select(model).order_by(model.id)))


def test_an_event_is_told_once_signed_as_the_specification_says(services, receiver):
    _, secret = endpoint_of(services, receiver)
    (tenant,) = tenants(services, "Acme")
    assert len(deliver(services)) == 1
    assert deliver(services) == []
    [(_, headers, body)] = receiver.got
    event = Webhook(secret).verify(body, headers)
    assert event["type"] == "tenant.created"
    assert event["data"]["tenant_id"] == str(tenant.id)
    [stored] = rows(services, WebhookEvent)
    assert headers["webhook-id"] == str(stored.id) == event["data"]["event_id"]
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == f"deputy/{VERSION}"


def test_what_did_not_happen_is_not_told(services, receiver):
    endpoint_of(services, receiver)

    class UndoneError(Exception):
        pass

    def undone():
        with services.db.write(SYSTEM) as db:
            actions.PROBER_SIGHTED.record(db, OPERATOR.actor, {"seen": "", "next": ""})
            raise UndoneError

    with pytest.raises(UndoneError):
        undone()
    assert deliver(services) == []


def test_an_endpoint_is_told_of_its_types_alone(services, receiver):
    endpoint_of(services, receiver, "/some", types=["tenant.suspended"])
    endpoint_of(services, receiver, "/all")
    (tenant,) = tenants(services, "Acme")
    services.tenants.suspend(OPERATOR, tenant.id, reason="a test")
    deliver(services)
    assert receiver.types("/some") == ["tenant.suspended"]
    assert sorted(receiver.types("/all")) == ["tenant.created", "tenant.suspended"]
    [suspended] = [e for e in receiver.events if e["type"] == "tenant.suspended"][:1]
    details = suspended["data"]["details"]
    assert (details["was"], details["status"]) == ("active", "suspended")


def test_events_that_no_endpoint_is_for_are_not_kept(services):
    tenants(services, "Acme", "Other")
    deliver(services)
    assert rows(services, WebhookEvent) == []


def test_a_tenants_endpoint_is_told_what_the_tenant_may_see(services, receiver):
    mine, other = tenants(services, "Mine", "Other")
    endpoint_of(services, receiver, "/mine", tenant_id=mine.id)
    endpoint_of(services, receiver, "/vendor")
    for tenant in (mine, other):
        services.tenants.suspend(OPERATOR, tenant.id, reason="fraud")
    deliver(services)
    told = [json.loads(body)["data"] for path, _, body in receiver.got if path == "/mine"]
    assert {data["tenant_id"] for data in told} == {str(mine.id)}
    assert [data["details"].get("reason") for data in told] == [None, None]
    reasons = {
        json.loads(body)["data"]["details"].get("reason")
        for path, _, body in receiver.got
        if path == "/vendor"
    }
    assert reasons == {None, "fraud"}


def test_an_endpoint_ends_with_its_tenant(services, receiver):
    (mine,) = tenants(services, "Mine")
    endpoint_of(services, receiver, tenant_id=mine.id)
    deliver(services)
    receiver.got.clear()
    services.tenants.delete(OPERATOR, mine.id)
    assert deliver(services) == []
    assert receiver.got == []


def test_a_delivery_is_tried_again_by_the_schedule_and_then_given_up(services, receiver, clock):
    endpoint_of(services, receiver)
    receiver.answers["/hook"] = 500
    tenants(services, "Acme")
    assert len(deliver(services)) == 1
    for seconds in RETRIES:
        clock.shift(timedelta(seconds=seconds * 0.85))
        assert deliver(services) == [], f"earlier than {seconds} s"
        clock.shift(timedelta(seconds=seconds * 0.3))
        assert len(deliver(services)) == 1, f"{seconds} s later"
    clock.shift(timedelta(days=1.5))
    assert deliver(services) == []
    [delivery] = rows(services, WebhookDelivery)
    assert (delivery.status, len(delivery.attempts)) == ("failed", 10)


def test_a_receiver_that_was_down_for_a_day_gets_every_event_once(services, receiver, clock):
    endpoint_of(services, receiver)
    receiver.answers["/hook"] = 503
    for hour in range(0, 24, 2):
        tenants(services, f"Tenant {hour}")
        deliver(services)
        clock.shift(timedelta(hours=2))
    tried = len(receiver.tried)
    assert tried < 30, "a receiver that is down is tried rarely"
    receiver.answers.clear()
    for _ in range(20):
        clock.shift(timedelta(hours=5))
        deliver(services)
    names = [event["data"]["details"]["name"] for event in receiver.events]
    assert sorted(names) == sorted(f"Tenant {hour}" for hour in range(0, 24, 2))
    ids = [headers["webhook-id"] for _, headers, _ in receiver.got]
    assert len(set(ids)) == 12


def test_a_success_frees_all_that_waits(services, receiver, clock):
    endpoint_of(services, receiver)
    receiver.answers["/hook"] = 503
    tenants(services, *map(str, range(10)))
    assert len(deliver(services)) == 1, "one that is unsure is asked once"
    receiver.answers.clear()
    clock.shift(timedelta(seconds=10))
    deliver(services)
    assert len(receiver.got) >= 9


def test_an_endpoint_that_is_down_is_probed_soon_and_each_minute_for_an_hour(
    services, receiver, clock
):
    endpoint_of(services, receiver)
    receiver.answers["/hook"] = 502
    first, _ = tenants(services, "Acme", "Other")
    assert len(deliver(services)) == 1
    for number, seconds in enumerate([5, 10, 20, 40, *[60] * 50]):
        clock.shift(timedelta(seconds=seconds * 0.85))
        services.tenants.change(OPERATOR, first.id, {"name": f"Acme {number}"})
        assert deliver(services) == [], "new events wait behind the probe"
        clock.shift(timedelta(seconds=seconds * 0.3))
        assert len(deliver(services)) == 1, f"probe {number}, after {seconds} s"
    assert {row.tries for row in rows(services, WebhookDelivery)} == {0, 1}, "probes cost no tries"
    clock.shift(timedelta(minutes=10))
    deliver(services)
    clock.shift(timedelta(minutes=20))
    assert deliver(services) == [], "after an hour it is probed rarely"
    receiver.answers.clear()
    clock.shift(timedelta(minutes=14))
    deliver(services, steps=200)
    left = [row for row in rows(services, WebhookDelivery) if row.status != "delivered"]
    assert len(left) <= 1, "one success frees what waits"


def test_an_event_that_takes_the_endpoint_down_delays_others_by_seconds(services, receiver, clock):
    """Or one tenant could delay the events of all others for hours."""
    endpoint_of(services, receiver)
    bad, other = tenants(services, "Bad", "Other")
    deliver(services)
    receiver.refused[str(bad.id)] = 504
    services.tenants.change(OPERATOR, bad.id, {"name": "Bad 2"})
    services.tenants.change(OPERATOR, bad.id, {"name": "Bad 3"})
    receiver.got.clear()
    waits = []
    for hour in range(48):
        services.tenants.change(OPERATOR, other.id, {"name": f"Other {hour}"})
        for step in range(3600 // 15):
            deliver(services)
            if len(receiver.got) > hour:
                waits.append(step * 15)
                break
            clock.shift(timedelta(seconds=15))
        clock.shift(timedelta(hours=1))
    assert len(waits) == 48
    assert max(waits) <= 60
    assert {row.tries for row in rows(services, WebhookDelivery)} - {0}, "its attempts count"


def test_three_hundred_is_a_failure_and_is_not_followed(services, receiver):
    endpoint_of(services, receiver)
    receiver.answers["/hook"] = (302, {"Location": receiver.url("/other")}, b"")
    tenants(services, "Acme")
    deliver(services)
    assert receiver.tried == ["/hook"]
    [delivery] = rows(services, WebhookDelivery)
    assert (delivery.status, delivery.attempts[0]["status_code"]) == ("pending", 302)


def test_410_disables_at_once(services, receiver):
    endpoint, _ = endpoint_of(services, receiver)
    receiver.answers["/hook"] = 410
    tenants(services, "Acme", "Other")
    deliver(services)
    assert receiver.tried == ["/hook"]
    [row] = rows(services, WebhookEndpoint)
    assert (row.status, row.disabled_because) == ("disabled", "gone")
    assert {delivery.status for delivery in rows(services, WebhookDelivery)} == {"failed"}
    receiver.answers.clear()
    tenants(services, "Missed")
    deliver(services)
    _, missed = services.endpoints.change(OPERATOR, endpoint.id, {"status": "enabled"})
    assert missed == 3
    since = endpoint.created_at - timedelta(seconds=1)
    assert services.redelivery.recover(OPERATOR, endpoint.id, since=since) == 3
    [event] = [
        one for one in rows(services, AuditEvent) if one.action == "webhook_endpoint.recovered"
    ]
    assert event.details == {"webhook_endpoint_id": str(endpoint.id), "events": 3}
    deliver(services)
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 3


@pytest.fixture
def id_clock(clock, monkeypatch):
    """Ids of the clock's time, as events are found by their ids."""

    def made_now():
        return UUID(int=first_id_at(now()).int + secrets.randbits(62))

    monkeypatch.setattr("app.ids.uuid7", made_now)
    return clock


def test_events_that_were_recovered_and_failed_again_were_missed(services, receiver, id_clock):
    """A delivery that recovers an event is new, and the event is old."""
    endpoint, _ = endpoint_of(services, receiver)
    services.endpoints.change(OPERATOR, endpoint.id, {"status": EndpointStatus.DISABLED})
    id_clock.shift(timedelta(minutes=5))
    tenants(services, "A", "B", "C")
    deliver(services)
    id_clock.shift(timedelta(hours=2))
    services.endpoints.change(OPERATOR, endpoint.id, {"status": EndpointStatus.ENABLED})
    since = now() - timedelta(hours=12)
    assert services.redelivery.recover(OPERATOR, endpoint.id, since=since) == 3
    receiver.answers["/hook"] = 410
    deliver(services)
    id_clock.shift(timedelta(minutes=10))
    _, missed = services.endpoints.change(OPERATOR, endpoint.id, {"status": EndpointStatus.ENABLED})
    assert missed == 3


def test_what_can_not_be_sent_again_is_not_counted_as_missed(services, receiver, id_clock):
    endpoint, _ = endpoint_of(services, receiver)
    services.endpoints.change(OPERATOR, endpoint.id, {"status": EndpointStatus.DISABLED})
    tenants(services, "A")
    deliver(services)
    id_clock.shift(timedelta(days=20))
    tenants(services, "B")
    deliver(services)
    id_clock.shift(timedelta(days=20))
    _, missed = services.endpoints.change(OPERATOR, endpoint.id, {"status": EndpointStatus.ENABLED})
    assert missed == 1


def test_what_was_missed_is_counted_also_if_the_url_is_changed_first(services, receiver, clock):
    endpoint, _ = endpoint_of(services, receiver)
    receiver.answers["/hook"] = 500
    for _ in range(6):
        tenants(services, "Acme")
        deliver(services)
        clock.shift(timedelta(hours=25))
    services.endpoints.change(OPERATOR, endpoint.id, {"url": receiver.url("/new")})
    _, missed = services.endpoints.change(OPERATOR, endpoint.id, {"status": EndpointStatus.ENABLED})
    assert missed == 6


def test_what_one_tenant_missed_is_counted_though_others_got_theirs(services, receiver, clock):
    kinds = ["tenant.suspended", "tenant.changed"]
    endpoint, _ = endpoint_of(services, receiver, types=kinds)
    first, second = tenants(services, "Acme", "Other")
    deliver(services)
    receiver.refused[str(first.id)] = 500
    services.tenants.suspend(OPERATOR, first.id, reason="away")
    deliver(services)
    clock.shift(timedelta(hours=3))
    services.tenants.change(OPERATOR, second.id, {"name": "Another"})
    deliver(services)
    wanted = {"types": ["tenant.*"], "status": EndpointStatus.DISABLED}
    services.endpoints.change(OPERATOR, endpoint.id, wanted)
    clock.shift(timedelta(minutes=5))
    _, missed = services.endpoints.change(OPERATOR, endpoint.id, {"status": EndpointStatus.ENABLED})
    assert missed == 1, "and no event of a type that it did not get then"


def test_a_single_failure_after_days_without_attempts_disables_nothing(services, receiver, clock):
    endpoint_of(services, receiver)
    tenants(services, "Acme")
    deliver(services)
    receiver.answers["/hook"] = 503
    tenants(services, "Other")
    deliver(services)
    clock.shift(timedelta(days=6))
    assert len(deliver(services)) == 1
    [row] = rows(services, WebhookEndpoint)
    assert row.status is EndpointStatus.ENABLED


def test_an_event_that_failed_for_good_neither_alarms_nor_makes_a_test_disable(
    services, receiver, clock
):
    endpoint, _ = endpoint_of(services, receiver)
    receiver.answers["/hook"] = 503
    tenants(services, "Acme")
    for seconds in (0, *RETRIES):
        clock.shift(timedelta(seconds=seconds * 1.11))
        deliver(services)
    clock.shift(timedelta(days=6))
    assert finding(services.db).status is Status.OK
    services.redelivery.test(OPERATOR, endpoint.id)
    assert len(deliver(services)) == 1
    [row] = rows(services, WebhookEndpoint)
    assert row.status is EndpointStatus.ENABLED


def test_readiness_tells_of_an_endpoint_that_fails_for_long(services, receiver, clock):
    endpoint_of(services, receiver)
    receiver.answers["/hook"] = 503
    tenants(services, "Acme")
    deliver(services)
    assert finding(services.db).status is Status.OK
    clock.shift(timedelta(hours=2))
    assert "have been failing for more than an hour" in finding(services.db).seen


def test_a_delivery_that_failed_meanwhile_is_not_tried_again(services, receiver):
    endpoint, _ = endpoint_of(services, receiver)
    receiver.answers["/hook"] = 500
    tenants(services, "Acme")
    [claim] = services.deliveries.advance([], 32)
    outcome = services.deliveries.attempt(claim)
    for status in (EndpointStatus.DISABLED, EndpointStatus.ENABLED):
        services.endpoints.change(OPERATOR, endpoint.id, {"status": status})
        services.deliveries.advance([], 32)
    services.deliveries.advance([outcome], 0)
    [row] = rows(services, WebhookDelivery)
    assert (row.status, row.next_attempt_at) == ("failed", None)


def test_an_endpoint_that_fails_for_five_days_is_disabled(services, receiver, clock):
    endpoint_of(services, receiver)
    receiver.answers["/hook"] = 500
    for _ in range(6):
        [row] = rows(services, WebhookEndpoint)
        assert row.status is EndpointStatus.ENABLED
        tenants(services, "Acme")
        deliver(services)
        clock.shift(timedelta(hours=25))
    [row] = rows(services, WebhookEndpoint)
    assert (row.status, row.disabled_because) == (EndpointStatus.DISABLED, "failing")


def test_retry_after_is_honoured_up_to_a_day(services, receiver, clock):
    endpoint_of(services, receiver)
    receiver.answers["/hook"] = (503, {"Retry-After": "7200"}, b"")
    tenants(services, "Acme")
    deliver(services)
    clock.shift(timedelta(minutes=100))
    assert deliver(services) == []
    clock.shift(timedelta(minutes=40))
    assert len(deliver(services)) == 1


def test_an_endpoint_that_says_when_it_goes_on_is_not_left_alone_for_longer(
    services, receiver, clock
):
    """Or one tenant that makes it answer 429 again and again would delay the others for long."""
    endpoint_of(services, receiver)
    receiver.answers["/hook"] = (429, {"Retry-After": "20"}, b"")
    for number in range(4):
        tenants(services, f"Acme {number}")
        assert len(deliver(services)) > 0, number
        tenants(services, f"Other {number}")
        assert deliver(services) == []
        clock.shift(timedelta(seconds=21))


def test_a_claim_that_a_killed_worker_had_comes_again(services, receiver, clock):
    endpoint_of(services, receiver)
    tenants(services, "Acme")
    assert len(services.deliveries.advance([], 32)) == 1
    assert services.deliveries.advance([], 32) == []
    clock.shift(timedelta(seconds=61))
    assert len(deliver(services)) == 1
    assert len(receiver.got) == 1


def test_what_a_worker_had_that_was_killed_between_two_outcomes_comes_again(
    services, receiver, clock
):
    endpoint_of(services, receiver)
    tenants(services, "Acme")
    deliver(services)
    tenants(services, "Second", "Third")
    claim, _ = services.deliveries.advance([], THREADS)
    outcome = services.deliveries.attempt(claim)
    assert services.deliveries.advance([outcome], THREADS) == []
    clock.shift(timedelta(seconds=61))
    assert len(deliver(services)) == 1


def test_a_delivery_that_is_asked_for_while_a_killed_worker_has_it_comes_again(
    services, receiver, clock
):
    endpoint, _ = endpoint_of(services, receiver)
    tenants(services, "Acme")
    deliver(services)
    tenants(services, "Other")
    [claimed] = services.deliveries.advance([], 32)
    services.redelivery.redeliver(OPERATOR, endpoint.id, claimed.delivery_id)
    assert services.deliveries.advance([], 32) == []
    clock.shift(timedelta(seconds=61))
    assert len(deliver(services)) == 1


@pytest.mark.parametrize("answer", [429, 500, (500, {"Retry-After": "3600"}, b"")])
def test_a_tenant_whose_events_are_refused_delays_no_other(services, receiver, clock, answer):
    endpoint_of(services, receiver)
    poisoned, other = tenants(services, "Poisoned", "Other")
    deliver(services)
    receiver.refused[str(poisoned.id)] = answer
    for number in range(6):
        services.tenants.change(OPERATOR, poisoned.id, {"name": f"Poisoned {number}"})
        deliver(services)
        clock.shift(timedelta(minutes=1))
    receiver.got.clear()
    services.tenants.change(OPERATOR, other.id, {"name": "Another"})
    deliver(services)
    assert [event["data"]["tenant_id"] for event in receiver.events] == [str(other.id)]


def test_attempts_that_fail_together_count_once(services, receiver, clock):
    """A receiver that restarts may cut four, and must not wait for half an hour."""
    endpoint_of(services, receiver)
    tenants(services, "Warm")
    deliver(services)
    receiver.got.clear()
    receiver.answers["/hook"] = 503
    tenants(services, *map(str, range(8)))
    assert len(deliver(services)) == 4
    receiver.answers.clear()
    clock.shift(timedelta(seconds=6))
    deliver(services)
    assert len(receiver.got) == 8


def test_what_happens_at_an_old_url_says_nothing_about_the_new_one(services, receiver):
    endpoint, _ = endpoint_of(services, receiver)
    tenants(services, "Acme")
    [claim] = services.deliveries.advance([], THREADS)
    services.endpoints.change(OPERATOR, endpoint.id, {"url": receiver.url("/new")})
    gone = Outcome(claim, now(), 1, HttpAnswer(410, {}, b""))
    assert services.deliveries.advance([gone], 0) == []
    [row] = rows(services, WebhookEndpoint)
    assert (row.status, row.failures) == (EndpointStatus.ENABLED, 0)


def test_many_endpoints_of_tenants_do_not_delay_the_vendors(services, receiver):
    for tenant in tenants(services, *map(str, range(4))):
        for number in range(5):
            endpoint_of(services, receiver, f"/{number}", tenant_id=tenant.id)
    vendors, _ = endpoint_of(services, receiver, "/vendors")
    with services.db.write(SYSTEM) as db:
        longer = sqlalchemy.update(WebhookEndpoint).where(WebhookEndpoint.tenant_id.is_not(None))
        db.execute(longer.values(due_at=now() - timedelta(days=1)))
    tenants(services, "Acme")
    claims = services.deliveries.advance([], THREADS)
    assert vendors.id in {claim.endpoint_id for claim in claims}


def test_a_worker_without_free_threads_leaves_endpoints_to_others(services, receiver):
    for number in range(3):
        endpoint_of(services, receiver, f"/{number}")
    tenants(services, "Acme")
    assert services.deliveries.advance([], free=0) == []
    first = services.deliveries.advance([], free=1)
    others = services.deliveries.advance([], THREADS)
    assert len({claim.endpoint_id for claim in first + others}) == 3


def test_a_delivery_that_is_asked_for_again_outlives_its_thirty_days(services, receiver, clock):
    endpoint, _ = endpoint_of(services, receiver)
    tenants(services, "Acme")
    deliver(services)
    [delivery] = rows(services, WebhookDelivery)
    clock.shift(timedelta(days=29))
    receiver.answers["/hook"] = 503
    services.redelivery.redeliver(OPERATOR, endpoint.id, delivery.id)
    deliver(services)
    clock.shift(timedelta(days=2))
    tidy(services.db, 400, threading.Event())
    receiver.answers.clear()
    assert len(deliver(services)) == 1


def test_a_receiver_that_refuses_everything_is_asked_rarely(services, receiver, clock):
    endpoint_of(services, receiver)
    receiver.answers["/hook"] = 500
    for _ in range(3):
        tenants(services, *map(str, range(12)))
        deliver(services)
        clock.shift(timedelta(minutes=30))
    assert len(receiver.tried) < 32


def test_two_workers_do_not_wait_for_each_other(services, receiver):
    """Each locks many endpoints, and outcomes lock some of them in another order."""
    for number in range(20):
        endpoint_of(services, receiver, f"/{number}")
    end, errors, made_events = threading.Event(), [], itertools.count()

    def work():
        claims = []
        while not end.is_set():
            answer = HttpAnswer(204, {}, b"")
            outcomes = [Outcome(claim, now(), 1, answer) for claim in claims]
            try:
                claims = services.deliveries.advance(outcomes, THREADS)
            except AppError as error:
                errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        tenants(services, str(next(made_events)))
    end.set()
    for worker in workers:
        worker.join()
    assert errors == []


def test_a_revocation_locks_endpoints_in_the_order_of_their_ids(services):
    """Background workers do so too. In another order they would wait for each other."""
    [tenant] = tenants(services, "Acme")
    key, text = services.api_keys.create_key(
        OPERATOR, name="x", scopes=frozenset({Scope.WEBHOOKS_WRITE}), tenant_id=tenant.id
    )
    principal = services.api_keys.authenticate(text)
    first, second = (
        services.endpoints.create(principal, url="https://93.184.215.14/", types=["*"])[0].id
        for _ in range(2)
    )
    # Its row is then stored behind the other's
    services.endpoints.change(principal, first, {"description": "x" * 200})
    lock = sqlalchemy.select(WebhookEndpoint.id).with_for_update(nowait=True, key_share=True)
    with ThreadPoolExecutor(1) as pool:
        with services.db.write(SYSTEM) as db:
            db.execute(lock.where(WebhookEndpoint.id == first))
            ending = pool.submit(services.api_keys.revoke_key, OPERATOR, key.id)
            until(lambda: waiting_for_locks(services.db) or ending.done())
            db.execute(lock.where(WebhookEndpoint.id == second))
        ending.result(timeout=30)
    with pytest.raises(UnauthenticatedError):
        services.api_keys.authenticate(text)


def test_a_revocation_waits_for_an_endpoint_that_is_being_enabled(services):
    key, text = services.api_keys.create_key(
        OPERATOR, name="x", scopes=frozenset({Scope.WEBHOOKS_WRITE})
    )
    principal = services.api_keys.authenticate(text)
    endpoint, _ = services.endpoints.create(principal, url="https://93.184.215.14/", types=["*"])
    services.endpoints.change(principal, endpoint.id, {"status": "disabled"})
    with ThreadPoolExecutor(1) as pool:
        with services.db.write(SYSTEM) as db:
            row = db.get_one(WebhookEndpoint, endpoint.id, with_for_update=True)
            row.status, row.disabled_at, row.disabled_because = EndpointStatus.ENABLED, None, None
            db.flush()
            ending = pool.submit(services.api_keys.revoke_key, OPERATOR, key.id)
            until(lambda: waiting_for_locks(services.db) or ending.done())
        ending.result(timeout=30)
    assert services.endpoints.get(OPERATOR, endpoint.id).status == "disabled"


def test_what_waits_for_an_endpoint_fails_when_its_key_is_revoked(services, receiver):
    key, text = services.api_keys.create_key(
        OPERATOR, name="x", scopes=frozenset({Scope.WEBHOOKS_WRITE})
    )
    principal = services.api_keys.authenticate(text)
    endpoint, _ = services.endpoints.create(principal, url=receiver.url(), types=["*"])
    receiver.answers["/hook"] = 500
    tenants(services, "Acme")
    deliver(services)
    services.api_keys.revoke_key(OPERATOR, key.id)
    receiver.answers["/hook"] = 204
    assert deliver(services) == []
    assert services.redelivery.count_pending(OPERATOR, endpoint.id) == 0


def test_an_event_whose_audit_event_is_gone_stops_no_other(services, receiver):
    endpoint_of(services, receiver)
    with services.db.write(SYSTEM) as db:
        db.add(WebhookEvent(id=new_id(), type="tenant.created", created_at=now()))
    tenants(services, "Acme")
    deliver(services)
    assert receiver.types() == ["tenant.created"]


def test_an_outcome_whose_delivery_is_gone_stops_no_other(services, receiver):
    for path in ("/gone", "/there"):
        endpoint_of(services, receiver, path)
    tenants(services, "Acme")
    gone, there = claims = services.deliveries.advance([], THREADS)
    with services.db.write(SYSTEM) as db:
        db.execute(sqlalchemy.delete(WebhookDelivery).filter_by(id=gone.delivery_id))
    services.deliveries.advance([*map(services.deliveries.attempt, claims)], THREADS)
    [row] = rows(services, WebhookDelivery)
    assert (row.id, row.status) == (there.delivery_id, "delivered")


def test_a_name_that_has_a_private_address_later_is_not_called(services, names):
    services.endpoints.create(OPERATOR, url="https://app.example.com/", types=["*"])
    tenants(services, "Acme")
    names["app.example.com"] = ["169.254.169.254"]
    services.endpoints.create(OPERATOR, url="https://other.example.com/", types=["*"])
    names["other.example.com"] = ["93.184.215.14", "10.0.0.1"]
    assert [outcome.error for outcome in deliver(services)] == ["address", "address"]


def test_a_name_that_is_not_resolved_in_time_is_a_timeout(services, receiver, monkeypatch):
    endpoint_of(services, receiver)
    tenants(services, "Acme")
    monkeypatch.setattr(delivery, "DNS_SECONDS", 0.01)
    monkeypatch.setattr(delivery, "resolve", lambda *_: time.sleep(1))
    assert [outcome.error for outcome in deliver(services)] == ["timeout"]


def test_nothing_is_sent_without_a_signature(services, receiver):
    endpoint_of(services, receiver)
    with services.db.write(SYSTEM) as db:
        db.execute(sqlalchemy.update(WebhookEndpoint).values(secret=b"of another key"))
    tenants(services, "Acme")
    assert [outcome.error for outcome in deliver(services)] == ["secret"]
    assert receiver.tried == []


def test_the_log_keeps_the_last_answer_in_few_bytes(services, receiver):
    endpoint, _ = endpoint_of(services, receiver)
    receiver.answers["/hook"] = (500, {}, b"\x01" * 2000)
    tenants(services, "Acme")
    deliver(services)
    [delivery] = rows(services, WebhookDelivery)
    services.redelivery.redeliver(OPERATOR, endpoint.id, delivery.id)
    deliver(services)
    [delivery] = rows(services, WebhookDelivery)
    assert [attempt["answer"] for attempt in delivery.attempts] == [None, "\ufffd" * 1024]


def test_a_time_is_recovered_four_times_a_minute(services, receiver):
    """Each search reads thousands of rows, also one that is refused for finding too many."""
    endpoint, _ = endpoint_of(services, receiver)
    since = now() - timedelta(days=1)
    with pytest.raises(ValidationFailedError):  # not counted
        services.redelivery.recover(OPERATOR, endpoint.id, since=since, until=since)
    for _ in range(4):
        services.redelivery.recover(OPERATOR, endpoint.id, since=since)
    with pytest.raises(RateLimitedError):
        services.redelivery.recover(OPERATOR, endpoint.id, since=since)


def test_a_key_recovers_four_times_a_minute_for_all_its_endpoints(services, receiver):
    key = key_principal(services)
    first, second = (endpoint_of(services, receiver)[0].id for _ in range(2))
    since = now() - timedelta(days=1)
    for _ in range(4):
        services.redelivery.recover(key, first, since=since)
    with pytest.raises(RateLimitedError):
        services.redelivery.recover(key, second, since=since)


def test_nothing_is_recovered_that_was_delivered_or_is_of_another_tenant(services, receiver):
    mine, _ = tenants(services, "Mine", "Other")
    endpoint, _ = endpoint_of(services, receiver, "/mine", tenant_id=mine.id)
    endpoint_of(services, receiver, "/vendor")
    deliver(services)
    since = now() - timedelta(days=1)
    assert services.redelivery.recover(OPERATOR, endpoint.id, since=since) == 0


def test_two_secrets_sign_while_one_is_replaced_and_none_without_a_grace(services, receiver):
    endpoint, old = endpoint_of(services, receiver)
    new = services.endpoints.rotate_secret(OPERATOR, endpoint.id, grace_seconds=60)
    with pytest.raises(ConflictError):
        services.endpoints.rotate_secret(OPERATOR, endpoint.id, grace_seconds=60)
    tenants(services, "Acme")
    deliver(services)
    newest = services.endpoints.rotate_secret(OPERATOR, endpoint.id, grace_seconds=0)
    tenants(services, "Other")
    deliver(services)
    (_, first, body), (_, second, later) = receiver.got
    for secret in (old, new):
        Webhook(secret).verify(body, first)
    assert len(second["webhook-signature"].split()) == 1
    assert Webhook(newest).verify(later, second)


def test_a_test_goes_to_one_endpoint_and_a_delivery_can_be_repeated(services, receiver):
    endpoint, _ = endpoint_of(services, receiver, "/one")
    endpoint_of(services, receiver, "/two")
    event_id = services.redelivery.test(OPERATOR, endpoint.id)
    deliver(services)
    assert [path for path, _, _ in receiver.got] == ["/one"]
    [delivery] = rows(services, WebhookDelivery)
    services.redelivery.redeliver(OPERATOR, endpoint.id, delivery.id)
    deliver(services)
    (_, first, body), (_, second, again) = receiver.got
    assert first["webhook-id"] == second["webhook-id"] == str(event_id)
    assert body == again


def test_tenants_take_turns_at_an_endpoint(services, receiver):
    """A tenant with forty events delays another tenant's event by a few deliveries."""
    endpoint_of(services, receiver)
    busy, other = tenants(services, "Busy", "Other")
    deliver(services)
    receiver.got.clear()
    for number in range(40):
        services.tenants.change(OPERATOR, busy.id, {"name": f"Busy {number}"})
    services.tenants.change(OPERATOR, other.id, {"name": "Another"})
    deliver(services, steps=200)
    order = [event["data"]["tenant_id"] for event in receiver.events]
    assert len(order) == 41
    assert order.index(str(other.id)) < 24


def test_no_body_is_larger_than_20_kb(services, receiver):
    """The largest details are those of a key with all that it may have, and of a proof."""
    endpoint_of(services, receiver)
    details = {
        "api_key_id": "x" * 36,
        "name": "\u202e" * 200,
        "keys_revoked": 10**6,
        "links_revoked": 10**6,
        "registrations": 10**6,
        "api_key_ids": ["x" * 36] * 100,
        "onboarding_link_ids": ["x" * 36] * 100,
        "webhook_endpoints_disabled": 10**6,
        "webhook_endpoint_ids": ["x" * 36] * 100,
    }
    with services.db.write(SYSTEM) as db:
        actions.KEY_REVOKED.record(db, OPERATOR.actor, details)
    deliver(services)
    [(_, _, body)] = receiver.got
    assert 7_500 < len(body) < BODY_BYTES


def test_each_body_has_the_details_that_its_type_says(services, receiver):
    endpoint_of(services, receiver)
    (tenant,) = tenants(services, "Acme")
    services.tenants.suspend(OPERATOR, tenant.id, reason="a test")
    services.tenants.delete(OPERATOR, tenant.id)
    deliver(services)
    for event in receiver.events:
        jsonschema.validate(event["data"]["details"], WEBHOOK_TYPES[event["type"]].schema)
    assert len(receiver.events) == 3


def test_a_secret_is_sealed_again_under_a_new_first_key(services, receiver):
    endpoint, secret = endpoint_of(services, receiver)
    services.endpoints.rotate_secret(OPERATOR, endpoint.id, grace_seconds=3600)
    _, *old = keys = ("a new key " * 5, *services.config.database.secret_keys)
    newer = Secrets(keys)
    assert check_secrets(services.db, newer).status == "warning", "the old key is still needed"
    seal_again(services.db, newer)
    [row] = rows(services, WebhookEndpoint)
    assert newer.is_current(row.secret)
    assert Secrets(tuple(old)).open(row.secret, endpoint.id.bytes) is None
    assert Secrets(keys[:1]).open(row.secret, endpoint.id.bytes) == newer.open(
        row.secret, endpoint.id.bytes
    )
    assert check_secrets(services.db, newer).status == "ok"
    assert check_secrets(services.db, Secrets(tuple(old))).status == "failed"
    assert secret


def test_an_endpoint_that_was_disabled_is_a_warning_if_it_is_the_vendors(services, receiver):
    (tenant,) = tenants(services, "Acme")
    for options in ({"tenant_id": tenant.id}, {}):
        endpoint_of(services, receiver, **options)
        receiver.answers["/hook"] = 410
        services.tenants.change(OPERATOR, tenant.id, {"name": str(options)})
        deliver(services)
        assert (finding(services.db).status == "warning") == (not options)
