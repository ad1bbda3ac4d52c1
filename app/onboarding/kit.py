"""The onboarding kit: what a customer needs to create the vendor's role, in four forms.

The customer can edit every parameter of a launch link. The proof detects edits, because it tests
the role as it was created.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, select

from app.aws import templates
from app.aws.templates import Template
from app.config import Broker, Config
from app.connections.kit_names import kit_suffix
from app.errors import ValidationFailedError
from app.identity import Principal, tenant_of
from app.ids import RoleArn, kit_role_name, kit_stack_names
from app.onboarding import kit_scripts
from app.onboarding.kit_scripts import KitRole, update_command
from app.onboarding.launch_url import ensure_console, launch_url, stack_url
from app.onboarding.publication import Publication
from app.onboarding.registration_store import RegistrationTokens
from app.onboarding.set_versions import SetVersions
from app.permissions.permission_sets import PermissionSet, PermissionSets, managed_policy_arn
from app.store.database import Database, Session
from app.store.models import Approval, Connection, Tenant, live_of
from app.store.models.deployment import deployment_id

# Parameters that an update keeps. With another RoleName, it would create another role.
KEPT = (
    "RoleName",
    "AccessUntil",
    "RevokeSessionsBefore",
    "PermissionsBoundaryArn",
    "OrganizationalUnitIds",
    "CallAs",
)


@dataclass(frozen=True, slots=True)
class StackUpdate:
    """An update of an existing stack to what the kit asks for, as in a rotation.

    `console_url` shows the stack `name` in the console. `aws_cli` is one command that sets the
    `parameters`. The customer supplies the values of those in `to_fill_in`.
    """

    name: str
    console_url: str
    aws_cli: str
    parameters: dict[str, str]
    to_fill_in: list[str]


@dataclass(frozen=True, slots=True)
class KitUpdate:
    """The update of each form of the kit.

    `stack_set` is the stack of a whole organisation. To update a role that Terraform or the script
    created, the customer applies the kit's text again.
    """

    stack: StackUpdate
    stack_set: StackUpdate
    terraform: str
    aws_cli: str


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
    permission_set_version: int
    template_url: str
    template_version: str
    launch_stack_url: str
    organization_launch_url: str
    registers_itself: bool
    trust_policy: dict[str, Any]
    terraform: str
    aws_cli: str
    update: KitUpdate


class _RoleNames(NamedTuple):
    """The names of a role, its two stacks and its template's parameters.

    The first stack is for one account, the second for an organisation. The role may exist already.
    """

    role: str
    stacks: tuple[str, str]
    parameters: frozenset[str]


class Onboarding:
    """The service that builds kits."""

    def __init__(
        self, db: Database, publication: Publication, config: Config, sets: PermissionSets
    ) -> None:
        """Create the service from the settings.

        Raises ConfigError when they lead to no known console, or to two partitions.
        """
        self._db = db
        self._publication = publication
        self._config = config
        ensure_console(config)
        self.sets = sets
        self.versions = SetVersions(db, sets)
        self._tokens = RegistrationTokens(config.database.secret_keys)

    def regions(self) -> list[str]:
        """Return the regions in which a customer's stack may run."""
        return sorted(templates.regions(self._config.aws.broker.partition))

    def template(self, permission_set: str | None = None) -> Template:
        """Return the template for one account.

        Raises ValidationFailedError for an unknown permission set.
        """
        return self._publication.roles[self.sets.choose(permission_set).name]

    def organization_template(self, permission_set: str | None = None) -> Template:
        """Return the template for a whole organisation.

        Raises ValidationFailedError for an unknown permission set.
        """
        return self._publication.organizations[self.sets.choose(permission_set).name]

    def kit(
        self,
        principal: Principal,
        tenant_id: UUID,
        *,
        region: str | None = None,
        permission_set: str | None = None,
    ) -> Kit:
        """Return the kit of one tenant, with its next External ID during a rotation.

        Raises NotFoundError, ValidationFailedError.
        """
        region, chosen = self._region(region), self.sets.choose(permission_set)
        tenant, next_external_id, token, suffix, row = self._read(principal, tenant_id, chosen)
        bucket, template = self._publication.bucket, self._publication.roles[chosen.name]
        urls = bucket.url(template), bucket.url(self._publication.organizations[chosen.name])
        names = self._names(tenant_id, suffix, chosen)
        existing = self._existing_names(tenant_id, suffix, row) if row else names
        role = self._role(names.role, tenant.external_id or "", next_external_id, chosen)
        values = {"ExternalId": role.external_id, "NextExternalId": next_external_id or ""}
        values |= self._registration(token, region)
        parameters = values | {"RoleName": role.name}
        if next_external_id is None:
            del parameters["NextExternalId"]
        launch = partial(launch_url, self._config, region)
        return Kit(
            external_id=role.external_id,
            next_external_id=next_external_id,
            broker_principal_arn=self._config.aws.broker.arn,
            role_name=role.name,
            stack_name=names.stacks[0],
            region=region,
            partition=self._config.aws.broker.partition,
            permission_set=chosen.name,
            permission_set_version=chosen.version,
            template_url=urls[0],
            template_version=template.version,
            launch_stack_url=launch(urls[0], names.stacks[0], parameters),
            organization_launch_url=launch(urls[1], names.stacks[1], parameters),
            registers_itself=region == self._config.aws.registration_region,
            trust_policy=role.trust,
            terraform=kit_scripts.terraform(role),
            aws_cli=kit_scripts.aws_cli(role),
            update=self._update(region, urls, values, role._replace(name=existing.role), existing),
        )

    def _update(
        self,
        region: str,
        urls: tuple[str, str],
        values: dict[str, str],
        role: KitRole,
        existing: _RoleNames,
    ) -> KitUpdate:
        """Return the update of the existing role to what the kit asks for.

        The customer supplies the values of parameters that the role's template did not have.
        """
        kept = [*KEPT]
        to_fill_in: list[str] = []
        for parameter in role.parameters:
            names = kept if parameter["name"] in existing.parameters else to_fill_in
            names.append(parameter["name"])
        values = {name: f"<{name}>" for name in to_fill_in} | values
        stack, whole = (
            StackUpdate(
                name=name,
                console_url=stack_url(self._config, region, name),
                aws_cli=update_command(region, name, url, values, kept=kept),
                parameters=values,
                to_fill_in=to_fill_in,
            )
            for name, url in zip(existing.stacks, urls, strict=True)
        )
        return KitUpdate(stack, whole, kit_scripts.terraform(role), kit_scripts.aws_cli(role))

    def _names(self, tenant_id: UUID, suffix: str, origin: PermissionSet | None) -> _RoleNames:
        """Return the kit's names of a role. `origin`: the set of its template, None if unknown."""
        parameters: frozenset[str] = frozenset()
        if origin is not None:
            parameters = frozenset(parameter["name"] for parameter in origin.parameters)
        parts = self._config.aws.role_prefix, tenant_id, suffix
        return _RoleNames(kit_role_name(*parts), kit_stack_names(*parts), parameters)

    def _existing_names(
        self, tenant_id: UUID, suffix: str, row: Row[str, str, int | None]
    ) -> _RoleNames:
        name = RoleArn.parse(row.role_arn).name
        beginning = kit_role_name(self._config.aws.role_prefix, tenant_id)
        if name.startswith(beginning):
            suffix = name.removeprefix(beginning)
        origin = self.versions.of(row.permission_set, row.permission_set_version)
        return self._names(tenant_id, suffix, origin)._replace(role=name)

    def _read(
        self, principal: Principal, tenant_id: UUID, chosen: PermissionSet
    ) -> tuple[Tenant, str | None, str, str, Row[str, str, int | None] | None]:
        """Return what the kit needs from the database.

        The items are the tenant, its next External ID, its registration token, the suffix of a new
        role's name, and its existing role for the chosen set. Raises NotFoundError.
        """
        with self._db.read() as db:
            tenant = tenant_of(db, principal, tenant_id)
            generation = tenant.registration_generation
            # The token of a link's page contains the link's id: revoking the link voids the token.
            link_id = principal.link_id
            token = self._tokens.make(deployment_id(db), tenant_id, generation, link_id=link_id)
            suffix = kit_suffix(db, self._config, self.sets, tenant_id, chosen.name)
            next_external_id = tenant.next.value if tenant.next else None
            row = _existing_role(db, tenant_id, chosen.name)
            return tenant, next_external_id, token, suffix, row

    def _registration(self, token: str, region: str) -> dict[str, str]:
        """Return the parameters with which a stack registers its role.

        A stack can only name a topic of its own region.
        """
        topic = self._config.aws.registration_topic_arn
        if topic is None or region != self._config.aws.registration_region:
            return {}
        return {"RegistrationTopicArn": topic, "RegistrationToken": token}

    def _role(
        self, name: str, external_id: str, next_external_id: str | None, chosen: PermissionSet
    ) -> KitRole:
        config, partition = self._config, self._config.aws.broker.partition
        managed = chosen.managed_policy_arns(partition)
        published = {
            managed_policy_arn(partition, name) for name in self.versions.managed_policies()
        }
        return KitRole(
            name=name,
            description=(
                f"Lets {config.vendor.vendor_in_aws} reach this account for the customer with"
                f" External ID {external_id}"
            ),
            vendor=config.vendor.vendor_name,
            vendor_tag=config.vendor.vendor_in_aws,
            external_id=external_id,
            region=config.aws.region,
            max_seconds=templates.role_seconds(config),
            trust=trust_policy(config.aws.broker, external_id, next_external_id),
            policy=chosen.policy(partition),
            permission_set=chosen.label,
            managed=tuple(managed),
            no_longer_managed=tuple(sorted(published - {*managed})),
            parameters=chosen.parameters,
        )

    def _region(self, region: str | None) -> str:
        if region is None:
            return self._config.aws.registration_region or self._config.aws.region
        ours = self._config.aws.broker.partition
        if region in templates.regions(ours):
            return region
        theirs = templates.partition_of(region)
        message = (
            f"Must be a region with CloudFormation in the partition {ours}, which this deployment"
            " serves."
        )
        if theirs not in {None, ours}:
            message = (
                f"Is a region of the partition {theirs}. This deployment's broker is in the"
                f" partition {ours}, and no role of another partition can be assumed from there:"
                " ask a deployment of that partition."
            )
        raise ValidationFailedError({"region": [message]})


def _existing_role(
    db: Session, tenant_id: UUID, permission_set: str
) -> Row[str, str, int | None] | None:
    """Return the tenant's newest role that is asked to move to the set, or else that has it."""
    role = select(Connection.role_arn, Connection.permission_set, Connection.permission_set_version)
    newest = role.where(live_of(tenant_id)).order_by(Connection.id.desc()).limit(1)
    moving = newest.join(Approval, Approval.id == Connection.move_id)
    moving = moving.where(Approval.permission_set == permission_set)
    settled = newest.where(Connection.permission_set == permission_set)
    return db.execute(moving).one_or_none() or db.execute(settled).one_or_none()


def trust_policy(
    broker: Broker, external_id: str, next_external_id: str | None = None
) -> dict[str, Any]:
    """Return the policy that lets only the broker assume the role, with this External ID.

    It also accepts the next External ID, if there is one. Its principal is the account's root, and
    a condition names the broker. AWS stores a role or user as principal by its unique id, so
    recreating the broker would break every customer's role. AWS stores condition values unchanged.
    """
    accepted: Any = external_id
    if next_external_id:
        accepted = [external_id, next_external_id]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:{broker.partition}:iam::{broker.account_id}:root"},
                "Action": "sts:AssumeRole",
                "Condition": {
                    "StringEquals": {"sts:ExternalId": accepted},
                    "ArnEquals": {"aws:PrincipalArn": broker.arn},
                },
            }
        ],
    }
