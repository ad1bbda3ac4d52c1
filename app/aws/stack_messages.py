"""The messages of customers' stacks: the queue that they come from, their form, and the answer to a stack.

A stack's custom resource publishes a request to the registration topic. SNS wraps it in an envelope and puts it into
the queue, and Deputy answers with a PUT to the response URL in the request. Anybody may publish, so the response URL is
untrusted: it is called only if it is AWS's own bucket for such answers. It works like a password to the stack, so
neither the URL nor the message is ever logged.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, cast
from urllib.parse import unquote, urlsplit

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.awsrequest import AWSRequest
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from app import log, strict_json
from app.aws.errors import AWS_ERRORS, Unavailable, classify
from app.aws.tls import ca_bundle

_log = log.get(__name__)

LONGEST_WAIT = 20  # seconds; SQS's limit
_MESSAGE_MAX = 65_536  # characters; CloudFormation's are some 3,000
_URL_MAX = 8192
_ATTEMPTS = 2  # the second follows at once, unless AWS refused; a third comes with the message's next delivery
_TIMEOUTS: Any = (2, 3)  # seconds to connect, and to wait for the answer

# The fields that the answer repeats, in ASCII and within AWS's lengths: the answer stays below the 4,096 bytes that
# CloudFormation reads.
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
    """CloudFormation's request to a custom resource. Every field of it is a claim."""

    kind: RequestType
    stack_id: str
    partition: str  # of the stack's id
    account_id: str  # of the stack's id
    request_id: str
    logical_id: str
    physical_id: str
    response_url: str = field(repr=False)
    properties: dict[str, Any] = field(repr=False)
    old_properties: dict[str, Any] = field(repr=False)  # before an Update

    @classmethod
    def parse(cls, body: str, topic_arn: str) -> "Request":
        """The request in an SNS envelope. Raises ValueError for a message that can't be answered."""
        envelope = _object(body)
        if envelope.get("Type") != "Notification" or envelope.get("TopicArn") != topic_arn:
            raise ValueError("This does not come from the registration topic.")
        request = _object(envelope.get("Message"))
        kind, url = request.get("RequestType"), request.get("ResponseURL")
        if kind not in ("Create", "Update", "Delete") or not isinstance(url, str):
            raise ValueError("This is not a request to a custom resource.")
        stack_id, logical_id = _repeated(request, "StackId"), _repeated(request, "LogicalResourceId")
        stack = cast("re.Match[str]", _STACK_ID.fullmatch(stack_id))
        return cls(
            kind=kind,
            stack_id=stack_id,
            partition=stack["partition"],
            account_id=stack["account"],
            request_id=_repeated(request, "RequestId"),
            logical_id=logical_id,
            # CloudFormation deletes the old resource when an Update is answered with another id.
            physical_id=_repeated(request, "PhysicalResourceId")
            if kind != "Create" and "PhysicalResourceId" in request
            else _physical_id(stack_id, logical_id),
            response_url=url,
            properties=_properties(request, "ResourceProperties"),
            old_properties=_properties(request, "OldResourceProperties"),
        )

    def property(self, name: str) -> str:
        """Empty when it is absent or not a string."""
        return _text(self.properties, name)

    def old_property(self, name: str) -> str:
        """As `property`, before the Update."""
        return _text(self.old_properties, name)

    def answer(self, refusal: str | None) -> bytes:
        """The answer for CloudFormation: SUCCESS, or FAILED with this reason, which the customer reads."""
        said = {
            "Status": "FAILED" if refusal else "SUCCESS",
            "PhysicalResourceId": self.physical_id,
            "StackId": self.stack_id,
            "RequestId": self.request_id,
            "LogicalResourceId": self.logical_id,
        }
        return json.dumps(said | ({"Reason": refusal} if refusal else {})).encode()


def _object(text: Any) -> dict[str, Any]:
    if not isinstance(text, str) or len(text) > _MESSAGE_MAX:
        raise ValueError("This is no text, or too long.")
    value = strict_json.parse(text)
    if isinstance(value, dict):
        return value
    raise ValueError("This is not a JSON object.")


def _properties(request: dict[str, Any], name: str) -> dict[str, Any]:
    value = request.get(name)
    return value if isinstance(value, dict) else {}


def _text(properties: dict[str, Any], name: str) -> str:
    value = properties.get(name)
    return value if isinstance(value, str) else ""


def _repeated(request: dict[str, Any], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str) or not _REPEATED[name].fullmatch(value):
        raise ValueError(f"{name} is not as CloudFormation writes it.")
    return value


def _physical_id(stack_id: str, logical_id: str) -> str:
    """The same for each delivery of a Create."""
    return "deputy-" + hashlib.sha256(f"{stack_id}\0{logical_id}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the queue, until SQS delivers it again."""

    id: str
    body: str = field(repr=False)
    receipt: str = field(repr=False)
    sent_at: datetime  # by SQS's clock
    is_first: bool  # it was not delivered before

    @classmethod
    def of(cls, found: Any) -> "Message":
        """A message in SQS's form. Raises one of AWS_ERRORS when it is not in the form that SQS documents."""
        sent = datetime.fromtimestamp(int(found["Attributes"]["SentTimestamp"]) / 1000, UTC)
        is_first = found["Attributes"]["ApproximateReceiveCount"] == "1"
        return cls(found["MessageId"], found["Body"], found["ReceiptHandle"], sent, is_first)


class RegistrationQueue:
    """The queue behind the topic. SQS delivers a message again until it is deleted, and at last moves it to the dead
    letters (the queue's redrive policy in cloudformation/broker.yaml).
    """

    def __init__(self, region: str, url: str) -> None:
        self._url = url
        self._sqs = boto3.session.Session(region_name=region).client(
            "sqs",
            config=BotoConfig(retries={"total_max_attempts": 2}, connect_timeout=2, read_timeout=LONGEST_WAIT + 5),
        )

    def receive(self, max_messages: int, wait_seconds: int) -> list[Message]:
        """Up to ten, as soon as there is one; none after `wait_seconds` (20 at most). Raises Unavailable."""
        try:
            answer = self._sqs.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=max_messages,
                WaitTimeSeconds=wait_seconds,
                MessageSystemAttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
            )
            return [Message.of(found) for found in answer.get("Messages", [])]
        except AWS_ERRORS as error:
            classify(error)
            raise Unavailable from error

    def delete(self, message: Message) -> None:
        """Delete a message that was handled. Raises Unavailable; SQS then delivers it again."""
        try:
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message.receipt)
        except AWS_ERRORS as error:
            classify(error)
            raise Unavailable from error


class Replies:
    """Answers stacks, only at AWS's own addresses for such answers.

    `endpoint`: S3's address when AWS_ENDPOINT_URL names another one than AWS's; answers then go only there.
    """

    def __init__(self, region: str, partition: str, endpoint: str | None) -> None:
        self._allowed = _allowed(region, partition, endpoint)
        ca: Any = ca_bundle(botocore.session.get_session())
        self._http = URLLib3Session(
            verify=ca,
            proxies=get_environ_proxies(endpoint or f"https://s3.{region}.{_suffix(partition)}"),
            timeout=_TIMEOUTS,
        )

    def allows(self, url: str) -> bool:
        """Whether CloudFormation itself would give this address."""
        found = self._allowed.fullmatch(url) if len(url) <= _URL_MAX else None
        # A server that normalizes the path must not find another bucket in it.
        return found is not None and not {".", ".."} & set(re.split(r"[/\\]", unquote(found["path"])))

    def put(self, request: Request, refusal: str | None) -> bool:
        """True when nothing is left to do: the stack has its answer, or S3 refuses it and would refuse it again.

        Raises ValueError for an address that is not allowed.
        """
        if not self.allows(request.response_url):
            raise ValueError("This address is not one of AWS's for answers.")
        body = request.answer(refusal)
        # The address is signed for an empty Content-Type. botocore's session does not follow redirects.
        sent = AWSRequest("PUT", request.response_url, headers={"Content-Type": ""}, data=body).prepare()
        problem: str | int = ""
        final = False
        for _ in range(_ATTEMPTS):
            try:
                problem = self._http.send(sent).status_code
            except BotoCoreError as error:  # its text holds the address
                problem = type(error).__name__
            else:
                if 200 <= problem < 300:
                    return True
                if problem < 500:  # a redirect is not followed; 4xx: the address has expired, or was never signed
                    final = problem >= 400
                    break
        _log.warning("registration.unanswered", problem=problem, final=final)
        return final


def replies(region: str, partition: str) -> Replies:
    """For the topic's region, with the S3 that the environment names."""
    endpoint: str = (
        boto3.session.Session(region_name=region)
        .client("s3", config=BotoConfig(signature_version=UNSIGNED))
        .meta.endpoint_url
    )
    parts = urlsplit(endpoint)
    aws_own = (parts.hostname or "").endswith(f".{_suffix(partition)}")
    return Replies(region, partition, None if aws_own else f"{parts.scheme}://{parts.netloc}")


def _suffix(partition: str) -> str:
    """The partition's domain, from botocore's data."""
    known: Any = botocore.session.get_session().get_data("partitions")
    return next(str(found["outputs"]["dnsSuffix"]) for found in known["partitions"] if found["id"] == partition)


def _allowed(region: str, partition: str, endpoint: str | None) -> re.Pattern[str]:
    """A pattern for the whole address, in lower case, without characters that two parsers could read differently.

    The bucket's name must be exact: with more before or after it, the bucket may be a stranger's. The domain without a
    region is allowed in the partition `aws` alone, as a stranger may own the same name in another partition.
    """
    bucket = f"cloudformation-custom-resource-response-{region.replace('-', '')}"
    suffix = _suffix(partition)
    if endpoint:
        start = rf"{re.escape(endpoint)}(?P<path>/{bucket}/"
    else:
        domains = [f"s3.{region}.{suffix}", f"s3-{region}.{suffix}"]
        if partition == "aws":
            domains.append(f"s3.{suffix}")
        hosts = "|".join(re.escape(f"{bucket}.{domain}") for domain in domains)
        start = rf"https://(?:{hosts})(?::443)?(?P<path>/"
    characters = r"[A-Za-z0-9._~!$&'()*+,;=:@%-]"
    return re.compile(rf"{start}(?:{characters}|/)*)(?:\?(?:{characters}|[/?])*)?", re.ASCII)
