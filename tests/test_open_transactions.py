"""A test in which AWS is called while a transaction is open fails, whichever way the call takes."""

from contextlib import suppress

import boto3
import pytest
import urllib3
from botocore.credentials import ReadOnlyCredentials
from botocore.session import get_session

from app.aws.query_api import QueryApi
from app.aws.stack_messages import RegistrationQueue, Request, StackAnswers

KEY = ReadOnlyCredentials("111122223333", "sandbox", None)
REQUEST = Request(
    "us-east-1",
    "Create",
    "stack",
    "aws",
    "111122223333",
    "id",
    "Registration",
    "x",
    "https://example.com/",
    {},
    {},
)
WAYS = {
    "QueryApi.call": lambda _: _sts().call("GetCallerIdentity", {}, KEY),
    "QueryApi.once": lambda _: _sts().once("GetCallerIdentity", {}, KEY),
    "a queue": lambda vendor: RegistrationQueue("us-east-1", vendor.registration_queue_url).receive(
        0
    ),
    "a boto3 client": lambda _: boto3.session.Session().client("sts").get_caller_identity(),
    "the answer to a stack": lambda _: StackAnswers("us-east-1", "aws", None).send(REQUEST, None),
}


def _sts():
    return QueryApi("sts", "us-east-1", get_session(), urllib3.Timeout(3))


@pytest.mark.parametrize("way", WAYS)
def test_aws_may_be_called_only_after_the_transaction(database, vendor, way):
    refused = pytest.raises(AssertionError, match="while a transaction was open")
    with database.engine.connect(), refused:
        WAYS[way](vendor)
    with suppress(ValueError):  # of an address that is not one of AWS's for answers
        WAYS[way](vendor)
