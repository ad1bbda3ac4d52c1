"""The background worker: `flask --app wsgi worker`, and Celery over SQS and RabbitMQ
(tests/onboarding/test_organization.py: Valkey).
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis
import sqlalchemy

from app.background.celery_app import create_celery
from app.background.worker import THREADS, companions, run_worker, stop_all
from app.clock import now
from app.errors import StoreUnavailableError
from app.onboarding.kit_trust_policy import trust_policy
from app.proofs.proof_queue import LEASE
from app.services import Services
from app.store.database import SYSTEM
from app.store.models import AuditEvent, Connection, ConnectionStatus, ExternalIdRow, Trigger
from sandbox.vendor import VENDOR_ACCOUNT
from tests.background.rabbitmq import SERVER as RABBITMQ, RabbitMQ
from tests.conftest import with_settings
from tests.support import logged_secrets
from tests.support.cast import Customer, root_client
from tests.support.own_services import own_services
from tests.support.processes import spawn
from tests.support.rows import Role, connection_row, registration_token, tenant_row
from tests.support.stacks import Stack
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
SQS_REGION = "eu-west-1"


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
    parts = [part for part in companions(services, "flask", stop.set) if "reg" in part.name]
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


@pytest.mark.parametrize("kind", ["flask", "celery"])
def test_a_stack_is_answered_while_all_proofs_wait_for_aws(
    aws, vendor, slow, tmp_path, *, valkey, kind
):
    """Behind them it would wait until it gave up, and took the role back."""
    topic, queue = vendor.registration_topic_arn, vendor.registration_queue_url
    settings = {"registration_topic_arns": (topic,), "registration_queue_url": queue}
    with own_services(sts_budget=100_000, **settings) as services:
        Crowd(services, aws).pending(THREADS + 4)
        celery = partial(Celery, services, aws, tmp_path, valkey.url)
        with working(services) if kind == "flask" else celery():
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
    """How many proofs have used up their claims."""
    with services.db.read() as db:
        later = Connection.due_at > now() + 1.5 * LEASE
        return db.scalar(sqlalchemy.select(sqlalchemy.func.count()).where(later))


def actions(services):
    with services.db.read() as db:
        return set(db.scalars(sqlalchemy.select(AuditEvent.action)))


def test_the_background_worker_outlives_a_database_that_is_away_and_a_bug(
    services, crowd, monkeypatch
):
    monkeypatch.setattr("app.background.worker._AFTER_FAILURE", 0.05)
    inner, failures = services.proof_queue.claim, [ValueError("a bug"), StoreUnavailableError("x")]

    def claim(most):
        if failures:
            raise failures.pop()
        return inner(most)

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


def test_celery_takes_no_commands_from_its_broker(services):
    """`celery inspect` and `celery control` speak to workers through it."""
    for url in ("redis://127.0.0.1:1", "sqs://localhost:4566/111122223333/work"):
        celery = create_celery(with_settings(services.config, celery_url=url), lambda: services)
        assert celery.conf.worker_enable_remote_control is False


LOGGING = """
import logging, celery_app
celery_app.celery.log.setup("ERROR", redirect_stdouts=True)
print("printed")
for name in ("app.registrations", "celery.app.trace"):
    logging.getLogger(name).info(f"by {name}")
"""


def test_a_celery_worker_logs_at_the_level_of_the_settings(services, aws):
    """Its own lines about each task stay out of the log."""
    env = environment(services, aws, DEPUTY_CELERY_URL="redis://127.0.0.1:1")
    command = [sys.executable, "-c", LOGGING]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "printed\n"
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert [event for event in events if event.startswith("by ")] == ["by app.registrations"]


class Celery:
    """`celery --app celery_app worker --beat` over this broker, to be killed at will."""

    def __init__(self, services, aws, folder, celery_url, **more):
        self._folder = folder
        self._env = environment(services, aws, DEPUTY_CELERY_URL=celery_url, **more)
        self.start()

    def start(self):
        command = [sys.executable, "-m", "celery", "--app", "celery_app", "worker", "--beat"]
        command += ["--loglevel", "WARNING"]
        logged_secrets.watch(self._folder / "celery.log")
        self._worker = spawn(command, self._folder / "celery.log", env=self._env)

    @property
    def ended(self):
        return self._worker.poll() is not None

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


@pytest.fixture
def work_queue(aws):
    """The queue that broker.yaml makes where it is asked to, away from the SDK's own region, and
    what its broker may do there: the worker acts as the sandbox's broker, which gets that very
    policy.
    """
    name = f"deputy-{uuid.uuid4().hex[:8]}"  # its bucket outlives the stack
    parameters = {"BrokerRoleName": name, "TemplateBucketName": name, "CeleryOverSqs": "yes"}
    with (
        contextlib.closing(
            aws.client("cloudformation", VENDOR_ACCOUNT, SQS_REGION)
        ) as cloudformation,
        contextlib.closing(aws.client("iam", VENDOR_ACCOUNT)) as iam,
        contextlib.closing(aws.client("sqs", VENDOR_ACCOUNT, SQS_REGION)) as sqs,
    ):
        cloudformation.create_stack(
            StackName=name,
            TemplateBody=(ROOT / "cloudformation/broker.yaml").read_text(),
            Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        outputs = cloudformation.describe_stacks(StackName=name)["Stacks"][0]["Outputs"]
        (url,) = (one["OutputValue"] for one in outputs if one["OutputKey"] == "CeleryUrl")
        (policy,) = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
        attached = {"RoleName": "DeputyBroker", "PolicyArn": policy["PolicyArn"]}
        iam.attach_role_policy(**attached)
        here = sqs.get_queue_url(QueueName=url.rpartition("/")[2])["QueueUrl"]
        yield SimpleNamespace(
            url=here.replace("http://", "sqs://"), delete=lambda: sqs.delete_queue(QueueUrl=here)
        )
        iam.detach_role_policy(**attached)
        cloudformation.delete_stack(StackName=name)


@contextlib.contextmanager
def proving(services, crowd, celery):
    """Everything that is due is proven, and nothing twice."""
    with celery:
        made = crowd.pending(12)
        until(lambda: statuses(services)[ConnectionStatus.VERIFIED] > 2, seconds=60)
        yield
        until(lambda: statuses(services) == {ConnectionStatus.VERIFIED: 12}, seconds=60)
    assert proven_times(services) == dict.fromkeys(made, 1)


def test_sqs_carries_what_is_due_and_a_background_worker_that_it_refuses_ends(
    services, crowd, aws, work_queue, tmp_path
):
    """It does not stay alive and deaf."""
    celery = Celery(services, aws, tmp_path, work_queue.url, AWS_REGION=SQS_REGION)
    with proving(services, crowd, celery):
        until(lambda: statuses(services) == {ConnectionStatus.VERIFIED: 12}, seconds=60)
        assert not celery.ended
        work_queue.delete()
        until(lambda: celery.ended, seconds=60)


@pytest.mark.skipif(RABBITMQ is None, reason="there is no rabbitmq-server on this machine")
def test_rabbitmq_carries_what_is_due_though_it_and_the_worker_are_killed_in_the_middle(
    services, crowd, aws, tmp_path
):
    rabbitmq = RabbitMQ(tmp_path)
    celery = Celery(services, aws, tmp_path, rabbitmq.url)
    try:
        with proving(services, crowd, celery):
            celery.kill()
            rabbitmq.kill()
            rabbitmq.start()
            lapse(services)
            celery.start()
    finally:
        rabbitmq.close()


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


@pytest.mark.parametrize("kind", ["flask", "celery"])
def test_a_first_proof_is_made_while_all_routine_proofs_wait_for_their_half(
    aws, vendor, tmp_path, valkey, kind
):
    # As `Celery` has it
    with own_services(sts_budget=600, cache_url=valkey.url) as services:
        crowd, no_room = Crowd(services, aws), NoRoom(services.config)
        waiting = crowd.proven(THREADS + 4)
        celery = partial(Celery, services, aws, tmp_path, valkey.url, DEPUTY_CACHE_URL=valkey.url)
        try:
            with working(services) if kind == "flask" else celery():
                try:
                    until(lambda: begun(services) >= THREADS, seconds=60)
                    first = crowd.pending(3)
                    until(lambda: proven_times(services).keys() >= set(first), seconds=30)
                finally:
                    no_room.end()  # or they would wait for good, and the worker for them
                until(lambda: proven_times(services).keys() == {*first, *waiting}, seconds=60)
        finally:
            services.rates._routine._shared.client.close()
