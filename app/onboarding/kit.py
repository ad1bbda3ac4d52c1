"""The onboarding kit: what a customer needs to let the vendor in, as four forms of the same role.

The customer can edit every parameter of a launch link. The proof tests the role as it was made, so edits are found.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.access.callers import Caller
from app.access.tenancy import tenant_of
from app.aws import templates
from app.aws.templates import Published, Template, TemplateBucket
from app.config import Broker, Config
from app.errors import ValidationFailedError
from app.ids import kit_role_name, kit_stack_names
from app.onboarding import kit_scripts
from app.onboarding.kit_scripts import KitRole
from app.onboarding.kit_update import KEPT, KitUpdate, StackUpdate, update_command
from app.onboarding.launch_url import LaunchUrls
from app.onboarding.registration_token import RegistrationTokens
from app.permissions.permission_sets import PermissionSet, PermissionSets
from app.store.database import Database
from app.store.models import Tenant
from app.store.models.configuration import deployment_id


@dataclass(frozen=True, slots=True)
class Kit:
    """One tenant's kit. docs/onboarding.md explains each field."""

    external_id: str
    next_external_id: str | None
    broker_principal_arn: str
    role_name: str
    stack_name: str
    region: str
    partition: str
    permission_set: str
    template_url: str
    template_version: str
    launch_stack_url: str
    organization_launch_url: str
    registers_itself: bool
    trust_policy: dict[str, Any]
    terraform: str
    aws_cli: str
    update: KitUpdate


class Onboarding:
    """Makes kits, renders templates and publishes them."""

    def __init__(self, db: Database, bucket: TemplateBucket, config: Config, sets: PermissionSets) -> None:
        """Raises ConfigError when the settings lead to no console, or to two partitions."""
        self._db = db
        self._bucket = bucket
        self._config = config
        self._launch_urls = LaunchUrls(config)
        self.sets = sets
        self._tokens = RegistrationTokens(config.secret_keys)
        # Rendered once: the settings and the permission sets stay the same while the process lives.
        self._templates = {name: templates.render(config, chosen) for name, chosen in sets.items()}
        rendered = self._templates.items()
        self._organization = {name: templates.render_organization(config, role, sets[name]) for name, role in rendered}

    def permission_sets(self) -> list[tuple[PermissionSet, dict[str, Any]]]:
        """Every set, with its policy as this deployment's partition has it."""
        return [(chosen, chosen.policy(self._config.broker.partition)) for chosen in self.sets.values()]

    def regions(self) -> list[str]:
        """Where a customer's stack may run."""
        return sorted(templates.regions(self._config.broker.partition))

    def template(self, permission_set: str | None = None) -> Template:
        """Raises ValidationFailedError for an unknown permission set."""
        return self._templates[self.sets.choose(permission_set).name]

    def organization_template(self, permission_set: str | None = None) -> Template:
        """The one for a whole organisation. Raises ValidationFailedError for an unknown permission set."""
        return self._organization[self.sets.choose(permission_set).name]

    def publish(self) -> list[tuple[str, bool]]:
        """Upload every template: its URL, and whether it is new. Raises app.aws.errors.Unavailable."""
        return [(self._bucket.url(template), self._bucket.publish(template)) for template in self._all()]

    def published(self) -> list[tuple[str, Published]]:
        """What each template's URL serves, read without credentials. Raises app.aws.errors.Unavailable."""
        return [(self._bucket.url(template), self._bucket.published(template)) for template in self._all()]

    def _all(self) -> list[Template]:
        return [*self._templates.values(), *self._organization.values()]

    def kit(
        self, caller: Caller, tenant_id: UUID, *, region: str | None = None, permission_set: str | None = None
    ) -> Kit:
        """The kit of one tenant, with its next External ID during a rotation. Raises NotFoundError, ValidationFailedError."""
        tenant, next_external_id, token = self._read(caller, tenant_id)
        region, chosen = self._region(region), self.sets.choose(permission_set)
        template, broker = self._templates[chosen.name], self._config.broker
        template_url, organization_url = self._bucket.url(template), self._bucket.url(self._organization[chosen.name])
        external_id, prefix, suffix = tenant.external_id or "", self._config.role_prefix, self.sets.suffix(chosen.name)
        role = self._role(kit_role_name(prefix, tenant.id, suffix), external_id, next_external_id, chosen)
        stack, whole = kit_stack_names(prefix, tenant.id, suffix)
        values = {"ExternalId": external_id, "NextExternalId": next_external_id or ""}
        values |= self._registration(token, region)
        parameters = {name: value for name, value in values.items() if value} | {"RoleName": role.name}
        own = tuple(parameter["name"] for parameter in chosen.parameters)
        terraform, aws_cli = kit_scripts.terraform(role), kit_scripts.aws_cli(role)
        return Kit(
            external_id=external_id,
            next_external_id=next_external_id,
            broker_principal_arn=broker.arn,
            role_name=role.name,
            stack_name=stack,
            region=region,
            partition=broker.partition,
            permission_set=chosen.name,
            template_url=template_url,
            template_version=template.version,
            launch_stack_url=self._launch_urls.build(region, template_url, stack, parameters),
            organization_launch_url=self._launch_urls.build(region, organization_url, whole, parameters),
            registers_itself=region == self._config.registration_region,
            trust_policy=role.trust,
            terraform=terraform,
            aws_cli=aws_cli,
            update=KitUpdate(
                stack=self._update(region, stack, template_url, values, kept=(*KEPT, *own)),
                stack_set=self._update(region, whole, organization_url, values, kept=(*KEPT, *own)),
                terraform=terraform,
                aws_cli=aws_cli,
            ),
        )

    def _update(
        self, region: str, stack: str, template_url: str, values: dict[str, str], *, kept: tuple[str, ...]
    ) -> StackUpdate:
        command = update_command(region, stack, template_url, values, kept=kept)
        return StackUpdate(self._launch_urls.of_stack(region, stack), command, values)

    def _read(self, caller: Caller, tenant_id: UUID) -> tuple[Tenant, str | None, str]:
        """The tenant, its next External ID, and its registration token. Raises NotFoundError."""
        with self._db.read() as db:
            tenant = tenant_of(db, caller, tenant_id)
            # A page's token names its link: revoking the link voids the token.
            token = self._tokens.make(
                deployment_id(db),
                tenant.id,
                tenant.registration_generation,
                link_id=caller.key_id if caller.kind == "onboarding_link" else None,
            )
            return tenant, tenant.next.value if tenant.next else None, token

    def _registration(self, token: str, region: str) -> dict[str, str]:
        """The parameters with which a stack registers its role. A stack can only name a topic of its own region."""
        topic = self._config.registration_topic_arn
        if topic is None or region != self._config.registration_region:
            return {}
        return {"RegistrationTopicArn": topic, "RegistrationToken": token}

    def _role(self, name: str, external_id: str, next_external_id: str | None, chosen: PermissionSet) -> KitRole:
        config = self._config
        return KitRole(
            name=name,
            description=f"Lets {config.vendor_in_aws} reach this account for the customer with External ID {external_id}",
            vendor=config.vendor_name,
            vendor_tag=config.vendor_in_aws,
            external_id=external_id,
            region=config.region,
            max_seconds=templates.role_seconds(config),
            trust=trust_policy(config.broker, external_id, next_external_id),
            policy=chosen.policy(config.broker.partition),
            permission_set=chosen.label,
            managed=tuple(chosen.managed_policy_arns(config.broker.partition)),
            parameters=chosen.parameters,
        )

    def _region(self, region: str | None) -> str:
        if region is None:
            return self._config.registration_region or self._config.region
        ours = self._config.broker.partition
        if region in templates.regions(ours):
            return region
        theirs = templates.partition_of(region)
        if theirs not in {None, ours}:
            message = (
                f"Is a region of the partition {theirs}. This deployment's broker is in the partition {ours}, and no"
                " role of another partition can be assumed from there: ask a deployment of that partition."
            )
        else:
            message = f"Must be a region with CloudFormation in the partition {ours}, which this deployment serves."
        raise ValidationFailedError({"region": [message]})


def trust_policy(broker: Broker, external_id: str, next_external_id: str | None = None) -> dict[str, Any]:
    """The policy that lets only the broker assume the role, and only with this External ID, or also the next one.

    The principal is the account's root and the broker a condition: AWS stores a principal by its unique id, so deleting
    and remaking the broker would break every customer's role; condition values stay as they are written.
    """
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:{broker.partition}:iam::{broker.account_id}:root"},
                "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"],
                "Condition": {
                    "StringEquals": {
                        "sts:ExternalId": [external_id, next_external_id] if next_external_id else external_id
                    },
                    "ArnEquals": {"aws:PrincipalArn": broker.arn},
                },
            }
        ],
    }
