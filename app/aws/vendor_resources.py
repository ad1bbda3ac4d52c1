"""The vendor's own resources at AWS, as `doctor` reads them.

They are the bucket, the registration topic and its queue.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import boto3
from botocore import UNSIGNED
from botocore.config import Config as BotoConfig
from botocore.exceptions import ClientError

from app.aws.errors import AWS_ERRORS, Unavailable
from app.config import Config

_PATIENT = BotoConfig(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 2})
_NO_RIGHT = {
    "AccessDenied",
    "AuthorizationError",
    "AuthorizationErrorException",
    "AccessDeniedException",
}


class MayNotLookError(Exception):
    """The broker's identity policy does not allow this call."""


class AbsentError(Exception):
    """AWS has no such resource in this region and account."""


class Queue(NamedTuple):
    arn: str
    policy: dict[str, Any]
    dead_letter_url: str | None
    messages: int  # not received yet


# Each function raises Unavailable. Those that need rights also raise MayNotLookError and
# AbsentError.


def bucket(config: Config) -> tuple[int, datetime | None]:
    """Return S3's status for the template bucket without credentials, and AWS's time.

    200 or 403: the bucket exists; 301: it is in another region; 404: it is absent.
    """
    unsigned = _PATIENT.merge(BotoConfig(signature_version=UNSIGNED))
    try:
        with closing(
            boto3.session.Session(region_name=config.aws.region).client("s3", config=unsigned)
        ) as s3:
            said: Any = s3.head_bucket(Bucket=config.aws.template_bucket)
    except ClientError as error:
        said = error.response
    except AWS_ERRORS as error:
        raise Unavailable from error
    about = said["ResponseMetadata"]
    date = about["HTTPHeaders"].get("date")
    return about["HTTPStatusCode"], parsedate_to_datetime(date) if date else None


def queue(config: Config, url: str) -> Queue:
    sqs = boto3.session.Session(region_name=config.aws.region).client("sqs", config=_PATIENT)
    found = _asked(sqs, lambda: sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]))[
        "Attributes"
    ]
    dead = (
        json.loads(found.get("RedrivePolicy", "{}"))
        .get("deadLetterTargetArn", "")
        .rpartition(":")[2]
    )
    return Queue(
        arn=found["QueueArn"],
        policy=json.loads(found.get("Policy", "{}")),
        dead_letter_url=f"{url.rpartition('/')[0]}/{dead}" if dead else None,
        messages=int(found["ApproximateNumberOfMessages"]),
    )


def topic(arn: str) -> tuple[dict[str, Any], set[str]]:
    """Return the topic's policy, and the queues that it sends to."""
    sns = boto3.session.Session(region_name=arn.split(":")[3]).client("sns", config=_PATIENT)
    found, listed = _asked(
        sns,
        lambda: (
            sns.get_topic_attributes(TopicArn=arn),
            sns.list_subscriptions_by_topic(TopicArn=arn),
        ),
    )
    queues = {one["Endpoint"] for one in listed["Subscriptions"] if one["Protocol"] == "sqs"}
    return json.loads(found["Attributes"].get("Policy", "{}")), queues


def allowing(policy: dict[str, Any], action: str) -> Iterator[dict[str, Any]]:
    """Yield the statements that allow this action to somebody, whatever their conditions."""
    service = action.partition(":")[0]
    for statement in policy.get("Statement", []):
        actions = statement.get("Action", [])
        wanted = {name.lower() for name in ([actions] if isinstance(actions, str) else actions)}
        if statement.get("Effect") == "Allow" and wanted & {action.lower(), f"{service}:*", "*"}:
            yield statement


def _asked(client: Any, ask: Callable[[], Any]) -> Any:
    try:
        with closing(client):
            return ask()
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in _NO_RIGHT:
            raise MayNotLookError from error
        if (
            "NonExistentQueue" in code
            or "QueueDoesNotExist" in code
            or code in {"NotFound", "NotFoundException"}
        ):
            raise AbsentError from error
        raise Unavailable(code) from error
    except AWS_ERRORS as error:
        raise Unavailable from error
