"""The CloudFormation stacks of a run: their creation, their state, and their deletion."""

import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from dev.aws_check.accounts import Account, CheckError
from dev.aws_check.answers import until
from dev.stack import ROOT

TAG = "deputy:aws-check"
_MINUTES = 60.0


@dataclass(frozen=True)
class Run:
    """One run of the check.

    Everything that it creates has the run's id in its name and its tag. It changes nothing else.
    """

    id: str

    @classmethod
    def new(cls) -> "Run":
        return cls(secrets.token_hex(4))

    @classmethod
    def parse(cls, text: str) -> "Run":
        if not re.fullmatch("[0-9a-f]{8}", text):
            raise CheckError(f"{text} is not the id of a run: it has 8 hexadecimal digits.")
        return cls(text)

    @property
    def prefix(self) -> str:
        """The prefix of the run's stacks, topics, queues and roles, except the broker's role."""
        return f"deputy-check-{self.id}-"

    @property
    def broker_role(self) -> str:
        return f"DeputyCheck-{self.id}"

    def bucket(self, vendor: Account) -> str:
        return f"{self.prefix}{vendor.id}"

    @property
    def tags(self) -> list[dict[str, str]]:
        return [{"Key": TAG, "Value": self.id}]


def from_template(run: Run, name: str, **parameters: str) -> dict[str, Any]:
    """Return the arguments of create_stack for a template in cloudformation/."""
    return {
        "StackName": f"{run.prefix}{name}",
        "TemplateBody": (ROOT / "cloudformation" / f"{name}.yaml").read_text(encoding="utf-8"),
        "Parameters": [
            {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
        ],
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
        "Tags": run.tags,
    }


def complete(account: Account, name: str, status: str, minutes: float = 10) -> dict[str, str]:
    """Wait until a stack is at rest, and return its outputs.

    Raises CheckError, with AWS's reasons, if its status is not the expected one.
    """
    stack = until(
        f"the stack {name} is {status}", partial(at_rest, account, name), minutes * _MINUTES
    )
    if stack["StackStatus"] != status:
        reasons = why_failed(account, name) or stack.get(
            "StackStatusReason", "AWS gives no reason."
        )
        raise CheckError(f"The stack {name} is {stack['StackStatus']}, not {status}:\n{reasons}")
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def at_rest(account: Account, stack: str) -> dict[str, Any] | None:
    """Return the stack with this name or ARN, or None while an operation is in progress."""
    answer = account.client("cloudformation").describe_stacks(StackName=stack)
    latest: dict[str, Any] = answer["Stacks"][0]
    return None if latest["StackStatus"].endswith("_IN_PROGRESS") else latest


def why_failed(account: Account, stack: str) -> str:
    """Return CloudFormation's reasons for the failed resources, the first failure first."""
    events = account.client("cloudformation").describe_stack_events(StackName=stack)["StackEvents"]
    lines = []
    for event in reversed(events):
        if event["ResourceStatus"].endswith("_FAILED"):
            reason = event.get("ResourceStatusReason", "no reason")
            lines.append(f"  {event['LogicalResourceId']}: {reason}")
    return "\n".join(lines)


def tagged(account: Account) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the run's id and the stack, for each existing stack of any run in any state."""
    for page in account.client("cloudformation").get_paginator("describe_stacks").paginate():
        for stack in page["Stacks"]:
            for tag in stack.get("Tags", []):
                if tag["Key"] == TAG:
                    yield tag["Value"], stack


def of_run(account: Account, run: Run) -> Iterator[dict[str, Any]]:
    """Yield the run's existing stacks, the newest first."""
    for run_id, stack in tagged(account):
        if run_id == run.id and stack["StackName"].startswith(run.prefix):
            yield stack


def delete(account: Account, stack: Mapping[str, Any], minutes: float = 10) -> None:
    """Delete a stack and wait until it is gone.

    Raises CheckError with AWS's reasons if that fails.
    """
    name, stack_id = stack["StackName"], stack["StackId"]
    look = partial(at_rest, account, stack_id)
    if stack["StackStatus"] != "CREATE_IN_PROGRESS":  # an update or a rollback must end first
        until(f"the stack {name} is at rest", look, minutes * _MINUTES)
    account.client("cloudformation").delete_stack(StackName=stack_id)
    rest = until(f"the stack {name} is deleted", look, minutes * _MINUTES)
    if rest["StackStatus"] != "DELETE_COMPLETE":
        reasons = why_failed(account, stack_id)
        raise CheckError(f"The stack {name} is {rest['StackStatus']}:\n{reasons}")
