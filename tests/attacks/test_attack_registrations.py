"""Anyone may publish to the registration topic: only a proof opens anything, and no message
does.
"""

import itertools
import json
import re
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs

from app.aws.stack_messages import RegistrationQueue, StackAnswers
from app.onboarding.registrations import Registrations
from app.permissions import permission_sets
from tests.attacks.evidence import issues_nothing, shows_nothing, unchanged, untouched
from tests.conftest import with_settings
from tests.support.cast import Customer, path_of
from tests.support.rows import at_once, registration_token
from tests.support.stacks import HOSTILE_URLS, TOPICS, Answers, Stack, envelope, handle

REASON = {"reason": "an incident"}


class Desk:
    """The worker that handles registrations, beside the web's services and with the same
    database.
    """

    def __init__(self, config, db, queue_url, answers):
        """Without `answers` the stacks' addresses are AWS's own."""
        self.answers, self.queue_url = answers, queue_url
        self.config, self.db = config, db
        self.registrations = Registrations(
            db,
            with_settings(config, registration_topic_arns=tuple(TOPICS.values())),
            permission_sets.load(),
            RegistrationQueue("us-east-1", queue_url),
            lambda region: StackAnswers(region, "aws", answers and answers.url),
        )

    def stack(self, tenant, role_arn, **more):
        secret_keys = self.config.database.secret_keys
        token = registration_token(self.db, secret_keys, uuid.UUID(tenant["id"]))
        return Stack(self.answers.url, token, role_arn, **more)

    def handle(self, message):
        """The status that the stack got."""
        assert handle(self.registrations, message)
        shows_nothing(json.dumps(self.answers.said[-1]))
        return self.answers.statuses[-1]


@pytest.fixture
def desk(config, app, vendor) -> Iterator[Desk]:
    with Answers() as answers:
        yield Desk(config, app.extensions["deputy"].db, vendor.registration_queue_url, answers)


def connections(world, tenant):
    return world.admin("GET", f"/v1/tenants/{tenant['id']}/connections")["items"]


# --- whose role, whose tenant ---


def test_the_victims_role_under_the_attackers_token_opens_nothing(scene, desk):
    """Mallory reads the role's ARN somewhere and publishes it with her own token, from a stack
    that she makes up.
    """
    acme = scene.world.tenant("Acme again")
    mallory = scene.world.key("connections:write", "credentials:issue", tenant=acme)
    with untouched(scene.world, scene.theirs):
        assert desk.handle(desk.stack(acme, scene.theirs["role_arn"]).message()) == "SUCCESS"
        [made] = connections(scene.world, acme)
        assert made["status"] == "pending"
        issues_nothing(mallory, made)
    assert mallory("POST", path_of(made, "/verify"))["status"] == "pending"
    with unchanged(scene.world, scene.theirs):
        issues_nothing(mallory, made)


def test_the_attackers_role_under_the_victims_token_issues_nothing(scene, desk):
    """It would make Globex's workers work in Mallory's account, if a message were enough."""
    globex, customer = scene.world.tenant("Globex again"), Customer(scene.world.aws)
    trap = customer.role(
        scene.world.kit(globex)["role_name"], scene.world.kit(scene.acme)["trust_policy"]
    )
    assert desk.handle(desk.stack(globex, trap).message()) == "SUCCESS"
    [made] = connections(scene.world, globex)
    assert made["status"] == "pending"
    worker = scene.world.worker(globex)
    issues_nothing(worker, made)
    assert scene.world.verify(made)["status"] == "pending"


def test_a_stack_of_another_account_than_the_roles_is_void(scene, desk):
    with untouched(scene.world, scene.theirs):
        for kind in ("Create", "Update"):
            stack = desk.stack(scene.globex, scene.theirs["role_arn"], account="999900001111")
            assert desk.handle(stack.message(kind)) == "FAILED"
        assert desk.handle(stack.message("Delete")) == "SUCCESS"


def test_the_role_in_the_old_properties_or_elsewhere_counts_for_nothing(scene, desk):
    acme = scene.world.tenant("Acme again")
    stack = desk.stack(acme, "arn:aws:iam::444455556666:role/deputy-mine")
    token = desk.stack(scene.globex, stack.role_arn).token
    forged = {"RoleArn": scene.theirs["role_arn"], "RegistrationToken": token}
    more = {"OldResourceProperties": forged, "tenant_id": scene.globex["id"], "status": "verified"}
    with untouched(scene.world, scene.theirs):
        assert desk.handle(stack.message("Update", **more, **forged)) == "SUCCESS"
    assert [c["role_arn"] for c in connections(scene.world, acme)] == [stack.role_arn]


def test_another_tenants_message_can_not_make_ours_a_repetition(scene, desk):
    acme, globex = scene.world.tenant("Acme again"), scene.world.tenant("Globex again")
    ours = desk.stack(globex, "arn:aws:iam::444455556666:role/deputy-ours")
    theirs = desk.stack(acme, ours.role_arn)
    theirs.stack_id = ours.stack_id
    for stack in (theirs, ours):
        assert desk.handle(stack.message(RequestId="the-same")) == "SUCCESS"
    assert len(connections(scene.world, globex)) == 1


# --- what is proven, suspended or deleted ---


def test_no_message_resumes_a_suspended_one_or_brings_a_deleted_one_back(world, desk):
    tenant = world.tenant()
    suspended, deleted = world.connection(tenant), world.connection(tenant)
    world.suspend(suspended)
    world.admin("DELETE", path_of(deleted), expect=204)
    calls = len(world.aws.sts_calls)
    for connection in (suspended, deleted):
        stack = desk.stack(tenant, connection["role_arn"])
        for kind in ("Create", "Update", "Delete", "Create"):
            assert desk.handle(stack.message(kind)) == "SUCCESS"
    [left] = connections(world, tenant)
    assert (left["id"], left["status"]) == (suspended["id"], "suspended")
    world.admin.refused("GET", path_of(deleted), expect=404, code="not_found")
    assert len(world.aws.sts_calls) == calls
    ignored = world.audit(tenant_id=tenant["id"], action="connection.registration_ignored")
    assert len(ignored) == 8
    assert {event["actor"]["kind"] for event in ignored} == {"registration"}
    again = world.connect(tenant, deleted["role_arn"])
    assert again["id"] != deleted["id"], "an explicit connect does"


@pytest.mark.parametrize("end", ["suspend", "delete"])
def test_a_tenant_that_is_suspended_or_gone_takes_no_registration(world, desk, end):
    tenant = world.tenant()
    path = f"/v1/tenants/{tenant['id']}"
    world.admin("POST", f"{path}/suspend", REASON)
    if end == "delete":
        world.admin("DELETE", path, expect=204)
    before = world.audit(tenant_id=tenant["id"])
    stack = desk.stack(tenant, "arn:aws:iam::444455556666:role/deputy-late")
    absent = desk.stack({"id": str(uuid.uuid4())}, stack.role_arn)
    answers = []
    for asked in (stack, absent):
        for kind, status in (("Create", "FAILED"), ("Update", "FAILED"), ("Delete", "SUCCESS")):
            message = asked.message(kind, RequestId="1", StackId=stack.stack_id)
            assert desk.handle(message) == status
            answers.append(desk.answers.got[-1][2])
    assert answers[:3] == answers[3:], "it does not tell whether the tenant exists"
    assert world.audit(tenant_id=tenant["id"]) == before


# --- load ---


def test_hammering_costs_no_call_to_sts(world, desk):
    made = world.connection()
    stack = desk.stack({"id": made["tenant_id"]}, made["role_arn"])
    calls = len(world.aws.sts_calls)
    messages = [stack.message() for _ in range(5)] * 2
    assert at_once([lambda m=m: handle(desk.registrations, m) for m in messages]) == [True] * 10
    assert len(world.aws.sts_calls) == calls
    again = world.audit(tenant_id=made["tenant_id"], action="connection.registered_again")
    assert len(again) == 5, "once for each request, not for each delivery"


# --- the way back ---

_listening = []


def _hook(event, arguments):
    calls = {"socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.sendmsg"}
    if _listening and event in calls:
        _listening[-1].append((event, arguments[-1]))


@pytest.fixture(scope="session")
def audit_hook() -> None:
    sys.addaudithook(_hook)  # it can't be taken away again, and does nothing while nobody listens


@contextmanager
def no_network(audit_hook):
    """Python itself tells of every lookup and every connection."""
    _listening.append([])
    try:
        yield
    finally:
        seen = _listening.pop()
    assert seen == []


def test_an_address_that_is_not_awss_is_never_called(desk, scene, audit_hook, config):
    tenant = scene.world.tenant()
    stack = desk.stack(tenant, "arn:aws:iam::444455556666:role/deputy-x")
    at_aws = Desk(config, desk.db, desk.queue_url, None).registrations
    with pytest.raises(AssertionError), no_network(audit_hook):  # it would see a call
        desk.handle(stack.message("Delete", ResourceProperties={}))
    with Answers() as trap, capture_logs() as lines, no_network(audit_hook):
        local = [f"{trap.url}/{stack.stack_id}", f"https://x@{trap.url.removeprefix('http://')}/"]
        for url in [*HOSTILE_URLS, *local]:
            for kind in ("Create", "Update", "Delete") if url in local else ("Create",):
                assert not handle(at_aws, stack.message(kind, ResponseURL=url)), url
        assert trap.got == []
    events = {"registration.strange_response_url", "registration.unreadable"}
    assert {line["event"] for line in lines} <= events
    assert not re.search(r"169\.254|evil", repr(lines))
    assert connections(scene.world, tenant) == []


def test_a_topic_answers_only_stacks_and_addresses_of_its_own_region(desk, scene, audit_hook):
    """Mallory publishes what a stack of another region sent, or would send, to the topic that is
    nearest to her.
    """
    tenant = scene.world.tenant()
    stacks = {
        region: desk.stack(tenant, "arn:aws:iam::444455556666:role/deputy-x", region=region)
        for region in TOPICS
    }
    for topic, of_stack, of_address in itertools.product(TOPICS, repeat=3):
        address = stacks[of_address].request()["ResponseURL"]
        request = stacks[of_stack].request(ResponseURL=address)
        message = envelope(json.dumps(request), TopicArn=TOPICS[topic])
        if topic == of_stack == of_address:
            assert desk.handle(message) == "SUCCESS"
        else:
            with no_network(audit_hook):
                assert desk.registrations._request(message) is False
    assert len(desk.answers.got) == len(TOPICS)


def test_a_redirecting_bucket_leads_nowhere(config, app, vendor, scene):
    with Answers() as trap, Answers(301, location=f"{trap.url}/elsewhere") as answers:
        desk = Desk(config, app.extensions["deputy"].db, vendor.registration_queue_url, answers)
        stack = desk.stack(scene.acme, "arn:aws:iam::444455556666:role/deputy-x")
        assert not handle(desk.registrations, stack.message("Delete"))
        assert trap.got == []
        assert answers.got
