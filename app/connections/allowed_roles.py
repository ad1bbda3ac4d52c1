"""Decide which roles Deputy may assume, before any call to AWS.

This is invariant 7 of docs/architecture.md.
"""

from uuid import UUID

from sqlalchemy import exists, select
from sqlalchemy.orm import aliased

from app.config import Config
from app.errors import AccountClosedError, RoleNotAllowedError, ValidationFailedError
from app.ids import RoleArn
from app.store.database import Session
from app.store.models import Connection, ConnectionStatus

OWN_ACCOUNT = "A role in one of the vendor's own accounts is never assumed."
# AWS services and IAM Identity Center own the roles under these paths.
_RESERVED_PATHS = ("/aws-service-role/", "/aws-reserved/")


def allowed_role(config: Config, text: str, *, imported: bool = False) -> RoleArn:
    """Parse a role's ARN, and return it if Deputy may assume that role.

    `imported`: the operator imports it, so its name may be one of IMPORTED_ROLE_NAMES. Raises
    ValidationFailedError or RoleNotAllowedError.
    """
    try:
        role = RoleArn.parse(text)
    except ValueError as error:
        raise ValidationFailedError(role_arn=str(error)) from error
    if role.partition != config.aws.broker.partition:
        raise RoleNotAllowedError(
            f"The role is in the partition {role.partition}. This deployment serves the partition"
            f" {config.aws.broker.partition}, and no role can be assumed across partitions."
        )
    if role.account_id in config.own_accounts:
        raise RoleNotAllowedError(f"{OWN_ACCOUNT} It must be in the customer's account.")
    if role.path.startswith(_RESERVED_PATHS):
        raise RoleNotAllowedError("Service-linked and AWS-reserved roles are never assumed.")
    if imported and role.name in config.aws.imported_role_names:
        return role
    if not role.name.startswith(config.aws.role_prefix):
        named = ", or be in DEPUTY_IMPORTED_ROLE_NAMES" if imported else ""
        raise RoleNotAllowedError(
            f"The role's name must start with {config.aws.role_prefix}{named}"
        )
    return role


def ensure_account_open(db: Session, tenant_id: UUID, account_id: str) -> None:
    """Raise AccountClosedError if the vendor has suspended a connection in this account.

    Such an account is closed to everybody but the vendor. Otherwise the tenant could evade the
    suspension with another role in the account.
    """
    suspended = select(Connection.id).where(
        Connection.tenant_id == tenant_id,
        Connection.account_id == account_id,
        Connection.status == ConnectionStatus.SUSPENDED,
        Connection.suspended_at.is_not(None),
        Connection.suspended_by_bound.is_not(True),
    )
    if db.scalar(suspended.limit(1)) is not None:
        raise AccountClosedError("suspended", "resume it")


def ensure_not_removed(db: Session, tenant_id: UUID, account_id: str) -> None:
    """Raise AccountClosedError if the vendor has deleted a connection in this account.

    For the same reason, nobody else adds a role in it until the vendor has added one.
    """
    deleted, later = aliased(Connection), aliased(Connection)
    added_since = exists().where(
        later.tenant_id == tenant_id,
        later.account_id == account_id,
        later.created_at > deleted.deleted_at,
    )
    by_vendor = select(deleted.id).where(
        deleted.tenant_id == tenant_id,
        deleted.account_id == account_id,
        deleted.status == ConnectionStatus.DELETED,
        deleted.deleted_by_bound.is_not(True),
        ~added_since,
    )
    if db.scalar(by_vendor.limit(1)) is not None:
        raise AccountClosedError("deleted", "connect a role in it")
