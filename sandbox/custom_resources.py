"""Custom resources behind an SNS topic.

CloudFormation publishes a request, and waits for a PUT to its ResponseURL.
"""

import copy
import json
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from moto.cloudformation import parsing
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import cloudformation_backends
from moto.sns.exceptions import SNSNotFoundError
from moto.sns.models import sns_backends
from werkzeug.wrappers import Request, Response

from sandbox import cfn_waiting
from sandbox.cfn_waiting import Kind, Slow, Wait
from sandbox.errors import AwsError, render

RESPONSE_PREFIX = "/cloudformation-custom-resource-response-"
_MAX_ANSWER = 4096
_MAX_TIMEOUT = 3600


class CustomResource(Slow):
    """`Custom::Anything` with an SNS topic as its ServiceToken."""

    data: Mapping[str, Any] | None = None

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:  # noqa: ARG003 - moto's signature
        return True

    def get_cfn_attribute(self, name: str) -> Any:
        if self.data is None:
            raise ValidationError(
                message=(
                    "The sandbox makes custom resources last: nothing can use"
                    f" {self.logical_id}.{name}."
                )
            )
        if name not in self.data:
            raise ValidationError(
                message=(
                    f"CustomResource attribute error: Vendor response doesn't contain {name}"
                    " attribute"
                )
            )
        return self.data[name]

    def begin(self, wait: Wait, kind: Kind, properties: dict[str, Any]) -> None:
        asked = _Asked(self, wait, kind, before=self.sent)
        self.sent = properties
        _asked[asked.signature] = asked
        cfn_waiting.post(partial(_publish, asked))


@dataclass
class _Asked:
    """One request to the vendor. `before`: the properties in the resource's previous request."""

    resource: CustomResource
    wait: Wait
    kind: Kind
    before: dict[str, Any] | None
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    signature: str = field(default_factory=lambda: secrets.token_hex(32))
    deadline: float = float("inf")

    @property
    def path(self) -> str:
        """The path of the ResponseURL: AWS's bucket for the region, and the key in it."""
        resource = self.resource
        bucket = RESPONSE_PREFIX + resource.region.replace("-", "")
        return f"{bucket}/{resource.stack_id}|{resource.logical_id}|{self.request_id}"

    @property
    def open(self) -> bool:
        return self.signature in _asked and not self.wait.over

    def finish(self, error: str | None = None) -> None:
        """End the request: further answers to it are refused."""
        _asked.pop(self.signature, None)
        _used.add(self.signature)
        self.wait.finish(self.resource, error)


_asked: dict[str, _Asked] = {}
_used: set[str] = set()
_here = [""]  # the sandbox's own address, which moto does not have


def serve_at(url: str) -> None:
    """Set the address of response URLs."""
    _here[0] = url


def clear() -> None:
    _asked.clear()
    _used.clear()


def expire() -> None:
    """Fail the requests that have waited longer than their ServiceTimeout."""
    now = time.monotonic()
    with cfn_waiting.lock:
        for asked in [asked for asked in _asked.values() if asked.deadline <= now and asked.open]:
            asked.finish(
                "CloudFormation did not receive a response from your Custom Resource. Please check"
                f" your logs for requestId [{asked.request_id}]."
            )
    cfn_waiting.flush()


def _publish(asked: _Asked) -> None:
    properties = asked.resource.sent or {}
    message = json.dumps(_document(asked, properties))
    try:
        asked.deadline = time.monotonic() + _timeout(properties)
        topic, backend = _topic(properties, asked.resource.region)
        backend.publish(message, topic)
    except _NotSentError as error:
        with cfn_waiting.lock:
            # The vendor never got the request, so no message is sent when the resource is deleted
            asked.resource.sent = asked.before
            asked.finish(str(error))


class _NotSentError(Exception):
    """A request that can't be published. The text is AWS's."""


def _timeout(properties: Mapping[str, Any]) -> int:
    """Return the ServiceTimeout in seconds."""
    given = str(properties.get("ServiceTimeout", _MAX_TIMEOUT))
    if not (given.isascii() and given.isdecimal() and 1 <= int(given) <= _MAX_TIMEOUT):
        raise _NotSentError(f"Invalid ServiceTimeout: must be between 1 and {_MAX_TIMEOUT} seconds")
    return int(given)


def _topic(properties: Mapping[str, Any], region: str) -> tuple[str, Any]:
    arn = str(properties.get("ServiceToken", ""))
    parts = arn.split(":")
    if len(parts) == 7 and parts[2] == "lambda":
        raise _NotSentError(
            "The sandbox has no Lambda functions: a ServiceToken must be an SNS topic."
        )
    if len(parts) != 6 or parts[2] != "sns" or parts[3] != region:
        raise _NotSentError(
            "Invalid parameter: TopicArn (Service: AmazonSNS; Status Code: 400; Error Code:"
            f" InvalidParameter; Request ID: {uuid.uuid4()})"
        )
    backend = sns_backends[parts[4]][region]
    try:
        backend.get_topic(arn)
    except SNSNotFoundError:
        raise _NotSentError(
            "Topic does not exist (Service: AmazonSNS; Status Code: 404; Error Code: NotFound; "
            f"Request ID: {uuid.uuid4()})"
        ) from None
    return arn, backend


def _document(asked: _Asked, properties: Mapping[str, Any]) -> dict[str, Any]:
    resource = asked.resource
    document = {
        "RequestType": asked.kind,
        "ServiceToken": properties.get("ServiceToken"),
        "ResponseURL": _response_url(asked),
        "StackId": resource.stack_id,
        "RequestId": asked.request_id,
        "LogicalResourceId": resource.logical_id,
        "ResourceType": resource.kind,
        "ResourceProperties": _texts(properties),
    }
    if asked.kind is not Kind.CREATE:
        document["PhysicalResourceId"] = resource.physical_id
    if asked.kind is Kind.UPDATE:
        document["OldResourceProperties"] = _texts(asked.before)
    return document


def _texts(value: Any) -> Any:
    """Convert numbers and booleans to strings, as CloudFormation does."""
    if isinstance(value, Mapping):
        return {key: _texts(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_texts(inner) for inner in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _response_url(asked: _Asked) -> str:
    """Return a URL in the format of AWS's presigned ones, in path style on this sandbox's address.

    Its signature is random, so nobody can guess the URL.
    """
    now = time.gmtime()
    region = asked.resource.region
    query = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Date": time.strftime("%Y%m%dT%H%M%SZ", now),
        "X-Amz-SignedHeaders": "host",
        "X-Amz-Expires": "7200",
        "X-Amz-Credential": f"AKIASANDBOX/{time.strftime('%Y%m%d', now)}/{region}/s3/aws4_request",
        "X-Amz-Signature": asked.signature,
    }
    return f"{_here[0]}{quote(asked.path, safe='/')}?{urlencode(query)}"


def respond(request: Request) -> Response:
    """Accept the answer to a request: once, and only at the URL that was sent."""
    asked = _asked.get(request.args.get("X-Amz-Signature", ""))
    if request.args.get("X-Amz-Signature") in _used or (asked is not None and not asked.open):
        return render(
            AwsError(404, "NoSuchKey", "The specified key does not exist."), "s3", as_json=False
        )
    if asked is None or request.method != "PUT" or request.path != asked.path:
        return render(AwsError(403, "AccessDenied", "Access Denied"), "s3", as_json=False)
    body = request.get_data()
    if len(body) <= _MAX_ANSWER:  # AWS stores a longer one as well, and ignores it
        with cfn_waiting.lock:
            if asked.open:
                asked.finish(_accept(asked, body))
        cfn_waiting.flush()
    return Response(status=200)


def _accept(asked: _Asked, body: bytes) -> str | None:
    """Apply the answer to its resource. Return the reason for a failure, or None."""
    try:
        answer = json.loads(body)
    except ValueError:
        return "Response is not valid JSON"
    problem = _complaint(asked, answer)
    if problem is not None:
        return problem
    resource, new_id = asked.resource, answer.get("PhysicalResourceId")
    if asked.kind is Kind.CREATE and new_id:
        resource.physical_id = str(new_id)
    if answer["Status"] == "FAILED":
        return (
            "Received response status [FAILED] from custom resource. Message returned: "
            f"{answer.get('Reason') or 'No reason was given'} (RequestId: {asked.request_id})"
        )
    if asked.kind is Kind.UPDATE and new_id != resource.physical_id:
        _replace(resource, asked.before)
        resource.physical_id = new_id
    resource.data = answer.get("Data") or {}
    if asked.kind is Kind.DELETE:
        resource.sent = None
    return None


def _complaint(asked: _Asked, answer: Any) -> str | None:
    if not isinstance(answer, dict):
        return "Response is not valid JSON"
    expected = {
        "StackId": asked.resource.stack_id,
        "RequestId": asked.request_id,
        "LogicalResourceId": asked.resource.logical_id,
    }
    for name, value in expected.items():
        if answer.get(name) != value:
            return f"Invalid Response object: Value of property {name} must be that of the request"
    if answer.get("Status") not in {"SUCCESS", "FAILED"}:
        return "Invalid Response object: Value of property Status must be SUCCESS or FAILED"
    physical_id = answer.get("PhysicalResourceId")
    if answer["Status"] == "SUCCESS" and not (
        isinstance(physical_id, str) and 0 < len(physical_id) <= 1024
    ):
        return "Invalid PhysicalResourceId"
    if not isinstance(answer.get("Data") or {}, dict):
        return "Invalid Response object: Value of property Data must be an object"
    return None


def _replace(resource: CustomResource, properties: dict[str, Any] | None) -> None:
    """Schedule the old resource for deletion after the update.

    A new physical id means that a new resource has replaced it.
    """
    old = copy.copy(resource)
    old.removed, old.sent = True, properties
    stack = cloudformation_backends[resource.account_id][resource.region].get_stack(
        resource.stack_id
    )
    old.deletion_policy = stack.template_dict["Resources"][resource.logical_id].get(
        "UpdateReplacePolicy"
    )
    stack.custom_resources[f"{resource.logical_id} {resource.physical_id}"] = old


def install() -> None:
    parsing.CustomModel = CustomResource
    parsing.get_model_map()["AWS::CloudFormation::CustomResource"] = CustomResource
