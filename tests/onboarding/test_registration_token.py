"""Registration tokens: what they name, that nothing else is one, and that another deployment's
is not ours to answer.
"""

import base64
import hmac
import re
import uuid
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from cachetools import TTLCache
from cfnlint.decode import decode_str
from structlog.testing import capture_logs

from app.aws.stack_messages import RegistrationQueue
from app.cache.sealing import derive_key
from app.onboarding.registration_tokens import RegistrationTokens, TokenIds, deployment_of
from app.store.database import Database
from app.store.models.deployment import deployment_id
from tests.conftest import with_settings
from tests.onboarding.test_registrations import Desk
from tests.support.cast import root_client
from tests.support.databases import empty_database, migrate, new_database
from tests.support.rows import tenant_row
from tests.support.stacks import TOPIC, Answers, Stack, handle

KEYS = ("first-secret-key-of-the-tests-0123456789", "older-secret-key-of-the-tests-0123456789")
ROLE = "arn:aws:iam::444455556666:role/deputy-x"
HERE, ELSEWHERE = uuid.uuid4(), uuid.uuid4()


def old_token(tenant_id, generation, key=KEYS[0]):
    """As it was before it named a deployment."""
    payload = tenant_id.bytes + generation.to_bytes(6, "big")
    mac = hmac.digest(derive_key(key, "registration tokens")[1], payload, "sha256")
    return "dpt_" + base64.urlsafe_b64encode(payload + mac).decode()


# --- what a token is ---


def test_a_token_names_its_deployment_its_tenant_and_a_generation():
    tokens, tenant_id, link_id = RegistrationTokens(KEYS), uuid.uuid4(), uuid.uuid4()
    token = tokens.make(HERE, tenant_id, 70_000)
    assert token == tokens.make(HERE, tenant_id, 70_000)
    assert tokens.read(token) == TokenIds(tenant_id, 70_000)
    assert RegistrationTokens(KEYS[1:]).read(token) is None
    assert deployment_of(token) == HERE, "without a key"
    assert len(token) == 96
    assert token.startswith("dpt_")
    of_link = tokens.make(HERE, tenant_id, 70_000, link_id=link_id)
    assert tokens.read(of_link) == TokenIds(tenant_id, 70_000, link_id)
    assert deployment_of(of_link) == HERE
    assert len(of_link) == 120


def a_token(form):
    tokens = RegistrationTokens(KEYS)
    if form == "old":
        return old_token(uuid.uuid4(), 1)
    return tokens.make(HERE, uuid.uuid4(), 1, link_id=uuid.uuid4() if form == "link" else None)


@pytest.mark.parametrize("form", ["new", "link", "old"])
def test_no_other_text_is_a_token(form):
    tokens, token = RegistrationTokens(KEYS), a_token(form)
    for place in range(4, len(token)):
        other = "A" if token[place] != "A" else "B"
        assert tokens.read(token[:place] + other + token[place + 1 :]) is None
    for text in (
        "",
        "dpt_",
        token[:-1],
        token + "A",
        token + "\n",
        token + "=",
        token.upper(),
        f" {token}",
    ):
        assert tokens.read(text) is None
    assert tokens.read(token[:-1] + "\uff10") is None


def test_a_form_to_come_names_its_deployment_at_the_same_place_and_is_not_read():
    """A release that does not know it must not take it for its own."""
    payload = b"\x03" + ELSEWHERE.bytes + uuid.uuid4().bytes + bytes(4) + bytes(18)
    mac = hmac.digest(derive_key(KEYS[0], "registration tokens")[1], payload, "sha256")
    token = "dpt_" + base64.urlsafe_b64encode(payload + mac).decode()
    assert deployment_of(token) == ELSEWHERE
    assert RegistrationTokens(KEYS).read(token) is None
    assert len(token) <= 128


@pytest.mark.parametrize("name", ["customer-role.yaml", "customer-org.yaml"])
def test_the_templates_take_tokens_of_every_form(name):
    text = (Path(__file__).parents[2] / "cloudformation" / name).read_text()
    parameter = decode_str(text)[0]["Parameters"]["RegistrationToken"]
    pattern, most = parameter.get("AllowedPattern", ".*"), parameter.get("MaxLength", 4096)
    for length in (72, 92, 116):  # the old form, this one, and the longest to come
        token = "dpt_" + "A" * length
        assert re.fullmatch(pattern, token)
        assert len(token) <= int(most)


# --- a deployment's id ---


def test_a_deployments_id_is_random_made_once_and_kept():
    ids = []
    for _ in range(2):
        with empty_database() as url:
            for _ in range(2):  # migrating again changes nothing
                migrate(url)
                database = Database(url)
                with database.read() as db:
                    ids.append(deployment_id(db))
                database.engine.dispose()
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert ids[0].version == 4


# --- two deployments on one topic ---


class Deployment(Desk):
    """A database, a queue and a worker of its own."""

    def __init__(self, config, database_url, queue_url, answers, keys):
        config = with_settings(config, registration_topic_arns=(TOPIC,), secret_keys=keys)
        queue = RegistrationQueue("us-east-1", queue_url)
        super().__init__(config, Database(database_url), queue, answers)
        self.url = queue_url

    def stack_with(self, token):
        return Stack(self.answers.url, token, ROLE)

    def stranger(self):
        """Of a deployment that was not heard of before."""
        token = RegistrationTokens(("k" * 40,)).make(uuid.uuid4(), uuid.uuid4(), 1)
        return self.stack_with(token)


@pytest.fixture
def deployments(aws, vendor, config):
    with (
        Answers() as answers,
        closing(aws.client("sqs", vendor.registration_topic_arn.split(":")[4], "us-east-1")) as sqs,
        ExitStack() as databases,
    ):
        made = []
        for keys in (KEYS, ("of-another-deployment-0123456789-0123456",)):
            queue = sqs.create_queue(QueueName=f"deployment-{uuid.uuid4().hex[:8]}")["QueueUrl"]
            url = databases.enter_context(new_database())
            made.append(Deployment(config, url, queue, answers, keys))
        yield made
        for one in made:
            one.db.engine.dispose()
            sqs.delete_queue(QueueUrl=one.url)


def test_each_of_two_deployments_answers_its_own_stacks_and_deletes_the_others_message(
    deployments, aws, vendor
):
    """SNS puts each message into both queues."""
    one, two = deployments
    stacks = [one.stack(), two.stack()]
    sqs = root_client(aws, "sqs", vendor.registration_topic_arn.split(":")[4])
    for stack in stacks:
        for kind in ("Create", "Delete"):
            message = stack.message(kind)
            for deployment in deployments:
                sqs.send_message(QueueUrl=deployment.url, MessageBody=message)
    for deployment in deployments:
        while deployment.registrations.receive(wait_seconds=0):
            pass
        held = sqs.get_queue_attributes(
            QueueUrl=deployment.url,
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )["Attributes"]
        assert set(held.values()) == {"0"}
    assert one.answers.statuses == ["SUCCESS"] * 4, "each request was answered once"
    assert len({said["RequestId"] for said in one.answers.said}) == 4


def test_a_token_of_the_old_form_registers_and_another_deployments_is_deleted_unanswered(
    deployments,
):
    """With any keys."""
    one, _ = deployments
    same_keys = RegistrationTokens(KEYS).make(ELSEWHERE, tenant_row(one.db), 1)
    for stack in (one.stranger(), one.stack_with(same_keys)):
        for kind in ("Create", "Update", "Delete"):
            assert handle(one.registrations, stack.message(kind))
    assert one.answers.got == []
    for key in (KEYS[0], "k" * 40):
        stack = one.stack_with(old_token(tenant_row(one.db), 1, key))
        assert handle(one.registrations, stack.message())
    assert one.answers.statuses == ["SUCCESS", "FAILED"]


def test_other_deployments_are_logged_once_an_hour_each_and_twenty_times_in_all(deployments):
    one, _ = deployments
    clock = [0.0]
    one.registrations._other_deployments._logged = TTLCache(20, 3600, timer=lambda: clock[0])
    strangers = [one.stranger() for _ in range(30)]

    def lines():
        with capture_logs() as logged:
            for stack in strangers:
                for _ in range(2):
                    assert handle(one.registrations, stack.message())
        return [
            line["deployment_id"]
            for line in logged
            if line["event"] == "registration.other_deployment"
        ]

    named = [str(deployment_of(stack.token)) for stack in strangers]
    assert lines() == named[:20]
    clock[0] = 3599.0
    assert lines() == []
    clock[0] = 3601.0
    assert lines() == named[:20]
    assert len(one.registrations._other_deployments._logged) == 20, "however many there are"
