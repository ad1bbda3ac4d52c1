"""The background worker: `flask --app wsgi worker`, and Celery over SQS and RabbitMQ (tests/test_organization.py: Valkey)."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy

from app import services as composition
from app.db import now
from app.errors import StoreUnavailableError
from app.models import AuditEvent, Connection, ConnectionStatus, ExternalIdRow
from app.onboarding import trust_policy
from app.worker import Worker
from sandbox.vendor import VENDOR_ACCOUNT
from tests.cast import Customer
from tests.conftest import empty_database, make_config, migrate
from tests.rabbitmq import SERVER as RABBITMQ
from tests.rabbitmq import RabbitMQ
from tests.rows import Role, connection_row, tenant_row

ROOT = Path(__file__).parent.parent
SQS_REGION = "eu-west-1"
SQS_ACTIONS = [
    "SendMessage",
    "ReceiveMessage",
    "DeleteMessage",
    "ChangeMessageVisibility",
    "GetQueueAttributes",
]


def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.05)


@pytest.fixture(params=["sqlite", "postgresql"])
def services(request, tmp_path, aws, vendor):
    with empty_database(request.param, tmp_path) as url:
        migrate(url)
        found = composition.build(make_config(url, sts_budget=100_000))
        yield found
        found.db.engine.dispose()


class Crowd:
    """Tenants whose role is one and the same: it accepts each of their External IDs, and nobody else's."""

    def __init__(self, services, aws):
        self._services, self._customer = services, Customer(aws)
        self._ids, self._arn = [], None

    def pending(self, count):
        """So many more, all due now."""
        services = self._services
        tenants = [tenant_row(services.db) for _ in range(count)]
        with services.db.read() as db:
            self._ids += db.scalars(
                sqlalchemy.select(ExternalIdRow.value).where(ExternalIdRow.tenant_id.in_(tenants))
            )
        trust = trust_policy(services.config.broker, "")
        trust["Statement"][0]["Condition"]["StringEquals"]["sts:ExternalId"] = self._ids
        if self._arn is None:
            self._arn = self._customer.role("deputy-crowd", trust)
        else:
            self._customer.retrust("deputy-crowd", trust)
        changes = {"status": ConnectionStatus.PENDING, "role_unique_id": None, "verified_at": None}
        return [connection_row(services.db, tenant, Role(self._arn, ""), **changes) for tenant in tenants]


@pytest.fixture
def crowd(services, aws):
    return Crowd(services, aws)


def statuses(services):
    with services.db.read() as db:
        return Counter(db.scalars(sqlalchemy.select(Connection.status)))


def proven_times(services):
    """How often each connection was proven, as the audit log has it."""
    with services.db.read() as db:
        query = sqlalchemy.select(AuditEvent.connection_id).where(AuditEvent.action == "connection.verified")
        return Counter(db.scalars(query))


@contextlib.contextmanager
def working(services):
    stop = threading.Event()
    thread = threading.Thread(target=Worker(services, stop).run)
    thread.start()
    yield
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_the_worker_proves_what_is_due(services, crowd):
    made = crowd.pending(40)
    with working(services):
        until(lambda: statuses(services) == {ConnectionStatus.VERIFIED: 40})
        more = crowd.pending(3)
        until(lambda: statuses(services) == {ConnectionStatus.VERIFIED: 43})
    assert proven_times(services) == dict.fromkeys(made + more, 1)


def test_two_workers_do_nothing_twice(services, crowd):
    made = crowd.pending(60)
    with working(services), working(services):
        until(lambda: statuses(services) == {ConnectionStatus.VERIFIED: 60})
    assert proven_times(services) == dict.fromkeys(made, 1)


@pytest.mark.parametrize("failure", [StoreUnavailableError("away"), ValueError("a bug")], ids=repr)
def test_the_worker_outlives_a_database_that_is_away_and_a_bug(services, crowd, monkeypatch, failure):
    monkeypatch.setattr("app.worker._AFTER_FAILURE", 0.05)
    inner, failures = services.due.claim, iter(range(3))

    def claim(most):
        if next(failures, None) is not None:
            raise failure
        return inner(most)

    monkeypatch.setattr(services.due, "claim", claim)
    crowd.pending(1)
    with working(services):
        until(lambda: statuses(services) == {ConnectionStatus.VERIFIED: 1})
    assert next(failures, None) is None


def environment(services, aws, **more):
    config = services.config
    return os.environ | {
        "DEPUTY_DATABASE_URL": config.database_url,
        "DEPUTY_SECRET_KEYS": ",".join(config.secret_keys),
        "DEPUTY_BROKER_PRINCIPAL_ARN": config.broker.arn,
        "DEPUTY_VENDOR_NAME": config.vendor_name,
        "DEPUTY_TEMPLATE_BUCKET": config.template_bucket,
        "DEPUTY_STS_BUDGET": "600",
        "DEPUTY_REGISTRATION_TOPIC_ARN": config.registration_topic_arn or "",
        "DEPUTY_REGISTRATION_QUEUE_URL": config.registration_queue_url or "",
        **more,
    }


def test_the_command_works_until_it_is_told_to_end(services, crowd, aws):
    crowd.pending(5)
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "worker"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(services, aws), stdout=subprocess.PIPE
    ) as process:
        until(lambda: statuses(services) == {ConnectionStatus.VERIFIED: 5})
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert b"Ctrl-C" in process.stdout.read()


class Celery:
    """`celery --app worker worker --beat` over this broker, to be killed at will."""

    def __init__(self, services, aws, folder, broker_url, **more):
        self._folder = folder
        self._env = environment(services, aws, DEPUTY_BROKER_URL=broker_url, **more)
        self.start()

    def start(self):
        command = [sys.executable, "-m", "celery", "--app", "worker", "worker", "--beat", "--pool", "threads"]
        command += ["--concurrency", "4", "--schedule", str(self._folder / "beat"), "--loglevel", "WARNING"]
        with (self._folder / "celery.log").open("ab") as log:
            self._worker = subprocess.Popen(
                command, cwd=ROOT, env=self._env, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def ended(self):
        return self._worker.poll() is not None

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._worker.pid, signal.SIGKILL)
        self._worker.wait()


def lapse(services):
    """Two minutes later: the leases of what was claimed and not finished are over."""
    with services.db.write() as db:
        waiting = sqlalchemy.update(Connection).where(Connection.status == ConnectionStatus.PENDING)
        db.execute(waiting.values(due_at=now()))


@pytest.fixture
def work_queue(aws, vendor):
    """A queue away from the SDK's own region, and the broker with the rights on it that docs/operations.md names."""
    allowed = {"Effect": "Allow", "Action": [f"sqs:{action}" for action in SQS_ACTIONS], "Resource": "*"}
    policy = {"RoleName": "DeputyBroker", "PolicyName": "carry-work"}
    with (
        contextlib.closing(aws.client("iam", VENDOR_ACCOUNT)) as iam,
        contextlib.closing(aws.client("sqs", VENDOR_ACCOUNT, SQS_REGION)) as sqs,
    ):
        iam.put_role_policy(
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}), **policy
        )
        url = sqs.create_queue(QueueName="deputy-work")["QueueUrl"]
        yield SimpleNamespace(
            url=url.replace("http://", "sqs://"), delete=lambda: sqs.delete_queue(QueueUrl=url)
        )
        with contextlib.suppress(sqs.exceptions.QueueDoesNotExist):
            sqs.delete_queue(QueueUrl=url)
        iam.delete_role_policy(**policy)


def proven_once(services, crowd, celery, meanwhile=lambda: None):
    """The worker is killed in the middle; everything is proven in the end, and nothing twice."""
    try:
        made = crowd.pending(20)
        until(lambda: statuses(services)[ConnectionStatus.VERIFIED] > 2, 60)
        celery.kill()
        meanwhile()
        lapse(services)
        celery.start()
        until(lambda: statuses(services) == {ConnectionStatus.VERIFIED: 20}, 60)
    finally:
        celery.kill()
    assert proven_times(services) == dict.fromkeys(made, 1)


@pytest.mark.parametrize("services", ["sqlite"], indirect=True)  # the broker is what differs
def test_sqs_carries_what_is_due(services, crowd, aws, work_queue, tmp_path):
    proven_once(services, crowd, Celery(services, aws, tmp_path, work_queue.url, AWS_REGION=SQS_REGION))


@pytest.mark.parametrize("services", ["sqlite"], indirect=True)
def test_a_worker_that_sqs_refuses_ends_and_does_not_stay_alive_and_deaf(
    services, crowd, aws, work_queue, tmp_path
):
    celery = Celery(services, aws, tmp_path, work_queue.url, AWS_REGION=SQS_REGION)
    try:
        crowd.pending(1)
        until(lambda: statuses(services) == {ConnectionStatus.VERIFIED: 1}, 60)
        assert not celery.ended
        work_queue.delete()
        until(lambda: celery.ended, 60)
    finally:
        celery.kill()


@pytest.mark.skipif(RABBITMQ is None, reason="there is no rabbitmq-server on this machine")
@pytest.mark.parametrize("services", ["sqlite"], indirect=True)
def test_rabbitmq_carries_what_is_due(services, crowd, aws, tmp_path):
    rabbitmq = RabbitMQ(tmp_path)

    def meanwhile():
        rabbitmq.kill()
        rabbitmq.start()

    try:
        proven_once(services, crowd, Celery(services, aws, tmp_path, rabbitmq.url), meanwhile)
    finally:
        rabbitmq.close()
