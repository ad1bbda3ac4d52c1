"""Nothing is ever reset: moto's state belongs to the process. Each test uses names that no other
uses.
"""

import itertools
import json

import pytest
from werkzeug.test import Client

from sandbox.console.app import console_app

VENDOR = "999900001111"
BUCKET = "console-tests"


@pytest.fixture(scope="session")
def public_bucket(aws):
    s3 = aws.client("s3", VENDOR)
    s3.create_bucket(Bucket=BUCKET)
    public = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{BUCKET}/templates/*",
    }
    s3.put_bucket_policy(
        Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [public]})
    )
    s3.close()


@pytest.fixture(scope="session")
def _numbers():
    return itertools.count(1)


@pytest.fixture
def name(_numbers):
    """Of a stack, a role or a template."""
    return f"console-test-{next(_numbers)}"


@pytest.fixture
def upload(aws, public_bucket, name):
    """Put a template into the bucket, where everyone may read it unless told otherwise, and name
    its URL.
    """

    def upload(text, folder="templates"):
        key = f"{folder}/{name}.yaml"
        s3 = aws.client("s3", VENDOR)
        s3.put_object(Bucket=BUCKET, Key=key, Body=text.encode())
        s3.close()
        return f"{aws.url}/{BUCKET}/{key}"

    return upload


@pytest.fixture
def console(aws):
    return Client(console_app(lambda: aws.url))
