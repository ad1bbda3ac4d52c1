"""Registrations: a message makes a pending connection or a due one, once, and its stack is
always answered.
"""

import heapq
import json
import secrets
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from types import SimpleNamespace

import pytest
from flask import Flask
from sqlalchemy import func, select
from structlog.testing import capture_logs

from app.aws.stack_messages import RegistrationQueue, StackAnswers
from app.clock import now
from app.config import Config
from app.errors import AwsUnavailableError, StoreUnavailableError
from app.factory import create_app
from app.ids import new_id
from app.limits import counting_in_memory
from app.limits.limits import REPORTS
from app.onboarding import registrations as handling
from app.onboarding.registrations import REFUSAL, MessagePlaces, Registrations
from app.permissions import permission_sets
from app.proofs.schedule import ProofInterval, schedule_next
from app.store.database import SYSTEM, Database, Lock
from app.store.models import (
    AuditEvent,
    Connection,
    ConnectionStatus,
    OnboardingLink,
    Proof,
    Registration,
    Tenant,
)
from app.store.models.connection_status import StackState
from app.store.models.proof import Verdict
from app.tenants.declared_accounts import declare
from sandbox.vendor import VENDOR_ACCOUNT
from tests.conftest import with_settings
from tests.onboarding.conftest import opened
from tests.support.cast import Api, World, root_client
from tests.support.databases import NOWHERE
from tests.support.rows import ADMIN, at_once, connection_row, registration_token, tenant_row
from tests.support.stacks import TOPIC, Answers, Stack, handle
from tests.support.waiting import until, waiting_for_locks


@cache
def answering(url):
    """Made once: most of what a message takes would be this."""
    return StackAnswers("us-east-1", "aws", url)


class Desk:
    """One process that handles registrations, and the tenant whose stacks they are."""

    def __init__(self, config, db, queue, answers):
        self.config, self.db, self.queue, self.answers = config, db, queue, answers
        self.registrations = self.process()
        self.tenant_id = tenant_row(db)

    def process(self, answers=None, **settings):
        return Registrations(
            self.db,
            with_settings(self.config, **settings),
            permission_sets.load(),
            self.queue,
            lambda _region: answering(answers or self.answers.url),
        )

    def token(self, tenant_id=None, generation=1):
        return registration_token(
            self.db, self.config.database.secret_keys, tenant_id or self.tenant_id, generation
        )

    def stack(self, role_arn=None, *, tenant_id=None, **more):
        account = f"{secrets.randbelow(10**12):012d}"
        token = self.token(tenant_id)
        return Stack(
            self.answers.url,
            token,
            role_arn or f"arn:aws:iam::{account}:role/deputy-{account}",
            **more,
        )

    def handle(self, message, status="SUCCESS"):
        """Handled for good, and answered so."""
        assert handle(self.registrations, message)
        assert self.answers.statuses[-1] == status, self.answers.said[-1]

    def _rows(self, row_type, tenant_id=None):
        with self.db.read() as db:
            query = select(row_type).where(row_type.tenant_id == (tenant_id or self.tenant_id))
            return list(db.scalars(query.order_by(row_type.id)))

    def connections(self, tenant_id=None):
        return self._rows(Connection, tenant_id)

    def events(self):
        return self._rows(AuditEvent)

    def actions(self):
        return [event.action for event in self.events()]

    def registered(self):
        return self._rows(Registration)

    def change(self, row_type, row_id, **changes):
        with self.db.write(SYSTEM) as db:
            row = db.get(row_type, row_id)
            for name, value in changes.items():
                setattr(row, name, value)

    def rows(self):
        with self.db.read() as db:
            return db.scalar(select(func.count()).select_from(Registration))


@pytest.fixture(scope="module")
def queue(aws, vendor) -> RegistrationQueue:
    return RegistrationQueue("us-east-1", vendor.registration_queue_url)


@pytest.fixture(scope="module")
def answers() -> Iterator[Answers]:
    with Answers() as made:
        yield made


@pytest.fixture(scope="module")
def receiving_config(config, vendor) -> Config:
    return with_settings(
        config,
        registration_topic_arns=(TOPIC,),
        registration_queue_url=vendor.registration_queue_url,
    )


@pytest.fixture(scope="module")
def application(aws, receiving_config) -> Iterator[Flask]:
    """A web process of the deployment."""
    web = create_app(receiving_config)
    yield web
    web.extensions["deputy"].db.engine.dispose()


@pytest.fixture
def desk(receiving_config, database, queue, answers) -> Desk:
    answers.got.clear()
    return Desk(receiving_config, database, queue, answers)


# --- what a message does ---


END = datetime(2099, 1, 1, tzinfo=UTC)


def test_a_stack_says_until_when_its_role_lets_us_in(desk):
    """So that the end is known of a role that may not read itself."""
    stack = desk.stack()
    for kind, text, expected in (
        ("Create", "2099-01-01T00:00:00Z", END),
        ("Update", ["2098-01-01T00:00:00Z"], END),  # no text, so it says nothing
        ("Update", None, END),  # as of a template of an older release
        ("Update", "2098-12-31T23:59:59Z", END - timedelta(seconds=1)),
        ("Update", "", None),
        ("Update", "2099-01-01T00:00:00Z", END),
        ("Update", "tomorrow", None),
    ):
        stack.access_until = text
        desk.handle(stack.message(kind))
        [connection] = desk.connections()
        assert connection.access_until == expected, text
    desk.change(Connection, connection.id, status=ConnectionStatus.SUSPENDED)
    stack.access_until = "2099-01-01T00:00:00Z"
    for kind in ("Update", "Delete"):
        desk.handle(stack.message(kind))
    assert desk.connections()[0].access_until is None, "it rests"


def test_a_create_makes_a_pending_connection_that_is_due_at_once(desk):
    stack = desk.stack()
    desk.handle(stack.message())
    [connection] = desk.connections()
    assert connection.status is ConnectionStatus.PENDING
    assert connection.role_arn == stack.role_arn
    assert connection.account_id == stack.account
    assert connection.permission_set == "inventory"
    assert connection.due_at <= now()
    assert connection.proof_id is connection.role_unique_id is connection.verified_at is None
    with desk.db.read() as db:
        assert connection.external_id == db.get(Tenant, desk.tenant_id).external_id
    [event] = desk.events()
    assert event.action == "connection.registered"
    assert event.outcome == "ok"
    assert event.connection_id == connection.id
    assert event.actor_kind == "registration"
    assert event.request_id is None
    assert event.details == {
        "role_arn": stack.role_arn,
        "stack_id": stack.stack_id,
        "request_type": "Create",
    }


@pytest.mark.parametrize(
    ("kind", "status"), [("Update", "broken"), ("Delete", "insecure"), ("Create", "verified")]
)
def test_of_a_connection_that_is_there_only_the_time_changes_and_what_is_said_of_its_stack(
    desk, kind, status
):
    stack = desk.stack()
    connection_row(
        desk.db,
        desk.tenant_id,
        role_arn=stack.role_arn,
        account_id=stack.account,
        status=ConnectionStatus(status),
        permission_set="bucket-sync",
        stack_id="arn:aws:cloudformation:us-east-1:123456789012:stack/earlier/1",
        due_at=END,
    )

    def columns():
        [row] = desk.connections()
        return {column.key: getattr(row, column.key) for column in row.__mapper__.column_attrs}

    before = columns()
    desk.handle(stack.message(kind))
    after = columns()
    assert after["due_at"] <= now()
    deleted = kind == "Delete"
    assert after["stack"] is (StackState.DELETED if deleted else StackState.MADE)
    assert after["stack_id"] == (None if deleted else stack.stack_id)
    for name in ("due_at", "due_since", "due_for", "stack", "stack_id"):
        after[name] = before[name]
    assert after == before
    word = "stack_deleted" if deleted else "registered_again"
    assert desk.actions() == [f"connection.{word}"]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["Create", "Update"], StackState.MADE),
        (["Create", "Delete"], StackState.ROLLED_BACK),
        (["Delete", "Create"], StackState.ROLLED_BACK),  # SQS keeps no order
        (["Create", "Update", "Delete"], StackState.DELETED),
    ],
)
def test_a_delete_right_after_its_create_is_the_creations_rollback(desk, kinds, expected):
    stack = desk.stack()
    for message in [stack.message(kind) for kind in kinds]:
        desk.handle(message)
        desk.handle(message)  # which comes again
    [connection] = desk.connections()
    assert connection.stack is expected
    assert connection.status is ConnectionStatus.PENDING
    # A delete that comes before there is a connection has nothing to do.
    assert len(desk.actions()) == len(kinds) - (kinds[0] == "Delete")


def test_a_delete_an_hour_after_its_create_and_before_the_next_stacks_is_a_deletion(desk):
    """Messages of another tenant about the stack change nothing of that."""
    stack = desk.stack()
    theirs = desk.stack(stack.role_arn, tenant_id=tenant_row(desk.db))
    theirs.stack_id = stack.stack_id
    for message in (theirs.message(), theirs.message("Delete"), stack.message()):
        desk.handle(message)
    assert desk.connections()[0].stack is StackState.MADE
    [registered] = desk.registered()
    desk.change(Registration, registered.id, created_at=now() - timedelta(hours=1, seconds=1))
    desk.handle(stack.message("Delete"))
    assert desk.connections()[0].stack is StackState.DELETED
    desk.handle(desk.stack(stack.role_arn).message())
    assert desk.connections()[0].stack is StackState.MADE, "the next stack makes it good"


@pytest.mark.parametrize("told", [False, True])
def test_a_stack_that_registers_again_was_not_rolled_back(desk, told):
    """Its topic was removed, in an outage of Deputy or an hour ago, and is set again."""
    stack = desk.stack()
    desk.handle(stack.message())
    if told:
        [registered] = desk.registered()
        desk.change(Registration, registered.id, created_at=now() - timedelta(hours=1, seconds=1))
        desk.handle(stack.message("Delete"))
    desk.handle(stack.message())
    assert desk.connections()[0].stack is StackState.MADE


def test_a_role_that_was_proven_to_the_end_has_outlived_its_stack(desk):
    """Its stack was rolled back, and the role is still there when IAM has settled."""
    stack = desk.stack()
    desk.handle(stack.message())
    desk.handle(stack.message("Delete"))
    [connection] = desk.connections()
    for minutes, expected in ((0, StackState.ROLLED_BACK), (2, StackState.ROLLED_BACK), (15, None)):
        at = connection.due_since + timedelta(minutes=minutes) if minutes else now()
        proof = Proof(verdict=Verdict.PROVEN, checks=[], checked_at=at)
        restarts = connection.apply_verdict(proof, "AROAEXAMPLE")
        schedule_next(connection, proof, ProofInterval(3600, 3600), restarts=restarts)
        assert connection.stack is expected, minutes


# --- again, and in any order ---


def test_many_deliveries_at_once_act_once_and_many_requests_for_one_role_make_one_connection(desk):
    stack = desk.stack()
    processes = [desk.process() for _ in range(4)]
    for count, kind in enumerate(("Create", "Delete"), 1):
        message = stack.message(kind)
        assert at_once([lambda p=p, m=message: handle(p, m) for p in processes]) == [True] * 4
        assert len(desk.connections()) == 1
        assert len(desk.actions()) == count
    assert set(desk.answers.statuses) == {"SUCCESS"}
    fresh = desk.stack()
    messages = [fresh.message() for _ in range(4)]
    assert at_once([lambda m=m: handle(desk.registrations, m) for m in messages]) == [True] * 4
    assert len(desk.connections()) == 2
    again = ["connection.registered_again"] * 3
    assert sorted(desk.actions()[-4:]) == ["connection.registered", *again]


@pytest.mark.parametrize("status", [ConnectionStatus.PENDING, ConnectionStatus.SUSPENDED])
def test_a_flood_about_one_role_fills_neither_the_log_nor_the_table(desk, monkeypatch, status):
    """Twenty an hour are kept, as a token may be sent any number of times. A role that can be
    proven is due all the same.
    """
    stack = desk.stack()
    desk.handle(stack.message())
    [connection] = desk.connections()
    later = now() + timedelta(days=1)
    desk.change(Connection, connection.id, status=status, due_at=later)
    for number in range(22):
        desk.handle(stack.message("Delete" if number % 2 else "Update"))
    assert len(desk.actions()) == len(desk.registered()) == 1 + 20
    assert (desk.connections()[0].due_at < later) is (status is ConnectionStatus.PENDING)
    monkeypatch.setattr("app.limits.counting_in_database.now", lambda: now() + timedelta(hours=2))
    desk.handle(stack.message("Update"))
    assert len(desk.actions()) == 1 + 20 + 1


def test_a_stack_that_revokes_sessions_voids_the_cached_ones_and_at_most_so_often(
    desk, monkeypatch
):
    three = REPORTS._replace(most=3)
    monkeypatch.setattr("app.onboarding.registration_store.REPORTS", three)
    stack = desk.stack()
    desk.handle(stack.message())
    [connection] = desk.connections()
    properties = stack.request()["ResourceProperties"]

    def update(old, new):
        """Return how often sessions of the connection have been voided."""
        before, after = (properties | {"RevokeSessionsBefore": text} for text in (old, new))
        message = stack.message("Update", ResourceProperties=after, OldResourceProperties=before)
        desk.handle(message)
        return desk.connections()[0].version - connection.version

    noon, *later = (f"2026-11-30T12:0{minute}:00Z" for minute in range(5))
    assert update("", noon) == 1
    assert update(noon, noon) == update(noon, "") == 1, "these revoke no further sessions"
    assert [update(noon, time) for time in later] == [2, 3, 3, 3]


def test_deletes_of_unknown_roles_are_answered_and_twenty_an_hour_of_a_tenant_are_kept(desk):
    for _ in range(22):
        desk.handle(desk.stack().message("Delete"))
    assert len(desk.registered()) == 20
    assert desk.events() == desk.connections() == []


def test_a_stack_is_told_success_as_soon_as_the_claim_is_stored(desk):
    """And no earlier: when the answer arrives, another connection to the database sees it."""
    seen = []

    class Looking(StackAnswers):
        def send(self, request, refusal):
            seen.append(len(desk.connections()))
            return super().send(request, refusal)

    desk.registrations._answers = lambda region: Looking(region, "aws", desk.answers.url)
    desk.handle(desk.stack().message())
    assert seen == [1]


# --- void messages ---


def test_all_void_messages_get_one_answer_and_leave_no_trace(desk):
    """Those of other accounts and tenants are in tests/attacks."""
    role = desk.stack().role_arn
    stranger = registration_token(
        desk.db, ("another-secret-key-of-somebody-else-01",), desk.tenant_id
    )
    foreign = desk.stack(role)
    foreign.stack_id = foreign.stack_id.replace("arn:aws:", "arn:aws-cn:")
    void = [
        desk.stack("arn:aws:iam::444455556666:role/other-name"),
        desk.stack(f"arn:aws:iam::{VENDOR_ACCOUNT}:role/deputy-x"),
        desk.stack("", account="444455556666"),
        foreign,
        desk.stack(f"arn:aws:iam::444455556666:role/deputy-{'x' * 5000}"),
        Stack(desk.answers.url, desk.token(generation=2), role),
        Stack(desk.answers.url, desk.token(generation=0), role),
        Stack(desk.answers.url, stranger, role),
        Stack(desk.answers.url, "", role),
    ]
    rows = desk.rows()
    for stack in void:
        for kind in ("Create", "Update"):
            desk.handle(stack.message(kind), "FAILED")
            assert desk.answers.said[-1]["Reason"] == REFUSAL
            assert len(desk.answers.said[-1]) == 6, "else as any answer"
        desk.handle(stack.message("Delete"))
    desk.handle(desk.stack(role).message(ResourceProperties=None), "FAILED")
    desk.handle(desk.stack(role).message("Delete", ResourceProperties=None))
    assert desk.connections() == desk.events() == []
    assert desk.rows() == rows


def test_the_operator_voids_the_tokens_that_are_out_and_the_kit_shows_a_new_one(desk, application):
    services = application.extensions["deputy"]

    def shown():
        kit = services.onboarding.kit(ADMIN, desk.tenant_id)
        token = link(asdict(kit))["param_RegistrationToken"]
        for update in (kit.update.stack, kit.update.stack_set):  # of what is there
            assert update.parameters["RegistrationToken"] == token
            assert token in update.aws_cli
        return token

    old, other = desk.stack(), desk.stack(tenant_id=tenant_row(desk.db))
    assert old.token == shown()
    desk.handle(old.message())
    services.tenants.suspend(ADMIN, desk.tenant_id, reason="nor does it need to be active")
    done = application.test_cli_runner().invoke(args=["registrations", "void", str(desk.tenant_id)])
    services.tenants.resume(ADMIN, desk.tenant_id, reason="")
    assert done.exit_code == 0, done.output
    for text in ("Show the customer the kit again", "Existing stacks stay", "register nothing"):
        assert text in done.output
    [voided] = [event for event in desk.events() if event.action == "tenant.registrations_voided"]
    assert voided.actor_kind == "operator"
    assert voided.details == {"generation": 2}
    [connection], before = desk.connections(), desk.actions()
    for stack, kind, status in (
        (desk.stack(), "Create", "FAILED"),
        (old, "Update", "FAILED"),
        (old, "Delete", "SUCCESS"),
        (other, "Create", "SUCCESS"),
    ):
        desk.handle(stack.message(kind), status)
    assert desk.actions() == before
    assert [row.id for row in desk.connections()] == [connection.id]
    old.token, token = shown(), old.token
    assert old.token != token
    desk.handle(old.message("Update"))
    assert desk.actions() == [*before, "connection.registered_again"]


@pytest.fixture
def page(desk, application) -> "Page":
    return Page(application.extensions["deputy"], desk)


class Page:
    """An onboarding link of the desk's tenant, and what its page shows."""

    def __init__(self, services, desk):
        self._services, self._desk = services, desk
        self.link, url = services.links.create(ADMIN, desk.tenant_id)
        self.visit = services.links.open(url.rpartition("/")[2], None)

    def stack(self):
        """Launched from the page, with the token in its link."""
        kit = self._services.onboarding.kit(self.visit.principal, self._desk.tenant_id)
        stack = self._desk.stack()
        stack.token = link(asdict(kit))["param_RegistrationToken"]
        return stack

    def revoke(self):
        self._services.links.revoke(ADMIN, self._desk.tenant_id, self.link.id)


def test_what_a_stack_from_a_links_page_registers_is_the_links(desk, page):
    desk.handle(page.stack().message())
    desk.handle(desk.stack().message())
    assert [each.onboarding_link_id for each in desk.connections()] == [page.link.id, None]


def test_revoking_a_link_voids_the_token_that_its_page_showed_and_no_other(desk, page):
    launched, later, of_the_kit = page.stack(), page.stack(), desk.stack()
    desk.handle(launched.message())
    desk.change(OnboardingLink, page.link.id, expires_at=now())
    desk.handle(launched.message("Update"))  # that it expires voids nothing
    page.revoke()
    desk.handle(later.message(), "FAILED")
    desk.handle(
        launched.message("Update", OldResourceProperties={"RegistrationToken": ""}), "FAILED"
    )
    assert len(desk.connections()) == 1, "what was registered stays, and nothing comes to it"
    desk.handle(launched.message("Delete"))
    desk.handle(of_the_kit.message())


def test_a_message_waits_for_the_revocation_of_its_link(desk, page):
    """Or it would be taken after the revocation was answered."""
    stack = page.stack()
    with ThreadPoolExecutor(1) as pool:
        with desk.db.write(SYSTEM) as db:
            Lock.PRINCIPAL.hold(db, desk.tenant_id)  # as a revocation does
            db.get_one(OnboardingLink, page.link.id).revoked_at = now()
            handling = pool.submit(desk.handle, stack.message(), "FAILED")
            until(lambda: waiting_for_locks(desk.db) or handling.done())
            assert not handling.done()
        handling.result(timeout=60)
    assert desk.connections() == []


def test_a_registered_stacks_update_with_a_void_token_passes_and_registers_nothing(
    desk, monkeypatch
):
    """FAILED would roll the update back, and the roll-back's own Update may fail the same way. No
    void token costs a turn at the write lock.
    """
    stack = desk.stack()
    desk.handle(stack.message())
    desk.change(Tenant, desk.tenant_id, registration_generation=2)
    before = desk.actions()
    monkeypatch.setattr(desk.db, "write", lambda _: pytest.fail("a transaction"))
    for earlier in (stack.token, "another"):
        desk.handle(stack.message("Update", OldResourceProperties={"RegistrationToken": earlier}))
    desk.handle(stack.message("Update", OldResourceProperties={}), "FAILED")
    desk.handle(
        stack.message("Create", OldResourceProperties={"RegistrationToken": stack.token}), "FAILED"
    )
    other = Stack(desk.answers.url, stack.token, "arn:aws:iam::444455556666:role/other-name")
    earlier = {"RegistrationToken": stack.token, "RoleArn": stack.role_arn}
    desk.handle(other.message("Update", OldResourceProperties=earlier), "FAILED")
    assert desk.actions() == before


def test_a_registered_stacks_update_passes_if_its_role_is_no_longer_allowed(desk, monkeypatch):
    """Its rollback would name the same role, or another one that is not allowed. If the rollback
    can succeed, the update is refused.
    """
    stack = desk.stack()
    desk.handle(stack.message())
    [before] = desk.connections()
    registered = {"RegistrationToken": stack.token, "RoleArn": stack.role_arn}
    moved = {"RoleArn": stack.role_arn.replace("deputy-", "acme-")}
    config = with_settings(desk.registrations._config, role_prefix="acme-")
    monkeypatch.setattr(desk.registrations, "_config", config)
    desk.handle(stack.message("Update", OldResourceProperties=registered))
    renamed = registered | {"RoleArn": f"{stack.role_arn}-before"}
    desk.handle(stack.message("Update", OldResourceProperties=renamed))
    desk.handle(stack.message("Update", OldResourceProperties=registered | moved), "FAILED")
    [after] = desk.connections()
    assert after.due_at == before.due_at


def test_a_stack_in_an_account_that_is_not_declared_registers_nothing(desk):
    declared, other = desk.stack(), desk.stack()
    with desk.db.write(SYSTEM) as db:
        declare(db, db.get(Tenant, desk.tenant_id), [declared.account])
    desk.handle(other.message(), "FAILED")
    kept = {"RoleArn": other.role_arn, "RegistrationToken": other.token}
    desk.handle(other.message("Update", OldResourceProperties=kept))
    theirs = kept | {"RegistrationToken": "another tenant's, which the rollback sends"}
    desk.handle(other.message("Update", OldResourceProperties=theirs), "FAILED")
    assert desk.connections() == []
    desk.handle(declared.message())


def test_a_stack_registers_no_role_in_an_account_that_the_vendors_suspension_closes(desk):
    first = desk.stack()
    desk.handle(first.message())
    [connection] = desk.connections()
    other = desk.stack(f"{connection.role_arn}-other")
    desk.change(Connection, connection.id, status=ConnectionStatus.SUSPENDED, suspended_at=now())
    desk.handle(other.message(), "FAILED")
    assert [one.id for one in desk.connections()] == [connection.id]
    desk.change(Connection, connection.id, suspended_by_bound=True)
    desk.handle(other.message())


@pytest.mark.parametrize(("version", "known", "declares"), [(1, 1, True), (999_999, None, False)])
def test_a_role_has_the_set_of_its_template_and_awaits_approval_in_an_undeclared_account(
    desk, version, known, declares
):
    """No version is noted that nobody asked for."""
    stack = desk.stack()
    if declares:
        with desk.db.write(SYSTEM) as db:
            declare(db, db.get(Tenant, desk.tenant_id), [stack.account])
    stack.permission_set = f"bucket-sync@{version}"
    desk.handle(stack.message())
    [connection] = desk.connections()
    assert connection.permission_set == "bucket-sync"
    assert connection.permission_set_version == known
    assert connection.awaiting_approval is not declares


def test_a_full_tenant_takes_no_more_and_loses_none(desk):
    desk.registrations = desk.process(max_connections=1)
    stacks = [desk.stack() for _ in range(4)]
    at_once([lambda s=s: handle(desk.registrations, s.message()) for s in stacks])
    [connection] = desk.connections()
    assert sorted(desk.answers.statuses) == ["FAILED"] * 3 + ["SUCCESS"]
    [kept] = [stack for stack in stacks if stack.role_arn == connection.role_arn]
    desk.handle(kept.message("Update"))
    desk.handle(desk.stack().message(), "FAILED")
    assert [row.id for row in desk.connections()] == [connection.id]


# --- the queue ---


@pytest.fixture
def line(aws, vendor, desk):
    """The real topic and queue; what is not deleted is seen again at once, instead of in a
    minute.
    """
    sqs, sns = root_client(aws, "sqs", VENDOR_ACCOUNT), root_client(aws, "sns", "444455556666")
    line = Line(sqs, sns, vendor, desk)
    line.set("0")
    line.empty()
    yield line
    line.empty()
    line.set("60")


class Line:
    def __init__(self, sqs, sns, vendor, desk):
        self.sqs, self.sns, self.url, self.topic = (
            sqs,
            sns,
            vendor.registration_queue_url,
            vendor.registration_topic_arn,
        )
        found = sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["RedrivePolicy"])[
            "Attributes"
        ]
        policy = json.loads(found["RedrivePolicy"])
        self.tries = int(policy["maxReceiveCount"])
        self.dead_letters = sqs.get_queue_url(
            QueueName=policy["deadLetterTargetArn"].split(":")[-1]
        )["QueueUrl"]
        self.registrations = desk.process(registration_topic_arns=(self.topic,))

    def set(self, visibility):
        self.sqs.set_queue_attributes(
            QueueUrl=self.url, Attributes={"VisibilityTimeout": visibility}
        )

    def empty(self):
        for url in (self.url, self.dead_letters):
            while found := self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get(
                "Messages"
            ):
                for message in found:
                    self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def publish(self, *requests):
        for request in requests:
            text = request if isinstance(request, str) else json.dumps(request)
            self.sns.publish(TopicArn=self.topic, Message=text)

    def receive(self):
        return self.registrations.receive(wait_seconds=0)

    def left(self, url=None):
        found = self.sqs.get_queue_attributes(
            QueueUrl=url or self.url, AttributeNames=["ApproximateNumberOfMessages"]
        )
        return int(found["Attributes"]["ApproximateNumberOfMessages"])


def test_the_messages_of_a_batch_do_not_wait_for_each_other(desk, line, monkeypatch):
    inner, together = line.registrations._register, threading.Barrier(3, timeout=60)

    def register(checked):
        together.wait()
        inner(checked)

    monkeypatch.setattr(line.registrations, "_register", register)
    line.publish(*[desk.stack().request() for _ in range(3)])
    assert line.receive() == 3
    assert desk.answers.statuses == ["SUCCESS"] * 3


def test_a_token_that_is_not_ours_costs_no_transaction_and_holds_no_answer_back(
    desk, line, monkeypatch
):
    """Neither do 200 of them: what has no place waits in the queue."""
    foreign = registration_token(
        desk.db, ("another-secret-key-of-somebody-else-01",), desk.tenant_id
    )
    role, go_on = desk.stack().role_arn, threading.Event()
    monkeypatch.setattr("app.onboarding.registrations._REFUSED_MAX", 3)

    class Slow(StackAnswers):
        def send(self, request, refusal):
            return (refusal is None or go_on.wait(60)) and super().send(request, refusal)

    line.registrations._answers = cache(lambda region: Slow(region, "aws", desk.answers.url))
    line.publish(
        *[Stack(desk.answers.url, foreign, role).request() for _ in range(9)],
        desk.stack().request(),
    )
    with monkeypatch.context() as patch:
        patch.setattr(line.registrations, "_register", lambda _: None)
        patch.setattr(line.registrations._db, "write", lambda _: pytest.fail("a transaction"))
        assert line.receive() == 10
        assert desk.answers.statuses == ["SUCCESS"]
        assert line.registrations.queue_state.unanswered_at is None
    deleted, delete = [], line.registrations._queue.delete
    monkeypatch.setattr(
        line.registrations._queue, "delete", lambda some: deleted.append(len(some)) or delete(some)
    )
    go_on.set()
    while line.receive():
        line.registrations._refused.join()
    assert max(deleted) > 1, "in one call"
    assert desk.answers.statuses.count("FAILED") >= 9
    assert line.left() == 0
    assert line.left(line.dead_letters) == 0


def test_of_a_tenants_messages_some_are_worked_on_at_once_and_further_ones_come_again(
    desk, line, monkeypatch
):
    """They are neither refused nor used up: a message that was put back three times is worked
    on.
    """
    few = handling.MESSAGES_AT_ONCE._replace(most=2)
    monkeypatch.setattr(handling, "MESSAGES_AT_ONCE", few)
    other, put_back = tenant_row(desk.db), []
    inner = line.registrations._queue.put_back
    monkeypatch.setattr(
        line.registrations._queue, "put_back", lambda some: put_back.extend(some) or inner(some)
    )
    line.publish(*[desk.stack().request() for _ in range(6)], desk.stack(tenant_id=other).request())
    assert line.receive() == 7
    assert len(desk.connections()) == 2
    assert len(desk.connections(other)) == 1
    assert len(put_back) == 4
    assert [1 <= seconds <= 4 for _, seconds in put_back] == [True] * 4
    assert desk.answers.statuses == ["SUCCESS"] * 3
    messages = [replace(message, deliveries=4) for message, _ in put_back]
    monkeypatch.setattr(line.registrations._queue, "receive", lambda _: messages)
    assert line.receive() == 4
    assert len(desk.connections()) == 6
    assert desk.answers.statuses == ["SUCCESS"] * 7


def test_a_message_that_was_handled_leaves_its_place(desk, line, monkeypatch):
    one = handling.MESSAGES_AT_ONCE._replace(most=1)
    monkeypatch.setattr(handling, "MESSAGES_AT_ONCE", one)
    for number in (1, 2):
        line.publish(desk.stack().request())
        line.receive()
        assert len(desk.connections()) == number


def test_late_messages_are_never_put_back_and_leave_database_connections_to_others(
    desk, line, monkeypatch
):
    """SQS would move them to the dead letters. While they wait for their tenant's lock, each has a
    connection.
    """
    line.publish(desk.stack().request())
    [message] = line.registrations._queue.receive(0)
    late = [replace(message, id=str(number), deliveries=4) for number in range(16)]
    monkeypatch.setattr(line.registrations._queue, "receive", lambda _: late)
    present, most, eight = [], [], threading.Barrier(8, timeout=30)

    def register(_):
        present.append(1)
        most.append(len(present))
        eight.wait()
        time.sleep(0.02)  # for a ninth, if there were room
        present.pop()

    monkeypatch.setattr(line.registrations, "_register", register)
    assert line.receive() == 16
    assert len(most) == 16
    assert max(most) == 8


def test_the_further_a_tenants_backlog_reaches_the_later_a_message_comes_again():
    tenant, queued = new_id(), MessagePlaces()
    waits = [queued.seconds_until_next(tenant, deliveries=1) for _ in range(3_000)]
    assert max(waits[:30]) <= 4
    assert 145 <= waits[-1] <= 155
    assert queued.seconds_until_next(new_id(), deliveries=1) <= 4


class Backlog:
    """Messages of one tenant that arrive at once, each handled in so many seconds by two threads.

    `handle` returns how often the most patient one was delivered.
    """

    def __init__(self, monkeypatch, messages, seconds):
        self._time, self._seconds, self._places = 0.0, seconds, MessagePlaces()
        self._waiting = [(0.0, number, 1) for number in range(messages)]  # due, number, deliveries
        monkeypatch.setattr(
            counting_in_memory, "time", SimpleNamespace(monotonic=lambda: self._time)
        )

    def handle(self):
        tenant, free, most, places = new_id(), [0.0, 0.0], 0, []
        while self._waiting:
            self._time = max(heapq.heappop(free), self._waiting[0][0])
            while places and places[0] <= self._time:
                heapq.heappop(places)
                self._places.leave(tenant)
            began = len(places)
            for _ in range(10):  # that one request to SQS returns
                if not self._waiting or self._waiting[0][0] > self._time:
                    break
                _, number, deliveries = heapq.heappop(self._waiting)
                most = max(most, deliveries)
                if self._places.take(tenant, deliveries=deliveries):
                    heapq.heappush(places, self._time + self._seconds)
                    continue
                wait = self._places.seconds_until_next(tenant, deliveries=deliveries)
                heapq.heappush(self._waiting, (self._time + wait, number, deliveries + 1))
            busy = self._seconds if len(places) > began else 0.02
            heapq.heappush(free, self._time + busy)
        return most


@pytest.mark.parametrize("seconds", [0.2, 2.0])
def test_an_organization_loses_no_account_though_each_takes_long(monkeypatch, seconds):
    """SQS moves a message to the dead letters after five deliveries."""
    assert Backlog(monkeypatch, 1_000, seconds).handle() <= 4


def test_poison_becomes_a_dead_letter_holds_nobody_up_and_is_no_unanswered_message(desk, line):
    """Anybody may publish it, so readiness does not count it."""
    with Answers() as trap:
        line.publish(
            "hello",
            desk.stack().request(ResponseURL=f"{trap.url}/x"),
            desk.stack().request(StackId="x"),
            desk.stack().request(),
        )
        with capture_logs() as lines:
            for _ in range(line.tries + 1):
                line.receive()
                assert line.registrations.queue_state.unanswered_at is None
        assert trap.got == []
    assert desk.answers.statuses == ["SUCCESS"]
    assert len(desk.connections()) == 1
    assert line.left() == 0
    assert line.left(line.dead_letters) == 3
    assert "secret-signature" not in repr(lines)
    assert {line["event"] for line in lines} == {
        "registration.unreadable",
        "registration.strange_response_url",
    }


def test_a_database_that_is_away_or_goes_away_in_between_leaves_the_message(
    desk, line, tmp_path, monkeypatch
):
    line.publish(desk.stack().request())

    def away(*_):
        raise StoreUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(line.registrations, "_register", away)
        assert line.receive() == 1
    with monkeypatch.context() as patch:
        nowhere = Database(NOWHERE)
        patch.setattr(line.registrations, "_db", nowhere)
        for _ in range(line.tries + 1):
            with pytest.raises(StoreUnavailableError):
                line.receive()
    assert desk.answers.got == []
    assert line.receive() == 1
    assert desk.answers.statuses == ["SUCCESS"]


def test_a_queue_that_is_away_is_told_to_the_loop(desk, monkeypatch):
    monkeypatch.setattr(
        desk.queue, "_url", desk.queue._url.replace(VENDOR_ACCOUNT, "000000000000") + "-gone"
    )
    with pytest.raises(AwsUnavailableError):
        desk.registrations.receive(wait_seconds=0)


# --- the kit ---


def link(kit):
    return opened(kit["launch_stack_url"])


def test_the_kit_registers_itself_in_the_topics_regions_and_only_there(
    config, aws, vendor, admin, start
):
    topic, paris = (
        vendor.registration_topic_arn.replace("us-east-1", region)
        for region in ("eu-west-1", "eu-west-3")
    )
    url = vendor.registration_queue_url
    app = start({}, registration_topic_arns=(topic, paris), registration_queue_url=url)
    services = app.extensions["deputy"]
    world = World(aws, Api(app, admin.key))
    tenant = world.tenant()
    kit = world.kit(tenant)
    assert kit["region"] == "eu-west-1"
    assert kit["registers_itself"] is True
    token = link(kit)["param_RegistrationToken"]
    assert link(kit)["param_RegistrationTopicArn"] == topic
    assert token == registration_token(
        services.db, config.database.secret_keys, uuid.UUID(tenant["id"])
    )
    assert len(kit["launch_stack_url"]) < 2000
    assert kit == world.kit(tenant)
    path = f"/v1/tenants/{tenant['id']}/onboarding"
    for_paris = world.admin("GET", f"{path}?region=eu-west-3")
    assert for_paris["registers_itself"] is True
    assert link(for_paris)["param_RegistrationTopicArn"] == paris
    assert opened(for_paris["organization_launch_url"])["param_RegistrationTopicArn"] == paris
    assert link(for_paris)["param_RegistrationToken"] == token
    elsewhere = world.admin("GET", f"{path}?region=us-east-1")
    assert elsewhere["registers_itself"] is False
    assert not any("Registration" in name for name in link(elsewhere))
    assert services.registrations is not None
    assert admin.app.extensions["deputy"].registrations is None
    assert admin("GET", f"/v1/tenants/{tenant['id']}/onboarding")["registers_itself"] is False, (
        "without a topic"
    )


# --- what a worker's heartbeat says of the queue ---


def test_a_message_is_remembered_from_when_it_can_not_be_answered_until_it_is(desk, line):
    with Answers(503, 503, 200) as moody:
        registrations = desk.process(moody.url, registration_topic_arns=(line.topic,))
        before = now() - timedelta(seconds=2)
        line.publish(Stack(moody.url, desk.token(), desk.stack().role_arn).request())
        assert registrations.receive(wait_seconds=0) == 1
        sent_at = registrations.queue_state.unanswered_at
        assert before < sent_at <= now()
        assert registrations.queue_state.heard_at == sent_at
        assert registrations.receive(wait_seconds=0) == 1
        assert moody.statuses == ["SUCCESS"] * 3
        assert registrations.queue_state.unanswered_at is None
        assert registrations.receive(wait_seconds=0) == 0
        assert registrations.queue_state.heard_at > sent_at
    assert desk.actions() == ["connection.registered"], "though it came twice"
