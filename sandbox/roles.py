"""moto's IAM role, taught when its trust policy last changed, which AWS knows and moto does not.

A role that is seconds old, or whose trust policy is, denies everybody while it spreads: the fault "spreading" needs it.
"""

from datetime import UTC, datetime
from typing import Any

from moto.iam.models import Role


class _TrustPolicy:
    """A data descriptor over the attribute: every way of changing it (API, CloudFormation) ends in an assignment."""

    def __get__(self, role: Any, owner: type | None = None) -> Any:
        return self if role is None else role.__dict__["trust_policy"]

    def __set__(self, role: Any, document: str) -> None:
        role.__dict__["trust_policy"] = document
        role.__dict__["trust_changed_at"] = datetime.now(UTC)


def trust_changed_at(role: Any) -> datetime:
    moment: datetime = role.__dict__["trust_changed_at"]
    return moment


def install() -> None:
    Role.assume_role_policy_document = _TrustPolicy()
