"""The names that the onboarding kit gives to a tenant's roles.

No two permission sets get the same name for a role of the same tenant.
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
    """Return the end of the names of the tenant's new role and stack of that permission set.

    It is empty for the default set, and the set's name for others. The default set gets its name as
    well if a role of another set has the plain name. A role keeps its name when
    DEFAULT_PERMISSION_SET changes and when it moves to another set. Under the same name, the kit's
    script would give it the default set's rights. A role outlives its connection, so deleted
    connections count.
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
    """Return the end of the name of the tenant's newest role of that permission set.

    Deleted connections count. None if the kit made no such role.
    """
    plain = kit_role_name(config.aws.role_prefix, tenant_id)
    of_the_kit = select(Connection.role_arn).where(
        Connection.tenant_id == tenant_id,
        Connection.permission_set == name,
        Connection.role_arn.contains(f"/{plain}", autoescape=True),
    )
    newest = db.scalar(of_the_kit.order_by(Connection.id.desc()).limit(1))
    return newest and newest.rpartition("/")[2].removeprefix(plain)
