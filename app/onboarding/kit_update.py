"""How a stack that is there already is brought to what its kit asks for, as after a rotation began or ended."""

import json
import shlex
from dataclasses import dataclass

# Parameters that an update leaves as they are: a role of another name would be another role.
KEPT = ("RoleName", "AccessUntil", "RevokeSessionsBefore", "PermissionsBoundaryArn", "OrganizationalUnitIds", "CallAs")


@dataclass(frozen=True, slots=True)
class StackUpdate:
    """`name` is the stack's. `console_url` shows the stack in the console; `aws_cli` is one command that updates it to the `parameters`."""

    name: str
    console_url: str
    aws_cli: str
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class KitUpdate:
    """`stack_set` is the stack of a whole organisation. Terraform and the script are applied again as they are."""

    stack: StackUpdate
    stack_set: StackUpdate
    terraform: str
    aws_cli: str


def update_command(region: str, stack: str, template_url: str, values: dict[str, str], *, kept: tuple[str, ...]) -> str:
    """Brings a stack to this template and these values of its parameters; those in `kept` stay as they are.

    It asks the stack which of those it has: CloudFormation refuses the previous value of a new parameter, and without
    it would set one that is left out to its default.
    """
    where = f"--region {shlex.quote(region)} --stack-name {shlex.quote(stack)}"
    given = [{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()]
    parameters = (
        f"[Stacks[0].Parameters[?contains(`{json.dumps(kept)}`, ParameterKey)]"
        f".{{ParameterKey: ParameterKey, UsePreviousValue: `true`}}, `{json.dumps(given)}`][]"
    )
    return (
        f"aws cloudformation update-stack {where} \\\n"
        f"  --template-url {shlex.quote(template_url)} --capabilities CAPABILITY_NAMED_IAM \\\n"
        f'  --parameters "$(aws cloudformation describe-stacks {where} --output json \\\n'
        f'    --query {shlex.quote(parameters)})"'
    )
