"""The vendor's own stack, the broker's credentials, and the command that starts it all."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import boto3
import pytest

from tests.sandbox.sandbox_people import CUSTOMER, DENIED, OWN, VENDOR, VENDOR_ROOT

ROOT = Path(__file__).parents[2]


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


def command(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "sandbox", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_starts_resets_and_stops_and_says_that_its_port_is_taken():
    with command("--port", "0") as process:
        ready = process.stdout.readline()
        url, port = re.match(r"sandbox ready at (http://localhost:(\d+)) ", ready).groups()
        with command("--port", port) as second:
            _, error = second.communicate(timeout=60)
        assert (second.returncode, error) == (
            1,
            f"the sandbox cannot listen on 127.0.0.1:{port}: Address already in use\n",
        )
        assert get(f"{url}/_sandbox/broker-credentials")["RoleArn"].endswith("role/DeputyBroker")
        key = {"aws_access_key_id": CUSTOMER, "aws_secret_access_key": "any"}
        session = boto3.session.Session(region_name="us-east-1", **key)
        with closing(session.client("s3", endpoint_url=url)) as s3:
            s3.create_bucket(Bucket="gone")
            with urllib.request.urlopen(f"{url}/_sandbox/reset", b"") as answer:
                assert answer.status == 204
            assert s3.list_buckets()["Buckets"] == []
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
