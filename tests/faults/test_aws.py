"""AWS and DNS are slow, sick or gone. docs/reliability.md has the table."""

import json
import time
from contextlib import ExitStack, closing
from urllib.parse import parse_qs, urlsplit

import pytest

from sandbox.vendor import VENDOR_ACCOUNT
from tests.faults.users import ALL, LASTS, WITHOUT_AWS, assert_served_meanwhile, during
from tests.honesty.deployment import Deployment
from tests.support.balancer import Balancer
from tests.support.cast import root_client
from tests.support.databases import new_database
from tests.support.stacks import Answers, Stack
from tests.support.waiting import until

pytestmark = pytest.mark.faults


STS = {
    "STS takes 1 s for each call": (lambda front: front.slow(1), ALL),
    "STS takes 5 s for each call": (lambda front: front.slow(5), WITHOUT_AWS),
    "STS throttles every call": (lambda front: front.throttling(), WITHOUT_AWS),
    "STS cuts every connection": (lambda front: front.cutting(1), WITHOUT_AWS),
    "STS takes calls and never answers": (lambda front: front.silent(), WITHOUT_AWS),
    "STS cuts every second call": (lambda front: front.cutting(2), WITHOUT_AWS),
}


@pytest.mark.parametrize("fault", STS)
def test_sts_is_sick(service, front, fault):
    sick, served = STS[fault]
    assert_served_meanwhile(service, fault, during(sick(front)), served=served)


@pytest.mark.parametrize("seconds", [0, 10])
def test_dns_is_dead(service, front, inside, seconds):
    how = f"silent for {seconds} s, then no answer" if seconds else "it fails at once"

    def trouble():
        # The cut makes Deputy look the name up again.
        with inside.dead_dns(seconds), front.cutting(1):
            time.sleep(LASTS)

    assert_served_meanwhile(service, f"DNS is dead: {how}", trouble, served=WITHOUT_AWS)


def test_sqs_and_s3_are_away(front, aws, vendor, tmp_path):
    """Stacks that are launched meanwhile wait, and each gets its answer."""
    with ExitStack() as stack:
        queue = Queue(aws, vendor)
        stack.callback(queue.visible_again_after, 60)
        queue.visible_again_after(4)
        sqs = stack.enter_context(Balancer([port_of(aws.url)]))
        answers = stack.enter_context(Answers())
        s3 = stack.enter_context(Balancer([port_of(answers.url)]))
        url = stack.enter_context(new_database())
        service = stack.enter_context(Deployment(tmp_path, url, front, **queue.settings(sqs, s3)))
        # Which the sandbox knows
        worker = service.start_background_worker(AWS_ACCESS_KEY_ID=VENDOR_ACCOUNT)
        stack.callback(worker.wait)
        stack.callback(worker.kill)
        until(
            lambda: service.sql("SELECT 1 FROM background_workers"), "the background worker starts"
        )
        tenant = service.admin.must("POST", "/v1/tenants", {"name": "Launches"}, expect=201)
        kit = service.admin.must("GET", f"/v1/tenants/{tenant['id']}/onboarding")
        query = urlsplit(kit["launch_stack_url"]).fragment.partition("?")[2]
        [token] = parse_qs(query)["param_RegistrationToken"]

        def trouble():
            for door in (sqs, s3):
                door.away()
            for number in range(12):
                arn = f"arn:aws:iam::{600000000000 + number}:role/deputy-{number:08x}"
                queue.publish(Stack(f"http://127.0.0.1:{s3.port}", token, arn).request())
            time.sleep(LASTS / 2)
            sqs.back()
            time.sleep(LASTS)
            assert answers.got == []
            s3.back()

        assert_served_meanwhile(service, "S3 and SQS are away, then S3 alone", trouble, served=ALL)
        until(lambda: len({each["StackId"] for each in answers.said}) == 12, "all are answered")
        assert set(answers.statuses) == {"SUCCESS"}
        assert len(service.sql("SELECT 1 FROM registrations")) == 12


class Queue:
    """The registration topic and its queue, in the sandbox."""

    def __init__(self, aws, vendor):
        self._aws, self._vendor = aws, vendor

    def settings(self, sqs, s3):
        return {
            "environment": {
                "AWS_ENDPOINT_URL_SQS": f"http://127.0.0.1:{sqs.port}",
                "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{s3.port}",
            },
            "REGISTRATION_TOPIC_ARN": self._vendor.registration_topic_arn,
            "REGISTRATION_QUEUE_URL": self._vendor.registration_queue_url,
        }

    def visible_again_after(self, seconds):
        with closing(root_client(self._aws, "sqs", VENDOR_ACCOUNT)) as sqs:
            sqs.set_queue_attributes(
                QueueUrl=self._vendor.registration_queue_url,
                Attributes={"VisibilityTimeout": str(seconds)},
            )

    def publish(self, request):
        with closing(root_client(self._aws, "sns", "444455556666")) as sns:
            sns.publish(TopicArn=self._vendor.registration_topic_arn, Message=json.dumps(request))


def port_of(url):
    return urlsplit(url).port
