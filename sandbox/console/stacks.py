"""The console's calls to the sandbox's AWS, by boto3, as the root of the chosen account."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from sandbox.cfn_templates import without_external_id
from sandbox.console.template import (
    MAX_TEMPLATE_BYTES,
    Template,
    TemplateRefused,
    object_named_by,
    read,
)

Described = dict[str, Any]  # boto3 returns it so


@dataclass(frozen=True)
class AccountRegion:
    """One account's CloudFormation in one region."""

    account: str
    region: str


@dataclass(frozen=True)
class Launch:
    """The user's choices on the quick-create page."""

    place: AccountRegion
    template_url: str
    stack_name: str
    parameters: dict[str, str]
    capabilities: list[str]
    without_external_id: bool = False


@dataclass(frozen=True)
class Update:
    """The user's choices on the update page. An absent parameter keeps its value."""

    place: AccountRegion
    stack: str
    parameters: dict[str, str]
    capabilities: list[str]
    template_url: str | None = None  # replaces the stack's template


class Stacks:
    def __init__(self, aws_url: Callable[[], str]) -> None:
        self._aws_url = aws_url
        self._session = boto3.Session()
        # Threads may share clients, but not the session that creates them.
        self._making_clients = Lock()

    def template(self, template_url: str) -> Template:
        """Read a template as CloudFormation does for a customer.

        The request has no credentials. So a template that was not published fails here, as it would
        at AWS.
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
                answer = s3.get_object(Bucket=bucket, Key=key)
            except ClientError as error:
                raise TemplateRefused(f"S3 error: {_s3_message(error)}") from None
            text = answer["Body"].read(MAX_TEMPLATE_BYTES + 1)
        if len(text) > MAX_TEMPLATE_BYTES:
            raise TemplateRefused(f"Template may not exceed {MAX_TEMPLATE_BYTES} bytes in size.")
        return read(text.decode("utf-8", "replace"))

    def create(self, launch: Launch) -> str:
        """Create a stack, and return its id at once. The stack's status shows the outcome."""
        template = {"TemplateURL": launch.template_url}
        if launch.without_external_id:
            text = self.template(launch.template_url).text
            template = {"TemplateBody": without_external_id(text)}
        parameters = [
            {"ParameterKey": name, "ParameterValue": value}
            for name, value in launch.parameters.items()
        ]
        with self._client(launch.place, "cloudformation") as cloudformation:
            answer = cloudformation.create_stack(
                StackName=launch.stack_name,
                **template,
                Parameters=parameters,
                Capabilities=launch.capabilities,
            )
        return str(answer["StackId"])

    def all(self, place: AccountRegion) -> list[Described]:
        with self._client(place, "cloudformation") as cloudformation:
            pages = cloudformation.get_paginator("describe_stacks").paginate()
            return list(pages.search("Stacks[]"))

    def one(self, place: AccountRegion, stack: str) -> tuple[Described, list[Described]]:
        """Return a stack and its events, newest first, as AWS returns them."""
        with self._client(place, "cloudformation") as cloudformation:
            described = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
            events = cloudformation.describe_stack_events(StackName=described["StackId"])
        return described, events["StackEvents"]

    def delete(self, place: AccountRegion, stack: str) -> None:
        with self._client(place, "cloudformation") as cloudformation:
            cloudformation.delete_stack(StackName=stack)

    def template_of(self, place: AccountRegion, stack: str) -> Template:
        """Return the template that a stack has now."""
        with self._client(place, "cloudformation") as cloudformation:
            body = cloudformation.get_template(StackName=stack)["TemplateBody"]
        return read(body if isinstance(body, str) else json.dumps(body))

    def update(self, update: Update) -> None:
        """Update a stack. CloudFormation does not touch resources that have not changed."""
        url = update.template_url
        template = self.template(url) if url else self.template_of(update.place, update.stack)
        parameters = []
        for parameter in template.parameters:
            value: Described = {"UsePreviousValue": True}
            if parameter.name in update.parameters:
                value = {"ParameterValue": update.parameters[parameter.name]}
            parameters.append({"ParameterKey": parameter.name} | value)
        source: Described = {"TemplateURL": url} if url else {"UsePreviousTemplate": True}
        with self._client(update.place, "cloudformation") as cloudformation:
            cloudformation.update_stack(
                StackName=update.stack,
                Parameters=parameters,
                Capabilities=update.capabilities,
                **source,
            )

    def trust_policies(self, place: AccountRegion, stack: str) -> dict[str, str]:
        """Return the current trust policies of the stack's roles by name, as JSON to edit.

        They may differ from the template's.
        """
        with self._client(place, "cloudformation") as cloudformation:
            answer = cloudformation.describe_stack_resources(StackName=stack)
        policies = {}
        with self._client(place, "iam") as iam:
            for resource in answer["StackResources"]:
                if resource["ResourceType"] != "AWS::IAM::Role":
                    continue
                name = resource["PhysicalResourceId"]
                with suppress(iam.exceptions.NoSuchEntityException):  # deleted by hand
                    role = iam.get_role(RoleName=name)["Role"]
                    policies[name] = json.dumps(role["AssumeRolePolicyDocument"], indent=2)
        return policies

    def set_trust_policy(self, place: AccountRegion, role_name: str, policy: str) -> None:
        with self._client(place, "iam") as iam:
            iam.update_assume_role_policy(RoleName=role_name, PolicyDocument=policy)

    @contextmanager
    def _client(self, place: AccountRegion, service: str) -> Iterator[Any]:
        """Open a client with the account's id as its access key, which means the account's root."""
        with self._making_clients:
            client = self._session.client(
                service,  # type: ignore[call-overload]
                endpoint_url=self._aws_url(),
                region_name=place.region,
                aws_access_key_id=place.account,
                aws_secret_access_key="sandbox",
                config=Config(retries={"total_max_attempts": 1}),
            )
        with closing(client):
            yield client


def _s3_message(error: ClientError) -> str:
    """Return the message of an error. An error without a body has only a status."""
    details = error.response["Error"]
    return "Access Denied" if details.get("Code") == "403" else details.get("Message", "")
