"""Read the vendor's own resources at AWS for `doctor`.

They are the bucket, the registration topics and their queue.
"""

import json
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import boto3
from botocore import UNSIGNED
from botocore.config import Config as BotoConfig
from botocore.exceptions import ClientError

from app.aws.errors import AWS_ERRORS, Unavailable, code_of
from app.config import Config
from app.permissions.set_rules import texts
from app.strict_json import JsonObject

_PATIENT = BotoConfig(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 2})
_UNSIGNED = _PATIENT.merge(BotoConfig(signature_version=UNSIGNED))
_NO_RIGHT = {
    "AccessDenied",
    "AuthorizationError",
    "AuthorizationErrorException",
    "AccessDeniedException",
}

_ABSENT = re.compile(r"NonExistentQueue|QueueDoesNotExist|^NotFound(Exception)?$")


class MayNotLookError(Exception):
    """The broker's identity policy does not allow this call."""


class AbsentError(Exception):
    """AWS has no such resource in this region and account."""


class Queue(NamedTuple):
    arn: str
    policy: JsonObject
    dead_letter_url: str | None
    messages: int  # messages that nobody has received yet


class Subscription(NamedTuple):
    arn: str | None  # None until the queue's owner has confirmed it
    raw: bool  # messages lack SNS's envelope, which names the topic


class Topic(NamedTuple):
    policy: JsonObject
    subscription: Subscription | None  # None: the topic does not send to the queue


# Each function raises Unavailable. Those that need rights also raise MayNotLookError and
# AbsentError.


def bucket(config: Config) -> tuple[int, datetime | None]:
    """Return the HTTP status of an unsigned HeadBucket on the template bucket, and AWS's time.

    200 or 403: the bucket exists; 301: it is in another region; 404: it is absent.
    """
    client = boto3.session.Session(region_name=config.aws.region).client("s3", config=_UNSIGNED)
    with _calls(client):
        try:
            answer: Any = client.head_bucket(Bucket=config.aws.template_bucket)
        except ClientError as error:
            answer = error.response
    metadata = answer["ResponseMetadata"]
    date = metadata["HTTPHeaders"].get("date")
    return metadata["HTTPStatusCode"], parsedate_to_datetime(date) if date else None


def reach_iam(config: Config) -> None:
    """Send IAM an unsigned request, which it refuses. Its endpoint is the same in all regions."""
    client = boto3.session.Session(region_name=config.aws.region).client("iam", config=_UNSIGNED)
    with _calls(client), suppress(ClientError):
        client.get_account_summary()


def queue(region: str, url: str) -> Queue:
    sqs = boto3.session.Session(region_name=region).client("sqs", config=_PATIENT)
    with _calls(sqs):
        answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    attributes = answer["Attributes"]
    dead_letters = json.loads(attributes.get("RedrivePolicy", "{}")).get("deadLetterTargetArn")
    if dead_letters:
        dead_letters = f"{url.rpartition('/')[0]}/{dead_letters.rpartition(':')[2]}"
    return Queue(
        arn=attributes["QueueArn"],
        policy=json.loads(attributes.get("Policy", "{}")),
        dead_letter_url=dead_letters,
        messages=int(attributes["ApproximateNumberOfMessages"]),
    )


def topic(arn: str, queue_arn: str | None) -> Topic:
    """Return the topic's policy, and its subscription of this queue, if a queue is given."""
    sns = boto3.session.Session(region_name=arn.split(":")[3]).client("sns", config=_PATIENT)
    with _calls(sns):
        policy = sns.get_topic_attributes(TopicArn=arn)["Attributes"].get("Policy", "{}")
        for page in sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=arn):
            for subscription in page["Subscriptions"]:
                if (subscription["Protocol"], subscription["Endpoint"]) == ("sqs", queue_arn):
                    return Topic(json.loads(policy), _subscription(sns, subscription))
    return Topic(json.loads(policy), None)


def _subscription(sns: Any, listed: JsonObject) -> Subscription:
    arn = listed["SubscriptionArn"]
    if not arn.startswith("arn:"):
        return Subscription(None, raw=False)
    attributes = sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]
    return Subscription(arn, raw=attributes.get("RawMessageDelivery") == "true")


def allowing(policy: JsonObject, action: str) -> Iterator[JsonObject]:
    """Yield the statements that allow this action to somebody, whatever their conditions."""
    service = action.partition(":")[0]
    for statement in policy.get("Statement", []):
        actions = map(str.lower, texts(statement.get("Action")))
        allowed = {action.lower(), f"{service}:*", "*"}.intersection(actions)
        if allowed and statement.get("Effect") == "Allow":
            yield statement


@contextmanager
def _calls(client: Any) -> Iterator[None]:
    """Close the client after the calls that this surrounds.

    Raises MayNotLookError, AbsentError or Unavailable instead of their errors.
    """
    try:
        with closing(client):
            yield
    except ClientError as error:
        code = code_of(error)
        if code in _NO_RIGHT:
            raise MayNotLookError from error
        if _ABSENT.search(code):
            raise AbsentError from error
        raise Unavailable(code) from error
    except AWS_ERRORS as error:
        raise Unavailable from error
