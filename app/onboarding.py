"""The onboarding kit: all that a customer needs to let the vendor in, in four forms of the same role.

Whatever the customer changes on the way (every parameter of a launch link can be edited) is found out by the proof.
"""

import json
import shlex
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

from app import permission_sets
from app.access import Caller, tenant_of
from app.aws.templates import Template, TemplateBucket, regions, render, role_seconds
from app.config import Broker, Config
from app.db import Database
from app.errors import ValidationFailedError
from app.models import Tenant
from app.permission_sets import PermissionSet
from app.registration_token import RegistrationTokens

# AWS's consoles; their names are in none of botocore's data.
_CONSOLES = {
    "aws": "console.aws.amazon.com",
    "aws-us-gov": "console.amazonaws-us-gov.com",
    "aws-cn": "console.amazonaws.cn",
}


@dataclass(frozen=True, slots=True)
class Kit:
    """What the customer is given; each field is explained in docs/onboarding.md."""

    external_id: str
    broker_principal_arn: str
    role_name: str
    stack_name: str
    region: str
    partition: str
    permission_set: str
    template_url: str
    template_version: str
    launch_stack_url: str
    registers_itself: bool
    trust_policy: dict[str, Any]
    terraform: str
    aws_cli: str


class Onboarding:
    """Makes kits, renders templates and publishes them."""

    def __init__(
        self, db: Database, bucket: TemplateBucket, config: Config, sets: dict[str, PermissionSet]
    ) -> None:
        self._db = db
        self._bucket = bucket
        self._config = config
        self._sets = sets
        self._tokens = RegistrationTokens(config.secret_keys)
        # Rendered once: the result depends on nothing that changes while the process lives.
        self._templates = {name: render(config, chosen) for name, chosen in sets.items()}

    def permission_sets(self) -> list[tuple[PermissionSet, dict[str, Any]]]:
        """Every set, with its policy as this deployment's partition has it."""
        return [(chosen, chosen.policy(self._config.broker.partition)) for chosen in self._sets.values()]

    def template(self, permission_set: str | None = None) -> Template:
        """Raises ValidationFailedError for an unknown permission set."""
        return self._templates[permission_sets.choose(self._sets, permission_set).name]

    def publish(self) -> list[tuple[str, bool]]:
        """Upload every template: its URL, and whether it is new. Raises app.aws.errors.Unavailable."""
        return [
            (self._bucket.url(template), self._bucket.publish(template))
            for template in self._templates.values()
        ]

    def kit(
        self, caller: Caller, tenant_id: UUID, *, region: str | None = None, permission_set: str | None = None
    ) -> Kit:
        """The kit of one tenant; asking again gives the same External ID. Raises NotFoundError, ValidationFailedError."""
        with self._db.read() as db:
            tenant = tenant_of(db, caller, tenant_id)
        region = self._region(region)
        chosen = permission_sets.choose(self._sets, permission_set)
        template, broker = self._templates[chosen.name], self._config.broker
        external_id, name = tenant.external_id or "", self.role_name(tenant)
        trust, policy = trust_policy(broker, external_id), chosen.policy(broker.partition)
        script = _Script(name, self._description(external_id), role_seconds(self._config), trust, policy)
        return Kit(
            external_id=external_id,
            broker_principal_arn=broker.arn,
            role_name=name,
            stack_name=_stack_name(tenant),
            region=region,
            partition=broker.partition,
            permission_set=chosen.name,
            template_url=self._bucket.url(template),
            template_version=template.version,
            launch_stack_url=self._launch_url(region, template, tenant),
            registers_itself=region == self._config.registration_region,
            trust_policy=trust,
            terraform=script.terraform(),
            aws_cli=script.aws_cli(),
        )

    def role_name(self, tenant: Tenant) -> str:
        """The prefix, and eight hex digits of the tenant, as two tenants may share an AWS account.

        The last eight: a UUIDv7 begins with the time, and tenants made in the same minute share those digits.
        """
        return f"{self._config.role_prefix}{tenant.id.hex[-8:]}"

    def _description(self, external_id: str) -> str:
        return f"Lets {self._config.vendor_name} reach this account for the customer with External ID {external_id}"

    def _region(self, region: str | None) -> str:
        if region is None:
            return self._config.registration_region or self._config.region
        partition = self._config.broker.partition
        if region not in regions(partition):
            message = f"Must be a region with CloudFormation in the partition {partition}, which this deployment serves."
            raise ValidationFailedError({"region": [message]})
        return region

    def _launch_url(self, region: str, template: Template, tenant: Tenant) -> str:
        """AWS's quick-create link. Everything after # is one fragment with a query of its own."""
        console = self._config.console_url or f"https://{region}.{_CONSOLES[self._config.broker.partition]}"
        wanted = {
            "templateURL": self._bucket.url(template),
            "stackName": _stack_name(tenant),
            "param_ExternalId": tenant.external_id or "",
            "param_RoleName": self.role_name(tenant),
        }
        if region == self._config.registration_region:  # in any other, a stack that names the topic fails
            wanted["param_RegistrationTopicArn"] = self._config.registration_topic_arn or ""
            wanted["param_RegistrationToken"] = self._tokens.make(tenant.id, tenant.registration_generation)
        query = urlencode(wanted, quote_via=quote, safe="")
        return f"{console}/cloudformation/home?region={region}#/stacks/create/review?{query}"


def _stack_name(tenant: Tenant) -> str:
    return f"deputy-{tenant.id.hex[-8:]}"


def trust_policy(broker: Broker, external_id: str) -> dict[str, Any]:
    """Who may assume the role: the broker alone, and only with this External ID.

    The principal is the account's root and the broker a condition: AWS stores a principal by its unique id, so
    deleting and remaking the broker would break every customer's role; condition values stay as they are written.
    """
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:{broker.partition}:iam::{broker.account_id}:root"},
                "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"],
                "Condition": {
                    "StringEquals": {"sts:ExternalId": external_id},
                    "ArnEquals": {"aws:PrincipalArn": broker.arn},
                },
            }
        ],
    }


@dataclass(frozen=True, slots=True)
class _Script:
    """The same role for those who don't launch stacks."""

    role_name: str
    description: str
    max_seconds: int
    trust: dict[str, Any]
    policy: dict[str, Any]

    def terraform(self) -> str:
        return (
            'resource "aws_iam_role" "deputy" {\n'
            f"  name                 = {_hcl(self.role_name)}\n"
            f"  description          = {_hcl(self.description)}\n"
            f"  max_session_duration = {self.max_seconds}\n"
            f"  assume_role_policy   = jsonencode({_hcl(self.trust)})\n"
            "}\n\n"
            'resource "aws_iam_role_policy" "deputy" {\n'
            '  name   = "permissions"\n'
            "  role   = aws_iam_role.deputy.id\n"
            f"  policy = jsonencode({_hcl(self.policy)})\n"
            "}\n\n"
            'output "role_arn" {\n'
            "  value = aws_iam_role.deputy.arn\n"
            "}\n"
        )

    def aws_cli(self) -> str:
        name = shlex.quote(self.role_name)
        return (
            "set -eu\n"
            f"aws iam create-role --role-name {name} --max-session-duration {self.max_seconds} \\\n"
            f"  --description {shlex.quote(self.description)} \\\n"
            f"  --assume-role-policy-document {shlex.quote(json.dumps(self.trust))} --output text --query Role.Arn\n"
            f"aws iam put-role-policy --role-name {name} --policy-name permissions \\\n"
            f"  --policy-document {shlex.quote(json.dumps(self.policy))}\n"
        )


def _hcl(value: Any) -> str:
    """JSON is valid in Terraform's language but for its own two markers inside strings."""
    text = json.dumps(value, indent=2).replace("${", "$${").replace("%{", "%%{")
    return text.replace("\n", "\n  ")
