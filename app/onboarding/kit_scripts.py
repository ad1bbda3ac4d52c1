"""The kit's role as Terraform and as a shell script, and the kit's commands.

They are for customers who do not launch stacks. The texts are in kit_templates/. Each value is
quoted for the language of its text (the filters `hcl` and `quote`), so no value can become code.
Comments contain one value, the vendor's name, on one line.
"""

import itertools
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from app.permissions.permission_sets import READS_ITSELF

# Characters to escape in a Terraform string: quotes, control characters, and the beginnings `${`
# and `%{` of templates. In policies, only IAM's variables begin like that, such as
# ${aws:PrincipalAccount}.
_HCL_SPECIAL = re.compile(
    r'["\\\x00-\x1f\x7f]|(?P<variable>(?<![$%])\$(?=\{[\w:/.-]+\}))|[$%](?=[$%]*\{)', re.ASCII
)

# Statements that deny everything to some sessions: (parameter, policy, operator, key).
_DENIALS = (
    ("AccessUntil", "access-until", "DateGreaterThanEquals", "aws:CurrentTime"),
    ("RevokeSessionsBefore", "AWSRevokeOlderSessions", "DateLessThan", "aws:TokenIssueTime"),
)
_CONDITION = '"Condition": {'
_HCL_CONDITION = re.compile(r'^( +)"Condition" = (\{\n.*?\n\1\})$', re.DOTALL | re.MULTILINE)
_HCL_UNTIL = (
    r'\1"Condition" = merge(\2, { for until in compact([var.AccessUntil]) :'
    r' "DateLessThan" => { "aws:CurrentTime" = until } })'
)
_TIME = (
    "([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z)?"
)
# Optional settings of the customer. The CloudFormation template has the same parameters.
_LIMITS = [
    {
        "name": "AccessUntil",
        "pattern": _TIME,
        "description": "the time in UTC at which the access ends",
        "example": "2027-12-31T00:00:00Z",
    },
    {
        "name": "RevokeSessionsBefore",
        "pattern": _TIME,
        "description": "a time in UTC; earlier sessions end",
        "example": "2027-01-31T12:00:00Z",
    },
    {
        "name": "PermissionsBoundaryArn",
        "pattern": "(arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/[A-Za-z0-9_+=,.@/-]+)?",
        "description": "what the role can't exceed",
        "example": "arn:aws:iam::444455556666:policy/Boundary",
    },
]


class KitRole(NamedTuple):
    """The role that a kit asks for.

    `vendor` is the vendor's name for people, and `vendor_tag` the name in tags. `region` is any
    region of the partition. `max_seconds` is the role's MaxSessionDuration.
    """

    name: str
    description: str
    vendor: str
    vendor_tag: str
    external_id: str
    region: str
    max_seconds: int
    trust: dict[str, Any]
    policy: dict[str, Any]  # contains the parameters' names
    permission_set: str = ""  # PermissionSet.label
    managed: Sequence[str] = ()  # ARNs of AWS's own policies
    # ARNs of policies that only other published versions and sets ask for
    no_longer_managed: Sequence[str] = ()
    parameters: Sequence[dict[str, str]] = ()  # what the customer fills in

    @property
    def tags(self) -> dict[str, str]:
        """The role's tags, which are the same as the template's.

        They name the vendor and the permissions that the role was created with.
        """
        return {
            "deputy:vendor": self.vendor_tag,
            "deputy:external-id": self.external_id,
            "deputy:permission-set": self.permission_set,
        }


def terraform(role: KitRole) -> str:
    """Return Terraform for the role, for an empty folder or beside other resources."""
    policy = _hcl(role.policy, "  ")
    for parameter in role.parameters:
        policy = policy.replace(f"$${{{parameter['name']}}}", f"${{var.{parameter['name']}}}")
    trust = _HCL_CONDITION.sub(_HCL_UNTIL, _hcl(role.trust, "  "), count=1)
    return _of_role("role.tf.jinja", role, policy=policy, trust=trust)


def aws_cli(role: KitRole) -> str:
    """Return a script for sh that creates or updates the role and prints only its ARN on stdout."""
    tags = [{"Key": key, "Value": value} for key, value in role.tags.items()]
    # The script has the policy in single quotes, and closes them around each parameter
    policy = shlex.quote(json.dumps(role.policy, indent=2))
    for parameter in role.parameters:
        policy = policy.replace(f"${{{parameter['name']}}}", f"""'"${parameter["name"]}"'""")
    trust = shlex.quote(json.dumps(role.trust, indent=2)).replace(
        _CONDITION, f"""{_CONDITION}'"$ends"'""", 1
    )
    return _of_role("connect.sh.jinja", role, policy=policy, trust=trust, tags=tags)


def _of_role(template: str, role: KitRole, **parts: Any) -> str:
    # For comments, line breaks of every language become spaces
    who = " ".join(role.vendor.split())
    return filled(template, role=role, who=who, parameters=[*_LIMITS, *role.parameters], **parts)


def filled(template: str, **values: Any) -> str:
    """Return a text of kit_templates/ with these values."""
    return _templates.get_template(template).render(values)


def updated_parameters(values: dict[str, str], kept: list[str]) -> str:
    """Return the parameters for an update of a stack, as a query on its description.

    The stack gets these values, and parameters in `kept` keep theirs. The query asks the stack
    which of the kept parameters it has, because CloudFormation refuses the previous value of a new
    parameter. CloudFormation resets each parameter that is left out to its default.
    """
    given = [{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()]
    return (
        f"[Stacks[0].Parameters[?contains(`{json.dumps(kept)}`, ParameterKey)]"
        f".{{ParameterKey: ParameterKey, UsePreviousValue: `true`}}, `{json.dumps(given)}`][]"
    )


def _prompt(parameter: dict[str, str]) -> str:
    return f"{parameter['name']}: {parameter['description']} (such as {parameter['example']})"


def _hcl(value: Any, indent: str = "") -> str:
    """Return a JSON value as a Terraform expression, and indent its further lines by `indent`."""
    inner = f"{indent}  "
    if isinstance(value, dict) and value:
        items = [(_hcl(key), _hcl(item, inner)) for key, item in value.items()]
        return "{\n" + "".join(f"{inner}{line}\n" for line in _aligned(items)) + f"{indent}}}"
    if isinstance(value, list) and value:
        return "[\n" + "".join(f"{inner}{_hcl(item, inner)},\n" for item in value) + f"{indent}]"
    if isinstance(value, str):
        return f'"{_HCL_SPECIAL.sub(_hcl_escape, value)}"'
    return json.dumps(value)


def _aligned(items: list[tuple[str, str]]) -> Iterator[str]:
    """Align = as `terraform fmt` does, among neighbouring items that take one line each."""
    for several_lines, run in itertools.groupby(items, key=lambda item: "\n" in item[1]):
        neighbours = list(run)
        width = 0 if several_lines else max(len(key) for key, _ in neighbours)
        yield from (f"{key:{width}} = {value}" for key, value in neighbours)


def _hcl_escape(match: re.Match[str]) -> str:
    """Escape an IAM variable as `$${…}`, and any other special character for Terraform."""
    if match["variable"]:
        return "$$"
    return f"\\{match[0]}" if match[0] in '"\\' else f"\\u{ord(match[0]):04x}"


_templates = jinja2.Environment(
    # Not HTML: the filters quote each value for the surrounding language
    autoescape=False,  # noqa: S701
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "kit_templates"),
    undefined=jinja2.StrictUndefined,
    auto_reload=False,
    trim_blocks=True,
    keep_trailing_newline=True,
)
_templates.filters |= {"hcl": _hcl, "json": json.dumps, "quote": shlex.quote, "prompt": _prompt}
_templates.globals |= {"limits": _LIMITS, "denials": _DENIALS, "reads_itself": READS_ITSELF}
