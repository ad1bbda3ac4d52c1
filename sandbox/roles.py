"""moto's IAM role, extended with the time of the last change of its trust policy.

The fault "spreading" needs it: a new role, or one with a new trust policy, denies every call until IAM has propagated
it.
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
