"""Additions to moto's IAM roles: attached policies, and the time of the last trust policy change.

The fault "spreading" needs the time. With it, a new role or a changed trust policy denies every
call until IAM has propagated the change.
"""

import json
from datetime import UTC, datetime
from functools import cache
from typing import Any

from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.exceptions import NotFoundException
from moto.iam.models import AWSManagedPolicy, IAMBackend, Role, iam_backends


class _TrustPolicy:
    """A data descriptor for a role's trust policy, which records the time of each change.

    Every change, by the API or by CloudFormation, assigns the attribute.
    """

    def __get__(self, role: Any, owner: type | None = None) -> Any:
        return self if role is None else role.__dict__["trust_policy"]

    def __set__(self, role: Any, document: str) -> None:
        role.__dict__["trust_policy"] = document
        role.__dict__["trust_changed_at"] = datetime.now(UTC)


def trust_changed_at(role: Any) -> datetime:
    moment: datetime = role.__dict__["trust_changed_at"]
    return moment


def managed_policy(account_id: str, arn: str) -> Any:
    """Return the account's own managed policy, or AWS's.

    moto has over a thousand of AWS's policies, too many to load into each account.
    """
    own = iam_backends[account_id]["aws"].managed_policies.get(arn)
    return _aws_managed_policies(account_id).get(arn) if own is None else own


def attachable(account_id: str, kind: str, arn: str) -> Any:
    """Return the managed policy with this ARN.

    Raises NotFoundException, whose text begins with `kind`, if there is none.
    """
    policy = managed_policy(account_id, arn)
    if policy is None:
        raise NotFoundException(f"{kind} {arn} does not exist or is not attachable.")
    return policy


def _attach_role_policy(self: Any, policy_arn: str, role_name: str) -> None:
    role, policy = self.get_role(role_name), attachable(self.account_id, "Policy", policy_arn)
    if policy_arn not in role.managed_policies:
        policy.attach_to(role)


def _detach_role_policy(self: Any, policy_arn: str, role_name: str) -> None:
    role = self.get_role(role_name)
    if policy_arn not in role.managed_policies:
        raise NotFoundException(f"Policy {policy_arn} was not found.")
    role.managed_policies[policy_arn].detach_from(role)


@cache
def _aws_managed_policies(account_id: str) -> dict[str, Any]:
    policies = {}
    for name, data in json.loads(aws_managed_policies_data).items():
        policy = AWSManagedPolicy.from_data(name, account_id, "us-east-1", data)
        policies[policy.arn] = policy
    return policies


def install() -> None:
    Role.assume_role_policy_document = _TrustPolicy()
    IAMBackend.attach_role_policy = _attach_role_policy
    IAMBackend.detach_role_policy = _detach_role_policy
