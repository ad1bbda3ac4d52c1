"""The background worker, `flask --app wsgi worker`."""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis
import sqlalchemy

from app.background.worker import THREADS, parts_of, run_worker, stop_all
from app.clock import now
from app.errors import StoreUnavailableError
from app.onboarding.kit_trust_policy import trust_policy
from app.proofs.proof_queue import LEASE
from app.services import Services
from app.store.database import SYSTEM
from app.store.models import AuditEvent, Connection, ConnectionStatus, ExternalIdRow, Trigger
from tests.support import logged_secrets
from tests.support.cast import Customer, root_client
from tests.support.own_services import own_services
from tests.support.processes import spawn
from tests.support.rows import Role, connection_row, registration_token, tenant_row
from tests.support.stacks import Stack
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def services(request, aws, vendor) -> Iterator[Services]:
    with own_services(sts_budget=100_000) as services:
        yield services


def test_a_message_that_takes_long_does_not_hold_up_the_others():
    stop, go_on, heard, waited = threading.Event(), threading.Event(), [], []

    def receive(*, wait_seconds):
        heard.append(wait_seconds)
        if len(heard) == 1:
            waited.append(go_on.wait(30))
        stop.wait(0.01)
        return 1

    services = SimpleNamespace(
        db=None,
        config=SimpleNamespace(service=SimpleNamespace(metrics_bind=None)),
        proof_queue=SimpleNamespace(claim_routine=None),
        deliveries=None,
        registrations=SimpleNamespace(receive=receive, queue_state=None),
    )
    parts = [part for part in parts_of(services, stop.set) if "reg" in part.name]
    for part in parts:
        part.start()
    try:
        until(lambda: len(heard) > 20)
    finally:
        go_on.set()
        stop_all(parts)
    assert waited == [True], "the others were heard while the first still waited"
    assert not any(part.is_alive() for part in parts)
    assert not stop.is_set(), "none of them failed"


class Crowd:
    """Tenants whose role is one and the same: it accepts each of their External IDs, and nobody
    else's.
    """

    def __init__(self, services, aws):
        self._services, self._customer, self._arn = services, Customer(aws), None

    def pending(self, count):
        """So many more, all due now."""
        unproven = {"role_unique_id": None, "verified_at": None}
        return self._made(count, status=ConnectionStatus.PENDING, **unproven)

    def proven(self, count):
        """So many more that were proven before, all due now for a routine proof."""
        return self._made(count, due_at=now(), due_for=Trigger.SCHEDULED)

    def _made(self, count, **changes):
        database = self._services.db
        tenants = [tenant_row(database) for _ in range(count)]
        with database.read() as db:
            ids = db.scalars(sqlalchemy.select(ExternalIdRow.value)).all()
        trust = trust_policy(self._services.config.aws.broker, "")
        trust["Statement"][0]["Condition"]["StringEquals"]["sts:ExternalId"] = ids
        if self._arn is None:
            self._arn = self._customer.role("deputy-crowd", trust)
        else:
            self._customer.retrust("deputy-crowd", trust)
        role = Role(self._arn, "")
        return [connection_row(database, tenant, role, **changes) for tenant in tenants]


@pytest.fixture
def crowd(services, aws):
    return Crowd(services, aws)


def statuses(services):
    with services.db.read() as db:
        return Counter(db.scalars(sqlalchemy.select(Connection.status)))


def proven_times(services):
    """How often each connection was proven, as the audit log has it."""
    with services.db.read() as db:
        query = sqlalchemy.select(AuditEvent.connection_id).where(
            AuditEvent.action == "connection.verified"
        )
        return Counter(db.scalars(query))


@contextlib.contextmanager
def working(services):
    stop = threading.Event()
    thread = threading.Thread(target=run_worker, args=(services, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


class Slow:
    """An AWS that answers every call with one letter a moment, so that none is ever over and
    none times out.
    """

    def __init__(self):
        self._server = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._callers = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def _answer(self):
        self._server.settimeout(0.05)
        while not self._closed.is_set():
            with contextlib.suppress(TimeoutError):
                self._callers.append(self._server.accept()[0])
            for caller in self._callers:
                with contextlib.suppress(OSError):
                    caller.send(b"H")

    def close(self):
        self._closed.set()
        self._thread.join()
        for open_socket in (*self._callers, self._server):
            open_socket.close()


@pytest.fixture
def slow(monkeypatch) -> Iterator[Slow]:
    aws = Slow()
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", aws.url)
    yield aws
    aws.close()


def test_a_stack_is_answered_while_all_proofs_wait_for_aws(aws, vendor, slow):
    """Behind them it would wait until it gave up, and took the role back."""
    topic, queue = vendor.registration_topic_arn, vendor.registration_queue_url
    settings = {"registration_topic_arns": (topic,), "registration_queue_url": queue}
    with own_services(sts_budget=100_000, **settings) as services:
        Crowd(services, aws).pending(THREADS + 4)
        with working(services):
            until(lambda: begun(services) == THREADS)
            role = f"arn:aws:iam::{Customer(aws).account}:role/deputy-registering"
            secret_keys = services.config.database.secret_keys
            token = registration_token(services.db, secret_keys, tenant_row(services.db))
            stack = Stack(aws.url, token, role)
            sns = root_client(aws, "sns", stack.account)
            sns.publish(TopicArn=topic, Message=json.dumps(stack.request()))
            until(lambda: "connection.registered" in actions(services))
            failed = {"connection.proof_failed", "connection.proof_inconclusive"}
            assert not failed & actions(services)
            slow.close()


def begun(services):
    """How many connections are claimed."""
    with services.db.read() as db:
        later = Connection.due_at > now() + 0.5 * LEASE
        return db.scalar(sqlalchemy.select(sqlalchemy.func.count()).where(later))


def actions(services):
    with services.db.read() as db:
        return set(db.scalars(sqlalchemy.select(AuditEvent.action)))


def test_the_background_worker_outlives_a_database_that_is_away_and_a_bug(
    services, crowd, monkeypatch
):
    monkeypatch.setattr("app.background.worker._AFTER_FAILURE", 0.05)
    inner, failures = services.proof_queue.claim, [ValueError("a bug"), StoreUnavailableError("x")]

    def claim(most, running):
        if failures:
            raise failures.pop()
        return inner(most, running)

    monkeypatch.setattr(services.proof_queue, "claim", claim)
    crowd.pending(1)
    with working(services):
        until(lambda: statuses(services) == {ConnectionStatus.VERIFIED: 1})
    assert failures == []


def environment(services, aws, **more):
    config = services.config
    return os.environ | {
        "DEPUTY_DATABASE_URL": config.database.database_url,
        "DEPUTY_SECRET_KEYS": ",".join(config.database.secret_keys),
        "DEPUTY_BROKER_PRINCIPAL_ARN": config.aws.broker.arn,
        "DEPUTY_VENDOR_NAME": config.vendor.vendor_name,
        "DEPUTY_TEMPLATE_BUCKET": config.aws.template_bucket,
        "DEPUTY_STS_BUDGET": "600",
        "DEPUTY_REGISTRATION_TOPIC_ARN": ",".join(config.aws.registration_topic_arns),
        "DEPUTY_REGISTRATION_QUEUE_URL": config.aws.registration_queue_url or "",
        **more,
    }


class WorkerProcess:
    """One of its own, to be killed at will."""

    def __init__(self, services, aws, folder):
        self._folder = folder
        self._env = environment(services, aws)
        self.start()

    def start(self):
        command = [sys.executable, "-m", "flask", "--app", "wsgi", "worker"]
        logged_secrets.watch(self._folder / "worker.log")
        self._worker = spawn(command, self._folder / "worker.log", env=self._env)

    def kill(self):
        """The one process, and not its group: no process is left."""
        self._worker.kill()
        self._worker.wait()
        try:
            until(lambda: group_is_gone(self._worker), seconds=10)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._worker.pid, signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def group_is_gone(process):
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


def lapse(services):
    """Two minutes later: the leases of what was claimed and not finished are over."""
    with services.db.write(SYSTEM) as db:
        waiting = sqlalchemy.update(Connection).where(Connection.status == ConnectionStatus.PENDING)
        db.execute(waiting.values(due_at=now()))


def test_everything_due_is_proven_once_by_two_that_are_killed_in_the_middle(
    services, crowd, aws, tmp_path
):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    with (
        WorkerProcess(services, aws, tmp_path / "one") as one,
        WorkerProcess(services, aws, tmp_path / "other") as other,
    ):
        made = crowd.pending(24)
        until(lambda: statuses(services)[ConnectionStatus.VERIFIED] > 2, seconds=60)
        for worker in (one, other):
            worker.kill()
        lapse(services)
        for worker in (one, other):
            worker.start()
        until(lambda: statuses(services) == {ConnectionStatus.VERIFIED: 24}, seconds=60)
    assert proven_times(services) == dict.fromkeys(made, 1)


class NoRoom:
    """Routine proofs have used up their half of the budget, as far as the shared cache knows,
    until `end`.
    """

    def __init__(self, config):
        self._cache = redis.Redis.from_url(config.database.cache_url)
        self._cache.flushall()
        rates = Services(config).rates
        with rates.routine_call():
            (self._name,) = self._cache.scan_iter("*routine*")
        rates._routine._shared.client.close()
        self._cache.set(self._name, 10**9, ex=3600)

    def end(self):
        self._cache.delete(self._name)
        self._cache.close()


def test_a_first_proof_is_made_while_all_routine_proofs_wait_for_their_half(aws, vendor, valkey):
    with own_services(sts_budget=600, cache_url=valkey.url) as services:
        crowd, no_room = Crowd(services, aws), NoRoom(services.config)
        waiting = crowd.proven(THREADS + 4)
        try:
            with working(services):
                try:
                    until(lambda: begun(services) >= THREADS, seconds=60)
                    first = crowd.pending(3)
                    until(lambda: proven_times(services).keys() >= set(first), seconds=30)
                finally:
                    no_room.end()  # or they would wait for good, and the worker for them
                until(lambda: proven_times(services).keys() == {*first, *waiting}, seconds=60)
        finally:
            services.rates._routine._shared.client.close()
