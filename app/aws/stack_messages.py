"""The messages of customers' stacks: the queue that they come from, and their form.

A stack's custom resource publishes a request to the registration topic. SNS wraps it in an envelope
and puts it into the queue. Anybody may publish to the topic. The response URL in a request works
like a password to the stack, so Deputy logs neither the URL nor the message.
app/aws/stack_answers.py sends the answer.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import boto3
from botocore.config import Config as BotoConfig

from app import strict_json
from app.aws.errors import AWS_ERRORS, Unavailable, classify

LONGEST_WAIT = 20  # seconds; SQS's limit
BATCH = 10  # messages in one call; SQS's limit
_MESSAGE_MAX = 16_384  # characters; CloudFormation's messages have some 3,000

# The answer repeats these fields. They must be ASCII, and not longer than AWS allows. So the answer
# stays below the 4,096 bytes that CloudFormation reads.
_STACK_ID = re.compile(
    r"arn:(?P<partition>aws(?:-[a-z0-9]{1,16}){0,3}):cloudformation:[a-z0-9-]{1,32}:(?P<account>[0-9]{12})"
    r":stack/[A-Za-z0-9-]{1,128}/[A-Za-z0-9-]{1,64}",
    re.ASCII,
)
_REPEATED = {
    "StackId": _STACK_ID,
    "RequestId": re.compile(r"[A-Za-z0-9-]{1,128}", re.ASCII),
    "LogicalResourceId": re.compile(r"[A-Za-z0-9]{1,255}", re.ASCII),
    "PhysicalResourceId": re.compile(r"[ -~]{1,1024}", re.ASCII),
}

RequestType = Literal["Create", "Update", "Delete"]


@dataclass(frozen=True, slots=True)
class Request:
    """CloudFormation's request to a custom resource.

    None of its fields is verified.
    """

    kind: RequestType
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
    def parse(cls, body: str, topic_arn: str) -> "Request":
        """Return the request in an SNS envelope.

        Raises ValueError for a message that can't be answered.
        """
        envelope = _object(body)
        if envelope.get("Type") != "Notification" or envelope.get("TopicArn") != topic_arn:
            raise ValueError("This does not come from the registration topic.")
        request = _object(envelope.get("Message"))
        kind, url = request.get("RequestType"), request.get("ResponseURL")
        if kind not in ("Create", "Update", "Delete") or not isinstance(url, str):
            raise ValueError("This is not a request to a custom resource.")
        stack = _repeated(request, "StackId")
        logical_id = _repeated(request, "LogicalResourceId")[0]
        # Each delivery of the same Create gets the same id.
        digest = hashlib.sha256(f"{stack[0]}\0{logical_id}".encode()).hexdigest()
        physical_id = f"deputy-{digest[:32]}"
        # CloudFormation deletes the old resource if the answer to an Update has another id.
        if kind != "Create" and "PhysicalResourceId" in request:
            physical_id = _repeated(request, "PhysicalResourceId")[0]
        return cls(
            kind=kind,
            stack_id=stack[0],
            partition=stack["partition"],
            account_id=stack["account"],
            request_id=_repeated(request, "RequestId")[0],
            logical_id=logical_id,
            physical_id=physical_id,
            response_url=url,
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


def _object(text: Any) -> dict[str, Any]:
    if not isinstance(text, str) or len(text) > _MESSAGE_MAX:
        raise ValueError("This is not text, or too long.")
    value = strict_json.parse(text)
    if isinstance(value, dict):
        return value
    raise ValueError("This is not a JSON object.")


def _properties(request: dict[str, Any], name: str) -> dict[str, str]:
    properties = request.get(name)
    if not isinstance(properties, dict):
        return {}
    return {key: value for key, value in properties.items() if isinstance(value, str)}


def _repeated(request: dict[str, Any], name: str) -> re.Match[str]:
    """Return the match of a field that the answer repeats."""
    value = request.get(name)
    match = _REPEATED[name].fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{name} is not as CloudFormation writes it.")
    return match


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery of a message from the queue."""

    id: str
    body: str = field(repr=False)
    receipt: str = field(repr=False)
    sent_at: datetime  # by SQS's clock
    deliveries: int  # including this one


class RegistrationQueue:
    """The SQS queue that receives the messages of the registration topic.

    SQS delivers a message again until it is deleted, and finally moves it to the dead-letter queue
    (the queue's redrive policy in cloudformation/broker.yaml).
    """

    def __init__(self, region: str, url: str) -> None:
        self._url = url
        settings = BotoConfig(
            retries={"total_max_attempts": 2}, connect_timeout=2, read_timeout=LONGEST_WAIT + 5
        )
        self._sqs = boto3.session.Session(region_name=region).client("sqs", config=settings)

    def receive(self, wait_seconds: int) -> list[Message]:
        """Wait for messages, and return up to ten of them.

        Returns an empty list after `wait_seconds` (20 at most) without a message. Raises
        Unavailable.
        """
        messages = []
        with _errors():
            answer = self._sqs.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=BATCH,
                WaitTimeSeconds=wait_seconds,
                MessageSystemAttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
            )
            for fields in answer.get("Messages", []):
                attributes = fields["Attributes"]
                sent_at = datetime.fromtimestamp(int(attributes["SentTimestamp"]) / 1000, UTC)
                deliveries = int(attributes["ApproximateReceiveCount"])
                messages.append(
                    Message(
                        fields["MessageId"],
                        fields["Body"],
                        fields["ReceiptHandle"],
                        sent_at,
                        deliveries,
                    )
                )
        return messages

    def delete(self, messages: Sequence[Message]) -> None:
        """Delete up to ten messages that were handled.

        Raises Unavailable. SQS redelivers the messages that were not deleted.
        """
        entries = [
            {"Id": str(n), "ReceiptHandle": message.receipt} for n, message in enumerate(messages)
        ]
        if entries:
            with _errors():
                self._sqs.delete_message_batch(QueueUrl=self._url, Entries=entries)

    def put_back(self, messages: Sequence[tuple[Message, int]]) -> None:
        """Put back up to ten messages. SQS redelivers each after its number of seconds.

        Raises Unavailable. SQS then redelivers the messages in a minute.
        """
        entries = [
            {"Id": str(n), "ReceiptHandle": message.receipt, "VisibilityTimeout": seconds}
            for n, (message, seconds) in enumerate(messages)
        ]
        if entries:
            with _errors():
                self._sqs.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)


@contextmanager
def _errors() -> Iterator[None]:
    """Log each error of a call to SQS, and raise Unavailable instead."""
    try:
        yield
    except AWS_ERRORS as error:
        classify(error)
        raise Unavailable from error
