"""The template's role as Terraform and as a shell script, for customers who do not launch stacks.

Each value goes through the quoting of the language that it is written into, so no value can become code. Comments hold
the vendor's name as their only value, on one line.
"""

import itertools
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.permissions.permission_sets import READS_ITSELF

# What must be escaped in a Terraform string: quotes, control characters, and the two marks that begin a template.
# Policies hold such a mark only in IAM's variables, such as ${aws:PrincipalAccount}.
_HCL_SPECIAL = re.compile(r'["\\\x00-\x1f\x7f]|(?P<variable>(?<![$%])\$(?=\{[\w:/.-]+\}))|[$%](?=[$%]*\{)', re.ASCII)

# (parameter, policy, operator, key) of what denies everything to sessions that live already.
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
_TIME = "([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z)?"
_POLICY = "(arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/[A-Za-z0-9_+=,.@/-]{1,512})?"
# What a customer may set, and need not: the template's parameters of these names.
_LIMITS = [
    dict(zip(("name", "pattern", "description", "example"), limit, strict=True))
    for limit in (
        ("AccessUntil", _TIME, "the time in UTC at which the access ends", "2027-12-31T00:00:00Z"),
        ("RevokeSessionsBefore", _TIME, "a time in UTC; earlier sessions end", "2027-01-31T12:00:00Z"),
        ("PermissionsBoundaryArn", _POLICY, "what the role can't exceed", "arn:aws:iam::444455556666:policy/Boundary"),
    )
]


@dataclass(frozen=True, slots=True)
class KitRole:
    """The role that a kit asks for.

    `vendor` is the vendor's name for people, `vendor_tag` the one in tags; `region` is any of the partition's,
    `max_seconds` its MaxSessionDuration.
    """

    name: str
    description: str
    vendor: str
    vendor_tag: str
    external_id: str
    region: str
    max_seconds: int
    trust: dict[str, Any]
    policy: dict[str, Any]  # with the parameters' names in it
    permission_set: str = ""  # PermissionSet.label
    managed: tuple[str, ...] = ()  # ARNs of AWS's own policies
    parameters: tuple[dict[str, str], ...] = ()  # what the customer fills in

    @property
    def tags(self) -> dict[str, str]:
        """The same tags as the template's: which vendor the role is for, and with which permissions it was made."""
        return {
            "deputy:vendor": self.vendor_tag,
            "deputy:external-id": self.external_id,
            "deputy:permission-set": self.permission_set,
        }


def terraform(role: KitRole) -> str:
    """Resources for an empty folder or beside others."""
    policy = _hcl(role.policy, indent="  ")
    for parameter in role.parameters:
        policy = policy.replace(f"$${{{parameter['name']}}}", f"${{var.{parameter['name']}}}")
    trust = _HCL_CONDITION.sub(_HCL_UNTIL, _hcl(role.trust, indent="  "), count=1)
    return "".join(map(_variable, (*_LIMITS, *role.parameters))) + _TERRAFORM.format(
        who=_comment(role.vendor),
        name=_hcl(role.name),
        description=_hcl(role.description),
        max_seconds=role.max_seconds,
        trust=trust,
        policy=policy,
        managed=_ATTACHMENTS.format(arns=_hcl(list(role.managed), indent="  ")) if role.managed else "",
        tags=_hcl(role.tags, indent="  "),
        reads=_hcl(list(READS_ITSELF), indent="        "),
        denials="".join(
            _DENY.format(limit=limit, name=name, operator=operator, key=key) for limit, name, operator, key in _DENIALS
        ),
    )


def aws_cli(role: KitRole) -> str:
    """A script for sh that creates or updates the role and prints only its ARN on stdout."""
    tags = [{"Key": key, "Value": value} for key, value in role.tags.items()]
    policy = shlex.quote(json.dumps(role.policy, indent=2))  # in single quotes, which it closes around a parameter
    for parameter in role.parameters:
        policy = policy.replace(f"${{{parameter['name']}}}", f"""'"${parameter["name"]}"'""")
    return _AWS_CLI.format(
        who=_comment(role.vendor),
        vendor=shlex.quote(role.vendor),
        vendor_tag=shlex.quote(role.vendor_tag),
        region=shlex.quote(role.region),
        name=shlex.quote(role.name),
        description=shlex.quote(role.description),
        max_seconds=role.max_seconds,
        tags=shlex.quote(json.dumps(tags)),
        trust=shlex.quote(json.dumps(role.trust, indent=2)).replace(_CONDITION, f"""{_CONDITION}'"$ends"'""", 1),
        policy=policy,
        managed=shlex.quote(" ".join(role.managed)),
        parameters="".join(map(_argument, (*_LIMITS, *role.parameters))),
        reads=json.dumps(READS_ITSELF),
        denials="\n".join(f'deny {name} {operator} {key} "${{{limit}:-}}"' for limit, name, operator, key in _DENIALS),
    )


def _wanted(parameter: dict[str, str]) -> str:
    return f"{parameter['name']}: {parameter['description']} (such as {parameter['example']})"


def _variable(parameter: dict[str, str]) -> str:
    return _VARIABLE.format(
        name=parameter["name"],
        description=_hcl(_wanted(parameter)),
        default='  default     = ""\n' if parameter in _LIMITS else "",
        pattern=_hcl(f"^({parameter['pattern']})$"),
        error=_hcl(f"Must match {parameter['pattern']}, such as {parameter['example']}."),
    )


def _argument(parameter: dict[str, str]) -> str:
    name, example = parameter["name"], parameter["example"]
    said = f"Set {_wanted(parameter)}, as in: {name}={example} sh connect.sh"
    return _ARGUMENT.format(name=name, pattern=shlex.quote(parameter["pattern"]), said=shlex.quote(said))


def _hcl(value: Any, *, indent: str = "") -> str:
    """A JSON value as a Terraform expression, its further lines indented by `indent`."""
    inner = f"{indent}  "
    if isinstance(value, dict) and value:
        items = [(_hcl(key), _hcl(item, indent=inner)) for key, item in value.items()]
        return "{\n" + "".join(f"{inner}{line}\n" for line in _aligned(items)) + f"{indent}}}"
    if isinstance(value, list) and value:
        return "[\n" + "".join(f"{inner}{_hcl(item, indent=inner)},\n" for item in value) + f"{indent}]"
    if isinstance(value, str):
        return f'"{_HCL_SPECIAL.sub(_hcl_escape, value)}"'
    return json.dumps(value)


def _aligned(items: list[tuple[str, str]]) -> Iterator[str]:
    """Aligns = as `terraform fmt` does, among neighbours that take one line each."""
    for several_lines, run in itertools.groupby(items, key=lambda item: "\n" in item[1]):
        neighbours = list(run)
        width = 0 if several_lines else max(len(key) for key, _ in neighbours)
        yield from (f"{key:{width}} = {value}" for key, value in neighbours)


def _comment(text: str) -> str:
    """Text for a comment: line breaks of every language become blanks."""
    return " ".join(text.split())


def _hcl_escape(found: re.Match[str]) -> str:
    """`$${…}` for an IAM variable, as people write it; any other mark as its code point."""
    if found["variable"]:
        return "$$"
    return f"\\{found[0]}" if found[0] in '"\\' else f"\\u{ord(found[0]):04x}"


_TERRAFORM = """\
# The IAM role through which {who} reaches this AWS account.
# In a folder of its own, with credentials of the account and a region in AWS_REGION: terraform init, then terraform
# apply. The output role_arn is what {who} needs.

resource "aws_iam_role" "deputy" {{
  name                 = {name}
  description          = {description}
  max_session_duration = {max_seconds}
  permissions_boundary = one(compact([var.PermissionsBoundaryArn]))

  # One AWS identity of {who}, and only with the External ID that is yours alone. Keep both conditions.
  assume_role_policy = jsonencode({trust})

  tags = {tags}
}}

resource "aws_iam_role_policy" "deputy" {{
  name = "permissions"
  role = aws_iam_role.deputy.id

  policy = jsonencode({policy})
}}

{managed}# Lets the role read itself: who may use it, and what it may do. So {who} notices a trust policy that lets others in,
# and can tell you which permissions are missing. You may take this out; then {who} only knows how the role answers its
# own calls.
resource "aws_iam_role_policy" "deputy_read_itself" {{
  name = "read-itself"
  role = aws_iam_role.deputy.id

  policy = jsonencode({{
    Version = "2012-10-17"
    Statement = [
      {{
        Effect = "Allow"
        Action = {reads}
        Resource = aws_iam_role.deputy.arn
      }},
    ]
  }})
}}

{denials}output "role_arn" {{
  value = aws_iam_role.deputy.arn
}}
"""

_DENY = """\
# Without this, sessions that live already would go on to their end.
resource "aws_iam_role_policy" "deputy_{limit}" {{
  count = length(compact([var.{limit}]))

  name = "{name}"
  role = aws_iam_role.deputy.id

  policy = jsonencode({{
    Version = "2012-10-17"
    Statement = [
      {{
        Effect    = "Deny"
        Action    = "*"
        Resource  = "*"
        Condition = {{ {operator} = {{ "{key}" = var.{limit} }} }}
      }},
    ]
  }})
}}

"""

_ATTACHMENTS = """\
# Policies that AWS keeps.
resource "aws_iam_role_policy_attachment" "deputy" {{
  for_each = toset({arns})

  role       = aws_iam_role.deputy.name
  policy_arn = each.value
}}

"""

_VARIABLE = """\
variable "{name}" {{
  type        = string
  description = {description}
{default}
  validation {{
    condition     = can(regex({pattern}, var.{name}))
    error_message = {error}
  }}
}}

"""

_ARGUMENT = """\
fits "${{{name}:-}}" {pattern} || {{
  printf '%s\\n' {said} >&2
  exit 1
}}
"""

# An existing role is changed only if it has the vendor's tag. create-role's own error says that the role exists: a
# check beforehand would need one more permission, and could be out of date.
_AWS_CLI = """\
#!/bin/sh
# Makes the IAM role through which {who} reaches this AWS account.
# Run it with sh and with credentials of the account; it needs the AWS CLI, version 1 or 2. Run it again to bring the
# role back to what is written here.
#
# You may limit the access, as in: AccessUntil=2027-12-31T00:00:00Z sh connect.sh
# - AccessUntil ends it at this time. If it is not given, the role keeps the time that it has; AccessUntil= takes it away.
# - RevokeSessionsBefore ends every session that began before this time.
# - PermissionsBoundaryArn names a policy that the role can never exceed. If it is not given, the role keeps its own.
set -eu
export AWS_PAGER=''
# IAM is the same in every region: this only says in which part of AWS, and that none has to be configured.
export AWS_REGION={region} AWS_DEFAULT_REGION={region}

vendor={vendor}
vendor_tag={vendor_tag}
role_name={name}
description={description}
max_session_seconds={max_seconds}
tags={tags}

# What is given to this script goes into the role.
fits() {{
  case $1 in *[!A-Za-z0-9_.:/@=,+-]*) return 1 ;; esac
  printf '%s\\n' "$1" | LC_ALL=C grep -Eqx -e "$2"
}}
{parameters}
# Who may use the role: one AWS identity of {who}, only with the External ID that is yours alone, and until $1.
trust_policy() {{
  ends=''
  [ -z "$1" ] || ends="\\"DateLessThan\\": {{\\"aws:CurrentTime\\": \\"$1\\"}},"
  # shellcheck disable=SC2016 # IAM fills in what looks like a variable, not the shell
  printf '%s\\n' {trust}
}}

# What they may do with it.
# shellcheck disable=SC2016 # the same
permissions={policy}
managed={managed}

if message=$(aws iam create-role --role-name="$role_name" --description="$description" \\
  --max-session-duration="$max_session_seconds" --tags "$tags" \\
  ${{PermissionsBoundaryArn:+"--permissions-boundary=$PermissionsBoundaryArn"}} \\
  --assume-role-policy-document "$(trust_policy "${{AccessUntil:-}}")" 2>&1); then
  printf 'Made the role %s.\\n' "$role_name" >&2
else
  case $message in
    *EntityAlreadyExists*) ;;
    *)
      printf '%s\\n' "$message" >&2
      exit 1
      ;;
  esac
  owner=$(aws iam list-role-tags --role-name="$role_name" \\
    --query "Tags[?Key=='deputy:vendor'].Value | [0]" --output text)
  if [ "$owner" != "$vendor_tag" ]; then
    printf 'This account has a role %s already, and it does not bear the tag deputy:vendor = %s.\\n' \\
      "$role_name" "$vendor_tag" >&2
    printf 'Nothing was changed. If nothing needs that role, delete it and run this again; else ask %s.\\n' "$vendor" >&2
    exit 1
  fi
  aws iam update-role --role-name="$role_name" --description="$description" \\
    --max-session-duration="$max_session_seconds"
  if [ -z "${{AccessUntil+given}}" ]; then
    AccessUntil=$(aws iam get-role --role-name="$role_name" --output text \\
      --query "Role.AssumeRolePolicyDocument.Statement[0].Condition.DateLessThan.\\"aws:CurrentTime\\" || ''")
  elif [ -z "$AccessUntil" ] && aws iam get-role-policy --role-name="$role_name" --policy-name access-until > /dev/null 2>&1; then
    aws iam delete-role-policy --role-name="$role_name" --policy-name access-until
  fi
  [ -z "${{PermissionsBoundaryArn:-}}" ] || aws iam put-role-permissions-boundary --role-name="$role_name" \\
    --permissions-boundary="$PermissionsBoundaryArn"
  aws iam update-assume-role-policy --role-name="$role_name" --policy-document "$(trust_policy "$AccessUntil")"
  aws iam tag-role --role-name="$role_name" --tags "$tags"
  for attached in $(aws iam list-attached-role-policies --role-name="$role_name" \\
    --query 'AttachedPolicies[].PolicyArn' --output text); do
    case " $managed " in
      *" $attached "*) ;;
      *) aws iam detach-role-policy --role-name="$role_name" --policy-arn="$attached" ;;
    esac
  done
  printf 'The role %s was there already, and is up to date now.\\n' "$role_name" >&2
fi
aws iam put-role-policy --role-name="$role_name" --policy-name permissions --policy-document "$permissions"
for wanted in $managed; do
  aws iam attach-role-policy --role-name="$role_name" --policy-arn="$wanted"
done
role_arn=$(aws iam get-role --role-name="$role_name" --query Role.Arn --output text)

# The limits that were given also end sessions that live already.
deny() {{
  [ -z "$4" ] || aws iam put-role-policy --role-name="$role_name" --policy-name="$1" --policy-document "{{
    \\"Version\\": \\"2012-10-17\\", \\"Statement\\": [{{\\"Effect\\": \\"Deny\\", \\"Action\\": \\"*\\", \\"Resource\\": \\"*\\",
    \\"Condition\\": {{\\"$2\\": {{\\"$3\\": \\"$4\\"}}}}}}]}}"
}}
{denials}

# Lets the role read itself: who may use it, and what it may do. So {who} notices a trust policy that lets others in,
# and can tell you which permissions are missing. You may take this out; then {who} only knows how the role answers its
# own calls.
read_itself=$(printf '{{"Version": "2012-10-17", "Statement": [{{"Effect": "Allow", "Action": {reads},
  "Resource": "%s"}}]}}' "$role_arn")
aws iam put-role-policy --role-name="$role_name" --policy-name read-itself --policy-document "$read_itself"

printf '\\nThis is its ARN:\\n\\n' >&2
printf '%s\\n' "$role_arn"
printf '\\nNow give the ARN to %s, where you were given this script. They prove that the role lets them in\\n' "$vendor" >&2
printf 'with your External ID and refuses everybody without it. To end the access, delete the role.\\n' >&2
"""
