"""The names that the onboarding kit gives to a tenant's roles.

A tenant's roles of different permission sets never get the same name.
"""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.config import Config
from app.ids import kit_role_name
from app.permissions.permission_sets import PermissionSets
from app.store.models import Connection


def kit_suffix(
    db: Session, config: Config, sets: PermissionSets, tenant_id: UUID, name: str
) -> str:
    """Return the suffix of the names of a tenant's new role and stack of a permission set.

    The suffix is empty for the default permission set, and the permission set's name for the
    others. The default one also gets its name as suffix if a role of another permission set has the
    name without a suffix. A role may have it because it keeps its name when DEFAULT_PERMISSION_SET
    changes or when it moves to another permission set. With the same name, the kit's script would
    give that role the default set's rights. Deleted connections count, because a role outlives its
    connection.
    """
    if suffix := sets.suffix(name):
        return suffix
    plain = f"/{kit_role_name(config.aws.role_prefix, tenant_id)}"
    taken = select(Connection.id).where(
        Connection.tenant_id == tenant_id,
        Connection.permission_set != name,
        Connection.role_arn.endswith(plain, autoescape=True),
    )
    return f"-{name}" if db.scalar(taken.limit(1)) else ""


def made_suffix(db: Session, config: Config, tenant_id: UUID, name: str) -> str | None:
    """Return the suffix of the name of the tenant's newest role of a permission set.

    Roles of deleted connections count. Returns None if the kit made no such role.
    """
    plain = kit_role_name(config.aws.role_prefix, tenant_id)
    of_the_kit = select(Connection.role_arn).where(
        Connection.tenant_id == tenant_id,
        Connection.permission_set == name,
        Connection.role_arn.contains(f"/{plain}", autoescape=True),
    )
    newest = db.scalar(of_the_kit.order_by(Connection.id.desc()).limit(1))
    return newest and newest.rpartition("/")[2].removeprefix(plain)
