"""The vendor's own stack, the broker's credentials, and the command that starts it all."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.sandbox.sandbox_people import CUSTOMER, DENIED, OWN, VENDOR, VENDOR_ROOT, outcome

ROOT = Path(__file__).parents[2]
BROKER_YAML = (ROOT / "cloudformation" / "broker.yaml").read_text()


def get(url):
    with urllib.request.urlopen(url) as answer:
        return json.loads(answer.read())


@pytest.fixture
def broker(sandbox, vendor):
    made = get(f"{sandbox.url}/_sandbox/broker-credentials")
    return {
        "aws_access_key_id": made["AccessKeyId"],
        "aws_secret_access_key": made["SecretAccessKey"],
        "aws_session_token": made["Token"],
    }


def test_the_broker_is_a_role_that_may_chain(people, broker, vendor):
    who = people.client("sts", broker).get_caller_identity()["Arn"]
    assert who == f"arn:aws:sts::{VENDOR}:assumed-role/DeputyBroker/deputy"
    condition = {
        "StringEquals": {"sts:ExternalId": OWN},
        "ArnEquals": {"aws:PrincipalArn": vendor.broker_principal_arn},
    }
    role = people.role(VENDOR_ROOT, condition, MaxSessionDuration=43200)
    assert people.outcome(role, OWN, who=broker) == "allowed"
    assert people.outcome(role, who=broker) == DENIED
    assert people.outcome(role, OWN, who=broker, DurationSeconds=7200) == (400, "ValidationError")


@pytest.mark.parametrize("account", [VENDOR, "999988887777"])
def test_the_broker_may_assume_no_role_of_the_vendors(people, broker, account):
    role = people.role("*", account=account)
    assert people.outcome(role, OWN, who=VENDOR) == "allowed"
    assert people.outcome(role, OWN, who=broker) == DENIED


def test_the_broker_may_assume_only_names_with_the_prefix(people, broker):
    assert people.outcome(people.role(VENDOR_ROOT, name="other-name"), who=broker) == DENIED
    assert (
        people.outcome(people.role(VENDOR_ROOT, name="deputy-in-path", Path="/x/"), who=broker)
        == "allowed"
    )


def test_registrations_arrive(people, broker, vendor):
    sns, sqs = people.client("sns", CUSTOMER), people.client("sqs", broker)
    sns.publish(TopicArn=vendor.registration_topic_arn, Message="hello")
    message = sqs.receive_message(QueueUrl=vendor.registration_queue_url)["Messages"][0]
    envelope = json.loads(message["Body"])
    assert (envelope["Message"], envelope["TopicArn"]) == ("hello", vendor.registration_topic_arn)
    sqs.delete_message(
        QueueUrl=vendor.registration_queue_url, ReceiptHandle=message["ReceiptHandle"]
    )
    assert (
        outcome(lambda: sqs.send_message(QueueUrl=vendor.registration_queue_url, MessageBody="x"))[
            0
        ]
        == 403
    )


def test_not_even_the_vendors_administrator_overwrites_a_published_template(
    people, sandbox, vendor
):
    s3, bucket = people.client("s3", VENDOR), vendor.template_bucket

    def put(key, **options):
        return outcome(lambda: s3.put_object(Bucket=bucket, Key=key, Body=b"{}", **options))

    published, other = "templates/kept.yaml", "templates/other.yaml"
    assert put(published, IfNoneMatch="*") == "allowed"
    assert put(published) == DENIED
    assert put(published, IfNoneMatch="*") == (412, "PreconditionFailed")
    assert put(other) == DENIED, "a name that is free does not tell whether it will be"
    assert outcome(lambda: s3.create_multipart_upload(Bucket=bucket, Key=other)) == DENIED
    assert put("drafts/a.yaml") == put("drafts/a.yaml") == "allowed"
    assert get(f"{sandbox.url}/{bucket}/{published}") == {}


def test_not_even_the_vendors_administrator_removes_a_published_template(people, sandbox, vendor):
    """The name would be free for other content."""
    s3, bucket = people.client("s3", VENDOR), vendor.template_bucket
    published, draft = "templates/there.yaml", "drafts/there.yaml"
    version = s3.put_object(Bucket=bucket, Key=published, Body=b"{}", IfNoneMatch="*")["VersionId"]
    s3.put_object(Bucket=bucket, Key=draft, Body=b"{}")

    def doomed(*objects):
        return outcome(lambda: s3.delete_objects(Bucket=bucket, Delete={"Objects": list(objects)}))

    expiry = {
        "ID": "x",
        "Status": "Enabled",
        "Filter": {"Prefix": "templates/"},
        "Expiration": {"Days": 1},
    }
    assert outcome(lambda: s3.delete_object(Bucket=bucket, Key=published)) == DENIED
    assert (
        outcome(lambda: s3.delete_object(Bucket=bucket, Key=published, VersionId=version)) == DENIED
    )
    assert (
        doomed({"Key": draft}, {"Key": published})
        == doomed({"Key": published, "VersionId": version})
        == DENIED
    )
    assert doomed({"Key": draft}) == "allowed"
    assert (
        outcome(
            lambda: s3.put_bucket_lifecycle_configuration(
                Bucket=bucket, LifecycleConfiguration={"Rules": [expiry]}
            )
        )
        == DENIED
    )
    assert get(f"{sandbox.url}/{bucket}/{published}") == {}


class TestCommand:
    def run(self, *arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "sandbox", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def test_the_command_starts_and_stops(self):
        with self.run("--port", "0") as interrupted, self.run("--port", "0") as terminated:
            for process, number in ((interrupted, signal.SIGINT), (terminated, signal.SIGTERM)):
                ready = process.stdout.readline()
                url = re.match(r"sandbox ready at (http://localhost:\d+) ", ready)[1]
                assert get(f"{url}/_sandbox/broker-credentials")["RoleArn"].endswith(
                    "role/DeputyBroker"
                )
                process.send_signal(number)
            for process in (interrupted, terminated):
                assert process.wait(30) == 0
                assert process.stderr.read() == ""

    def test_a_taken_port_is_one_line(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            with self.run("--port", port) as process:
                _, error = process.communicate(timeout=60)
        assert process.returncode == 1
        assert error == f"the sandbox cannot listen on 127.0.0.1:{port}: Address already in use\n"
