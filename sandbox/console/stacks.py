"""The console's calls to the sandbox's AWS: plain boto over HTTP, with the rights of the account that was chosen."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from sandbox.console.template import MAX_TEMPLATE_BYTES, Template, TemplateRefused, object_named_by, read

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.literals import CapabilityType
    from mypy_boto3_cloudformation.type_defs import StackEventTypeDef, StackTypeDef


@dataclass(frozen=True)
class Place:
    """One account's CloudFormation in one region."""

    account: str
    region: str


@dataclass(frozen=True)
class Launch:
    """What the person chose on the quick-create page."""

    place: Place
    template_url: str
    stack_name: str
    parameters: dict[str, str]
    capabilities: "list[CapabilityType]"


class Stacks:
    def __init__(self, aws_url: Callable[[], str]) -> None:
        self._aws_url = aws_url
        self._session = boto3.Session()
        self._making_clients = Lock()  # clients may be shared by threads, a session that makes them may not

    def template(self, template_url: str) -> Template:
        """Read a template as CloudFormation would for a customer: without any right in the vendor's account.

        So a template that was not published shows here as it would show in AWS.
        """
        bucket, key = object_named_by(template_url, aws_url=self._aws_url())
        with self._making_clients:
            s3 = self._session.client(
                "s3",
                endpoint_url=self._aws_url(),
                region_name="us-east-1",
                config=Config(signature_version=UNSIGNED, s3={"addressing_style": "path"}),
            )
        with closing(s3):
            try:
                found = s3.get_object(Bucket=bucket, Key=key)
            except ClientError as error:
                raise TemplateRefused(f"S3 error: {_s3_message(error)}") from None
            text = found["Body"].read(MAX_TEMPLATE_BYTES + 1)
        if len(text) > MAX_TEMPLATE_BYTES:
            raise TemplateRefused(f"Template may not exceed {MAX_TEMPLATE_BYTES} bytes in size.")
        return read(text.decode("utf-8", "replace"))

    def create(self, launch: Launch) -> str:
        """The new stack's id. CloudFormation answers at once; how it went is in the stack's status."""
        with self._cloudformation(launch.place) as cloudformation:
            return cloudformation.create_stack(
                StackName=launch.stack_name,
                TemplateURL=launch.template_url,
                Parameters=[
                    {"ParameterKey": name, "ParameterValue": value}
                    for name, value in launch.parameters.items()
                ],
                Capabilities=launch.capabilities,
            )["StackId"]

    def all(self, place: Place) -> "list[StackTypeDef]":
        with self._cloudformation(place) as cloudformation:
            return cloudformation.describe_stacks()["Stacks"]

    def one(self, place: Place, stack: str) -> "tuple[StackTypeDef, list[StackEventTypeDef]]":
        """A stack and its events, newest first, as AWS gives them."""
        with self._cloudformation(place) as cloudformation:
            found = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
            return found, cloudformation.describe_stack_events(StackName=found["StackId"])["StackEvents"]

    def delete(self, place: Place, stack: str) -> None:
        with self._cloudformation(place) as cloudformation:
            cloudformation.delete_stack(StackName=stack)

    @contextmanager
    def _cloudformation(self, place: Place) -> "Iterator[CloudFormationClient]":
        """An access key of 12 digits is, in the sandbox, the root of that account."""
        with self._making_clients:
            client = self._session.client(
                "cloudformation",
                endpoint_url=self._aws_url(),
                region_name=place.region,
                aws_access_key_id=place.account,
                aws_secret_access_key="sandbox",
                config=Config(retries={"total_max_attempts": 1}),
            )
        with closing(client):
            yield client


def _s3_message(error: ClientError) -> str:
    """An answer without a body has only its status to tell what went wrong."""
    details = error.response["Error"]
    return "Access Denied" if details.get("Code") == "403" else details.get("Message", "")
