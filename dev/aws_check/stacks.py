"""CloudFormation stacks of one run: created under its name with its tag, watched, and deleted."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from dev.aws_check.accounts import Account, CheckError
from dev.aws_check.answers import until

TAG = "deputy:aws-check"
_MINUTES = 60.0
_RUN = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True)
class Run:
    """One run of the check.

    Everything that it creates has its name and its tag. It changes nothing else.
    """

    id: str

    @classmethod
    def new(cls) -> "Run":
        return cls(secrets.token_hex(4))

    @classmethod
    def parse(cls, text: str) -> "Run":
        if not _RUN.fullmatch(text):
            raise CheckError(f"{text} is not the id of a run: it has 8 hexadecimal digits.")
        return cls(text)

    @property
    def prefix(self) -> str:
        """The prefix of its stacks, topics, queues and roles, except the broker's role."""
        return f"deputy-check-{self.id}-"

    @property
    def broker_role(self) -> str:
        return f"DeputyCheck-{self.id}"

    def bucket(self, vendor: Account) -> str:
        return f"{self.prefix}{vendor.id}"

    @property
    def tags(self) -> list[dict[str, str]]:
        return [{"Key": TAG, "Value": self.id}]


def create(
    account: Account, run: Run, wanted: Mapping[str, Any], *, wait: bool = True
) -> dict[str, str]:
    """Create a stack from the arguments of create_stack. Return the outputs when it is complete."""
    stack_id = account.client("cloudformation").create_stack(**wanted, Tags=run.tags)["StackId"]
    return complete(account, stack_id, "CREATE_COMPLETE") if wait else {}


def from_file(name: str, text: str, **parameters: str) -> dict[str, Any]:
    """Return the arguments of create_stack for a template of ours."""
    return {
        "StackName": name,
        "TemplateBody": text,
        "Parameters": [
            {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
        ],
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
    }


def complete(account: Account, stack: str, wanted: str, minutes: float = 10) -> dict[str, str]:
    """Wait until a stack is at rest, and return its outputs.

    Raises CheckError, with AWS's reasons, if its status is not the expected one.
    """
    found = until(
        f"the stack {_short(stack)} is {wanted}",
        partial(at_rest, account, stack),
        minutes * _MINUTES,
    )
    if found["StackStatus"] != wanted:
        reasons = "\n".join(why_failed(account, stack)) or found.get(
            "StackStatusReason", "AWS gives no reason."
        )
        raise CheckError(
            f"The stack {_short(stack)} is {found['StackStatus']}, not {wanted}:\n{reasons}"
        )
    return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}


def _short(stack: str) -> str:
    """Return a stack's name, from its name or its ARN."""
    return stack.split("/")[1] if stack.startswith("arn:") else stack


def at_rest(account: Account, stack: str) -> dict[str, Any] | None:
    found: dict[str, Any] = account.client("cloudformation").describe_stacks(StackName=stack)[
        "Stacks"
    ][0]
    return None if found["StackStatus"].endswith("_IN_PROGRESS") else found


def why_failed(account: Account, stack: str) -> list[str]:
    """Return CloudFormation's reasons for the failed resources, the first failure first."""
    events = account.client("cloudformation").describe_stack_events(StackName=stack)["StackEvents"]
    return [
        f"  {event['LogicalResourceId']}: {event.get('ResourceStatusReason', 'no reason')}"
        for event in reversed(events)
        if event["ResourceStatus"].endswith("_FAILED")
    ]


def of_run(account: Account, run: Run) -> list[dict[str, Any]]:
    """Return the run's existing stacks, in any state, the newest first."""
    pages = account.client("cloudformation").get_paginator("describe_stacks").paginate()
    return [
        stack
        for page in pages
        for stack in page["Stacks"]
        if stack["StackName"].startswith(run.prefix)
        and {"Key": TAG, "Value": run.id} in stack.get("Tags", [])
    ]


def earlier_runs(account: Account) -> set[str]:
    """Return the ids of runs whose stacks still exist."""
    pages = account.client("cloudformation").get_paginator("describe_stacks").paginate()
    tags = [tag for page in pages for stack in page["Stacks"] for tag in stack.get("Tags", [])]
    return {tag["Value"] for tag in tags if tag["Key"] == TAG}


def delete(account: Account, stack: Mapping[str, Any], minutes: float = 10) -> None:
    """Delete a stack and wait until it is gone.

    Raises CheckError with AWS's reasons.
    """
    if stack["StackStatus"] != "CREATE_IN_PROGRESS":  # an update or a rollback must end first
        until(
            f"the stack {stack['StackName']} is at rest",
            partial(at_rest, account, stack["StackId"]),
            minutes * _MINUTES,
        )
    account.client("cloudformation").delete_stack(StackName=stack["StackId"])
    gone(account, stack["StackId"], minutes)


def gone(account: Account, stack_id: str, minutes: float) -> None:
    def look() -> str | None:
        try:
            found = at_rest(account, stack_id)
        except ClientError as error:
            # AWS forgets deleted stacks after months.
            if error.response["Error"]["Code"] == "ValidationError":
                return "DELETE_COMPLETE"
            raise
        return str(found["StackStatus"]) if found else None

    status = until(f"the stack {_short(stack_id)} is deleted", look, minutes * _MINUTES)
    if status != "DELETE_COMPLETE":
        raise CheckError(
            f"The stack {_short(stack_id)} is {status}:\n"
            + "\n".join(why_failed(account, stack_id))
        )
