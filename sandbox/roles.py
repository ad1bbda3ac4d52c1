"""moto's IAM role, extended with the time of the last change of its trust policy; and the policies that roles attach.

The fault "spreading" needs it: a new role, or one with a new trust policy, denies every call until IAM has propagated
it.
"""

import json
from datetime import UTC, datetime
from functools import cache
from typing import Any

from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.models import AWSManagedPolicy, Role, iam_backends


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


def managed_policy(account_id: str, arn: str) -> Any:
    """The account's own, or AWS's: of those moto holds over a thousand, too many to load into each account."""
    own = iam_backends[account_id]["aws"].managed_policies.get(arn)
    return _aws_managed_policies(account_id).get(arn) if own is None else own


@cache
def _aws_managed_policies(account_id: str) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(aws_managed_policies_data)
    policies = [AWSManagedPolicy.from_data(name, account_id, "us-east-1", data) for name, data in known.items()]
    return {policy.arn: policy for policy in policies}


def install() -> None:
    Role.assume_role_policy_document = _TrustPolicy()
