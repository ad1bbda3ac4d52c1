"""The names of the roles and stacks that the onboarding kit makes, and what a stack's name tells.

A tenant's roles of different permission sets never get the same name.
"""

import re
from typing import Literal, NamedTuple
from uuid import UUID

from sqlalchemy import select

from app.config import Config
from app.ids import TENANT_DIGITS, RoleArn
from app.permissions.permission_sets import PermissionSets
from app.store.database import Session
from app.store.models import Connection

Way = Literal["stack", "organization"]  # in which a role was created


class KitNames(NamedTuple):
    """The names of a role, of its stack, and of the stack for a whole organization."""

    role: str
    stack: str
    organization_stack: str


def _names(prefix: str, tenant_id: UUID, suffix: str) -> KitNames:
    stack = stack_name(prefix, kit_role_name("", tenant_id, suffix))
    return KitNames(kit_role_name(prefix, tenant_id, suffix), stack, f"{stack}-organization")


def new_names(
    db: Session, config: Config, sets: PermissionSets, tenant_id: UUID, permission_set: str
) -> KitNames:
    """Return the names of a tenant's new role of a permission set.

    They end in the permission set's name. Those of the default permission set have no such suffix,
    unless a role of another permission set has the plain name: it kept its name when
    DEFAULT_PERMISSION_SET changed, or when it moved to another permission set. If the names were
    equal, the kit's script would give that role the default set's rights. Deleted connections
    count, because a role outlives its connection.
    """
    suffix = f"-{permission_set}"
    if permission_set == sets.default:
        plain = f"/{kit_role_name(config.aws.role_prefix, tenant_id)}"
        taken = select(Connection.id).where(
            Connection.tenant_id == tenant_id,
            Connection.permission_set != permission_set,
            Connection.role_arn.endswith(plain, autoescape=True),
        )
        if not db.scalar(taken.limit(1)):
            suffix = ""
    return _names(config.aws.role_prefix, tenant_id, suffix)


def is_named_by_kit(config: Config, tenant_id: UUID, role_arn: str) -> bool:
    """Return whether the kit gave the role its name. Imported roles have names of their own.

    It may have been made with an earlier, longer prefix.
    """
    prefix, digits, _ = RoleArn.parse(role_arn).name.partition(_digits_of(tenant_id))
    return bool(digits) and prefix.startswith(config.aws.role_prefix)


def names_of(config: Config, tenant_id: UUID, role_arn: str, new: KitNames) -> KitNames:
    """Return the names of a role that exists. `new`: those of a new role.

    If the kit did not name the role, its stacks have the names of a new role's stacks.
    """
    name = RoleArn.parse(role_arn).name
    if not is_named_by_kit(config, tenant_id, role_arn):
        return new._replace(role=name)
    prefix, _, suffix = name.partition(_digits_of(tenant_id))
    return _names(prefix, tenant_id, suffix)


def kit_role_name(prefix: str, tenant_id: UUID, suffix: str = "") -> str:
    """Return the default name of a tenant's role.

    It consists of the prefix, eight hex digits of the tenant's id, and `suffix`, which
    `new_names` chooses. With the digits, two tenants can have roles in one AWS account. They are
    the last eight of the id. The first ones are the time, and are equal for tenants that were
    created in the same minute.
    """
    return f"{prefix}{_digits_of(tenant_id)}{suffix}"


def _digits_of(tenant_id: UUID) -> str:
    return tenant_id.hex[-TENANT_DIGITS:]


def stack_name(prefix: str, name: str) -> str:
    """Return a stack's name: the role prefix in CloudFormation's alphabet, and `name`.

    A stack's name consists of letters, digits and hyphens, and begins with a letter. The prefix may
    contain other characters, or be empty.
    """
    plain = re.sub(r"[^A-Za-z0-9-]", "-", prefix)
    return f"{plain}{name}" if plain[:1].isalpha() else f"deputy-{plain.lstrip('-')}{name}"


def region_of(stack_id: str | None) -> str | None:
    """Return the region of the stack that registered a role; None if no stack did."""
    return stack_id.split(":")[3] if stack_id else None


def way_of(stack_id: str | None, organization_stack: str) -> Way | None:
    """Return the way in which the stack's role was created, or None if it is unknown.

    `organization_stack`: the name of the kit's stack for a whole organization, and of its StackSet.
    """
    _, _, name = (stack_id or "").partition(":stack/")
    if name.startswith((f"{organization_stack}/", f"StackSet-{organization_stack}-")):
        return "organization"
    if not name or name.startswith("StackSet-"):
        return None
    return "stack"
