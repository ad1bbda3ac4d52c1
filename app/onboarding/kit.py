"""The onboarding kit: what a customer needs to create the vendor's role, in four forms.

The customer can edit every parameter of a launch link. The proof detects edits, because it tests
the role as it was created.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import joinedload, lazyload

from app.aws import templates
from app.aws.regions import console_home, ensure_console, partition_of, regions
from app.config import Config
from app.connections.kit_names import KitNames, names_of, new_names
from app.errors import ValidationFailedError
from app.identity import Principal, tenant_of
from app.ids import RoleArn
from app.onboarding import kit_scripts
from app.onboarding.kit_scripts import KitRole
from app.onboarding.kit_trust_policy import trust_policy
from app.onboarding.publication import Publication, Rendered, SetVersions
from app.onboarding.registration_tokens import RegistrationTokens
from app.permissions.permission_sets import PermissionSet, PermissionSets, managed_policy_arn
from app.store.database import Database
from app.store.keyset import page
from app.store.models import Approval, Connection, live_of, live_ranges_of
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
    created, the customer applies the kit's text again. `trust_policy` also accepts the role's
    imported External ID, and so do the two texts.
    """

    stack: StackUpdate
    stack_set: StackUpdate
    terraform: str
    aws_cli: str
    trust_policy: dict[str, Any]


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


@dataclass(eq=False)
class Onboarding:
    """The service that builds kits.

    Creating it raises ConfigError when the settings lead to no known console, or to two partitions.
    """

    _db: Database
    _publication: Publication
    _config: Config
    sets: PermissionSets

    def __post_init__(self) -> None:
        ensure_console(self._config)
        self.versions = SetVersions(self._db, self.sets)
        self._tokens = RegistrationTokens(self._config.database.secret_keys)

    def regions(self) -> list[str]:
        """Return the regions in which a customer's stack may run. Those with a topic come first."""
        ours = list(self._config.aws.registration_topics)
        others = regions(self._config.aws.broker.partition).difference(ours)
        return ours + sorted(others)

    def rendered(self, permission_set: str | None = None) -> Rendered:
        """Return the templates for one account and for a whole organisation.

        Raises ValidationFailedError for an unknown permission set.
        """
        return self._publication.rendered[self.sets.choose(permission_set).name]

    def kit(
        self,
        principal: Principal,
        tenant_id: UUID,
        *,
        region: str | None = None,
        permission_set: str | None = None,
        existing: Connection | None = None,
    ) -> Kit:
        """Return the kit of one tenant, with its next External ID during a rotation.

        `existing`: the connection whose role is to be updated. None: the newest one that is to move
        to the permission set, or else the newest one with it.

        Raises NotFoundError, ValidationFailedError.
        """
        region, chosen = self._region(region), self.sets.choose(permission_set)
        values, names = self._read(principal, tenant_id, chosen, region)
        existing_names = names
        if existing := existing or self._newest(tenant_id, chosen):
            existing_names = names_of(self._config, tenant_id, existing.role_arn, names)
        aws, rendered = self._config.aws, self._publication.rendered[chosen.name]
        url = self._publication.bucket.url(rendered.role)
        organization_url = self._publication.bucket.url(rendered.organization)
        role = self._role(names.role, values, chosen)
        home = console_home(self._config, region)
        launch = partial(_launch_url, home, values | {"RoleName": role.name})
        stacks = {existing_names.stack: url, existing_names.organization_stack: organization_url}
        return Kit(
            external_id=role.external_id,
            next_external_id=values["NextExternalId"] or None,
            broker_principal_arn=aws.broker.arn,
            role_name=role.name,
            stack_name=names.stack,
            region=region,
            partition=aws.broker.partition,
            permission_set=chosen.name,
            permission_set_version=chosen.version,
            template_url=url,
            template_version=rendered.role.version,
            launch_stack_url=launch(url, names.stack),
            organization_launch_url=launch(organization_url, names.organization_stack),
            registers_itself="RegistrationToken" in values,
            trust_policy=role.trust,
            terraform=kit_scripts.terraform(role),
            aws_cli=kit_scripts.aws_cli(role),
            update=self._update(region, stacks, values, role, existing),
        )

    def _update(
        self,
        region: str,
        stacks: dict[str, str],
        values: dict[str, str],
        role: KitRole,
        existing: Connection | None,
    ) -> KitUpdate:
        """Return the update of the existing role to what the kit asks for.

        `stacks`: the URL of the new template, by the name of the stack. `existing`: None if there
        is no role yet. The customer supplies the values of parameters that the role's present
        template did not have.
        """
        present, imported_id = role.parameters, None
        if existing:
            role = role._replace(name=RoleArn.parse(existing.role_arn).name)
            origin, imported_id = self.versions.of(*existing.set_of_role), existing.imported_id
            present = origin.parameters if origin else ()
        external_ids = role.external_id, values["NextExternalId"], imported_id
        trust = trust_policy(self._config.aws.broker, *external_ids)
        role, present_names = role._replace(trust=trust), {each["name"] for each in present}
        kept, to_fill_in = [*KEPT], list[str]()
        for parameter in role.parameters:
            names = kept if parameter["name"] in present_names else to_fill_in
            names.append(parameter["name"])
        values = {name: f"<{name}>" for name in to_fill_in} | values
        home = console_home(self._config, region)
        stack, whole = (
            StackUpdate(
                name=name,
                console_url=f"{home}#/stacks?{urlencode({'filteringText': name})}",
                aws_cli=kit_scripts.filled(
                    "update-stack.sh.jinja",
                    region=region,
                    stack=name,
                    template_url=url,
                    parameters=kit_scripts.updated_parameters(values, kept),
                ),
                parameters=values,
                to_fill_in=to_fill_in,
            )
            for name, url in stacks.items()
        )
        texts = kit_scripts.terraform(role), kit_scripts.aws_cli(role)
        return KitUpdate(stack, whole, *texts, trust)

    def _read(
        self, principal: Principal, tenant_id: UUID, chosen: PermissionSet, region: str
    ) -> tuple[dict[str, str], KitNames]:
        """Return the values of a stack's parameters, and a new role's names.

        Raises NotFoundError.
        """
        aws = self._config.aws
        with self._db.read() as db:
            tenant = tenant_of(db, principal, tenant_id)
            next_external_id = tenant.next.value if tenant.next else ""
            values = {"ExternalId": tenant.external_id or "", "NextExternalId": next_external_id}
            if tenant.current and tenant.current.is_withdrawn:  # it is abused: roles must refuse it
                values = {"ExternalId": next_external_id, "NextExternalId": ""}
            if topic := aws.registration_topics.get(region):
                # A stack can only name a topic of its own region. The token of a link's page
                # contains the link's id: revoking the link voids the token.
                values["RegistrationTopicArn"] = topic
                values["RegistrationToken"] = self._tokens.make(
                    deployment_id(db),
                    tenant_id,
                    tenant.registration_generation,
                    link_id=principal.link_id,
                )
            return values, new_names(db, self._config, self.sets, tenant_id, chosen.name)

    def _newest(self, tenant_id: UUID, chosen: PermissionSet) -> Connection | None:
        """Return the newest role that is to move to the chosen set, or else the newest with it."""
        needed = joinedload(Connection.external_id_row), joinedload(Connection.move)
        role = select(Connection).options(lazyload("*"), *needed)
        moving = role.where(live_of(tenant_id)).order_by(Connection.id.desc()).limit(1)
        moving = moving.join(Approval, Approval.id == Connection.move_id)
        moving = moving.where(Approval.permission_set == chosen.name)
        settled = role.where(Connection.permission_set == chosen.name)
        ranges = live_ranges_of(tenant_id)
        with self._db.read() as db:
            if connection := db.scalars(moving).one_or_none():
                return connection
            newest = page(db, settled, Connection.id, limit=1, after=None, either=ranges).items
            return next(iter(newest), None)

    def _role(self, name: str, values: dict[str, str], chosen: PermissionSet) -> KitRole:
        config, partition = self._config, self._config.aws.broker.partition
        external_id = values["ExternalId"]
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
            trust=trust_policy(config.aws.broker, external_id, values["NextExternalId"]),
            policy=chosen.policy(partition),
            permission_set=chosen.label,
            managed=managed,
            no_longer_managed=sorted(published - {*managed}),
            parameters=chosen.parameters,
        )

    def _region(self, region: str | None) -> str:
        if region is None:
            return next(iter(self._config.aws.registration_topics), self._config.aws.region)
        ours = self._config.aws.broker.partition
        if region in self.regions():
            return region
        theirs = partition_of(region)
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
        raise ValidationFailedError(region=message)


def _launch_url(home: str, parameters: dict[str, str], template_url: str, stack_name: str) -> str:
    """Return a launch URL, which is AWS's quick-create link.

    It opens the console with a template and those parameters that have a value. Everything after #
    is one fragment, which has its own query.
    """
    fields = {"templateURL": template_url, "stackName": stack_name}
    fields |= {f"param_{name}": value for name, value in parameters.items() if value}
    query = urlencode(fields, quote_via=quote, safe="")
    return f"{home}#/stacks/create/review?{query}"
