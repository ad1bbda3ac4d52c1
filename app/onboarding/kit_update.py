"""How a stack that is there already is brought to what its kit asks for, as after a rotation began or ended."""

import json
import shlex
from dataclasses import dataclass

# Parameters that an update leaves as they are. A role of another name would be another role.
OF_AN_ACCOUNT = ("RoleName",)
OF_AN_ORGANIZATION = (*OF_AN_ACCOUNT, "OrganizationalUnitIds", "CallAs")


@dataclass(frozen=True, slots=True)
class StackUpdate:
    """`console_url` shows the stack in the console; `aws_cli` is one command that updates it to the `parameters`."""

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
    """Brings a stack to this template and these values of its parameters; those in `kept` stay as they are."""
    parameters = [{"ParameterKey": name, "UsePreviousValue": True} for name in kept]
    parameters += [{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()]
    return (
        f"aws cloudformation update-stack --region {shlex.quote(region)} --stack-name {shlex.quote(stack)} \\\n"
        f"  --template-url {shlex.quote(template_url)} --capabilities CAPABILITY_NAMED_IAM \\\n"
        f"  --parameters {shlex.quote(json.dumps(parameters))}"
    )
