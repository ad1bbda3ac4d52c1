"""The messages of customers' stacks: the queue that they come from, their form, and the answers.

A stack's custom resource publishes a request to the registration topic of its region. SNS wraps it
in an envelope and puts it into the queue. Anybody may publish to a topic. The response URL in a
request works like a password to the stack, so Deputy logs neither the URL nor the message.

The answer is a PUT to the response URL. As the URL is untrusted, Deputy calls it only if it is in
AWS's own bucket for such answers, in the region of the topic.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.awsrequest import AWSRequest
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from botocore.regions import EndpointResolver
from botocore.utils import get_environ_proxies

from app import strict_json
from app.aws.errors import AWS_ERRORS, Unavailable, classify
from app.aws.tls import ca_bundle
from app.log import logger
from app.strict_json import JsonObject

LONGEST_WAIT = 20  # seconds; SQS's limit
BATCH = 10  # messages in one call; SQS's limit
_MESSAGE_MAX = 16_384  # characters; CloudFormation's messages have some 3,000
_URL_MAX = 8192
# A retry follows at once, and only if S3 did not answer or answered 5xx. Redelivery by SQS causes
# later attempts.
_ANSWER_ATTEMPTS = 2
_ANSWER_TIMEOUTS: Any = (2, 3)  # seconds to connect, and to wait for the answer

# The required fields of a request. The answer repeats the ids. They must be ASCII, and not longer
# than AWS allows. So the answer stays below the 4,096 bytes that CloudFormation reads.
_FIELDS = {
    "RequestType": "Create|Update|Delete",
    "ResponseURL": "(?s:.*)",
    "StackId": (
        "arn:(?P<partition>aws(?:-[a-z0-9]{1,16}){0,3}):cloudformation:(?P<region>[a-z0-9-]{1,32})"
        ":(?P<account>[0-9]{12}):stack/[A-Za-z0-9-]{1,128}/[A-Za-z0-9-]{1,64}"
    ),
    "RequestId": "[A-Za-z0-9-]{1,128}",
    "LogicalResourceId": "[A-Za-z0-9]{1,255}",
    "PhysicalResourceId": "[ -~]{1,1024}",
}


@dataclass(frozen=True, slots=True)
class Request:
    """CloudFormation's request to a custom resource.

    None of its fields is verified, except that the region is that of the topic.
    """

    region: str  # in the stack's id, and in the ARN of the topic that SNS names
    kind: Literal["Create", "Update", "Delete"]
    stack_id: str
    partition: str  # in the stack's id
    account_id: str  # in the stack's id
    request_id: str
    logical_id: str
    physical_id: str
    response_url: str = field(repr=False)
    properties: dict[str, str] = field(repr=False)  # only those with a string value
    old_properties: dict[str, str] = field(repr=False)  # before an Update

    @classmethod
    def parse(cls, body: str, topics: Mapping[str, str]) -> "Request":
        """Return the request in an SNS envelope. `topics`: the topics' ARNs by region.

        Raises ValueError for a message that can't be answered.
        """
        envelope = _object(body)
        arn = envelope.get("TopicArn")
        region = next((region for region, topic in topics.items() if topic == arn), None)
        if envelope.get("Type") != "Notification" or region is None:
            raise ValueError("This does not come from a registration topic.")
        request = _object(envelope.get("Message"))
        # Each delivery of the same Create gets the same id. CloudFormation deletes the old resource
        # if the answer to an Update has another id.
        source = f"{request.get('StackId')}\0{request.get('LogicalResourceId')}"
        physical_id = f"deputy-{hashlib.sha256(source.encode()).hexdigest()[:32]}"
        if request.get("RequestType") == "Create" or "PhysicalResourceId" not in request:
            request["PhysicalResourceId"] = physical_id
        stack = {name: _matched(request, name) for name in _FIELDS}["StackId"]
        # CloudFormation lets no stack use another region's topic
        if stack["region"] != region:
            raise ValueError("The stack is not in the topic's region.")
        return cls(
            region=region,
            kind=request["RequestType"],
            stack_id=request["StackId"],
            partition=stack["partition"],
            account_id=stack["account"],
            request_id=request["RequestId"],
            logical_id=request["LogicalResourceId"],
            physical_id=request["PhysicalResourceId"],
            response_url=request["ResponseURL"],
            properties=_properties(request, "ResourceProperties"),
            old_properties=_properties(request, "OldResourceProperties"),
        )

    def property(self, name: str) -> str:
        """Return a property, or "" when it is absent or not a string."""
        return self.properties.get(name, "")

    def answer(self, refusal: str | None) -> bytes:
        """Return the answer for CloudFormation: SUCCESS, or FAILED with this reason.

        The customer reads the reason.
        """
        answer = {
            "Status": "SUCCESS",
            "PhysicalResourceId": self.physical_id,
            "StackId": self.stack_id,
            "RequestId": self.request_id,
            "LogicalResourceId": self.logical_id,
        }
        if refusal:
            answer |= {"Status": "FAILED", "Reason": refusal}
        return json.dumps(answer).encode()


def _object(text: Any) -> JsonObject:
    if not isinstance(text, str) or len(text) > _MESSAGE_MAX:
        raise ValueError("This is not text, or too long.")
    value = strict_json.parse(text)
    if isinstance(value, dict):
        return value
    raise ValueError("This is not a JSON object.")


def _properties(request: JsonObject, name: str) -> dict[str, str]:
    properties = request.get(name)
    if not isinstance(properties, dict):
        return {}
    return {key: value for key, value in properties.items() if isinstance(value, str)}


def _matched(request: JsonObject, name: str) -> re.Match[str]:
    value = request.get(name)
    match = re.fullmatch(_FIELDS[name], value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{name} is not as CloudFormation writes it.")
    return match


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery of a message from the queue."""

    id: str
    body: str = field(repr=False)
    receipt: str = field(repr=False)
    sent_at: datetime  # SQS's clock
    deliveries: int  # including this one


class RegistrationQueue:
    """The SQS queue that receives the messages of all registration topics.

    SQS delivers a message again until it is deleted, and finally moves it to the dead-letter queue
    (the queue's redrive policy in cloudformation/broker.yaml).
    """

    def __init__(self, region: str, url: str) -> None:
        self._region, self._url = region, url

    @cached_property
    def _sqs(self) -> Any:
        """The client. It looks for credentials, so a process without them can start first."""
        settings = BotoConfig(
            retries={"total_max_attempts": 2}, connect_timeout=2, read_timeout=LONGEST_WAIT + 5
        )
        return boto3.session.Session(region_name=self._region).client("sqs", config=settings)

    def receive(self, wait_seconds: int) -> list[Message]:
        """Wait for messages, and return up to ten of them.

        Returns an empty list after `wait_seconds` (20 at most) without a message. Raises
        Unavailable.
        """
        messages = []
        try:
            answer = self._sqs.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=BATCH,
                WaitTimeSeconds=wait_seconds,
                MessageSystemAttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
            )
            for fields in answer.get("Messages", []):
                attributes = fields["Attributes"]
                messages.append(
                    Message(
                        fields["MessageId"],
                        fields["Body"],
                        fields["ReceiptHandle"],
                        datetime.fromtimestamp(int(attributes["SentTimestamp"]) / 1000, UTC),
                        int(attributes["ApproximateReceiveCount"]),
                    )
                )
        except AWS_ERRORS as error:
            classify(error)
            raise Unavailable from error
        return messages

    def delete(self, messages: Iterable[Message]) -> None:
        """Delete up to ten messages that were handled."""
        self._in_one_call(
            self._sqs.delete_message_batch,
            [{"ReceiptHandle": message.receipt} for message in messages],
        )

    def put_back(self, messages: Iterable[tuple[Message, int]]) -> None:
        """Put back up to ten messages. SQS redelivers each after its number of seconds."""
        self._in_one_call(
            self._sqs.change_message_visibility_batch,
            [
                {"ReceiptHandle": message.receipt, "VisibilityTimeout": seconds}
                for message, seconds in messages
            ],
        )

    def _in_one_call(self, call: Callable[..., object], entries: list[JsonObject]) -> None:
        """Make a call about up to ten messages. If it fails, SQS redelivers them in a minute."""
        for number, entry in enumerate(entries):
            entry["Id"] = str(number)
        try:
            if entries:
                call(QueueUrl=self._url, Entries=entries)
        except AWS_ERRORS as error:
            classify(error)
            logger.warning("registration.postponed", error=type(error).__name__)


class StackAnswers:
    """Sends answers to stacks of one region, but only to AWS's own addresses for such answers.

    `endpoint`: S3's address if AWS_ENDPOINT_URL replaces AWS's, otherwise None. If it is given,
    answers go only there.
    """

    def __init__(self, region: str, partition: str, endpoint: str | None) -> None:
        self._allowed = _allowed(region, partition, endpoint)
        ca = ca_bundle(botocore.session.get_session())
        proxies = get_environ_proxies(endpoint or f"https://s3.{region}.{_suffix(partition)}")
        self._http = URLLib3Session(verify=ca, proxies=proxies, timeout=_ANSWER_TIMEOUTS)

    def allows(self, url: str) -> bool:
        """Return whether CloudFormation itself could have given this address."""
        match = self._allowed.fullmatch(url) if len(url) <= _URL_MAX else None
        # A server that normalizes the path must not be led to another bucket.
        return match is not None and {".", ".."}.isdisjoint(
            re.split(r"[/\\]", unquote(match["path"]))
        )

    def send(self, request: Request, refusal: str | None) -> bool:
        """Send the answer, and return whether the request is finished.

        It is finished if the stack has its answer, or if S3 would refuse every retry. Raises
        ValueError for an address that is not allowed.
        """
        if not self.allows(request.response_url):
            raise ValueError("This address is not one of AWS's for answers.")
        # The URL is signed for an empty Content-Type. botocore's session does not follow redirects.
        put = AWSRequest(
            "PUT", request.response_url, headers={"Content-Type": ""}, data=request.answer(refusal)
        ).prepare()
        problem: str | int = ""
        final = False
        for _ in range(_ANSWER_ATTEMPTS):
            try:
                problem = self._http.send(put).status_code
            except BotoCoreError as error:  # its text contains the address
                problem = type(error).__name__
            else:
                if 200 <= problem < 300:
                    return True
                # 3xx: redirects are not followed. 4xx: the address has expired, or was never
                # signed.
                if problem < 500:
                    final = problem >= 400
                    break
        logger.warning("registration.unanswered", problem=problem, final=final)
        return final


def stack_answers(region: str, partition: str) -> StackAnswers:
    """Return the StackAnswers for a topic's region and the S3 that the environment configures."""
    s3 = boto3.session.Session(region_name=region).client(
        "s3", config=BotoConfig(signature_version=UNSIGNED)
    )
    parts = urlsplit(s3.meta.endpoint_url)
    aws_own = (parts.hostname or "").endswith(f".{_suffix(partition)}")
    return StackAnswers(region, partition, None if aws_own else f"{parts.scheme}://{parts.netloc}")


def _suffix(partition: str) -> str:
    """Return the partition's domain, from botocore's data."""
    endpoints = botocore.session.get_session().get_data("endpoints")
    return str(EndpointResolver(endpoints).get_partition_dns_suffix(partition))


def _allowed(region: str, partition: str, endpoint: str | None) -> re.Pattern[str]:
    """Return a pattern that must match the whole of an allowed address.

    The address must be in lower case up to the path, without characters that two parsers could read
    differently. The bucket's name must match exactly, because a longer name may be anybody's
    bucket. A domain without a region is allowed in the partition `aws` alone, because in another
    partition anybody may own that name.
    """
    bucket = f"cloudformation-custom-resource-response-{region.replace('-', '')}"
    suffix = _suffix(partition)
    if endpoint:
        start = rf"{re.escape(endpoint)}(?P<path>/{bucket}/"
    else:
        # The part between "s3" and the partition's domain
        regions = rf"[.-]{re.escape(region)}\."
        if partition == "aws":
            regions = rf"(?:{regions}|\.)"
        host = rf"{re.escape(bucket)}\.s3{regions}{re.escape(suffix)}"
        start = rf"https://{host}(?::443)?(?P<path>/"
    characters = r"[A-Za-z0-9._~!$&'()*+,;=:@%-]"
    return re.compile(rf"{start}(?:{characters}|/)*)(?:\?(?:{characters}|[/?])*)?", re.ASCII)
