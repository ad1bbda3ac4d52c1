"""What a role says of itself, as plain values: app/aws/own_role.py asks it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.aws.errors import StsError
from app.clock import now
from app.ids import RoleArn

TrustPolicy = Any  # parsed JSON; None when it is not JSON as we read it
Right = tuple[str, str]  # an action, and a resource


@dataclass(frozen=True, slots=True)
class RoleSettings:
    trust_policy: TrustPolicy
    max_seconds: int
    boundary: str | None
    permission_set: str | None = None  # its tag: the set's name and version


@dataclass(frozen=True, slots=True)
class RolePolicies:
    """What is attached to a role: its inline policies by name, parsed, and the ARNs of its managed policies."""

    inline: Mapping[str, Any]
    managed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What IAM says of one right. `untold`: the condition keys that the role's policies compare, and we could not fill."""

    allowed: bool
    denied: bool  # a statement says so
    by_organization: bool  # its policies do not let the role have it
    by_boundary: bool
    untold: frozenset[str]


@dataclass(frozen=True, slots=True)
class RoleView:
    """What a role says of itself. Instead of each part there may be the reason why it was not seen."""

    settings: RoleSettings | StsError
    policies: RolePolicies | StsError
    decisions: Mapping[Right, Decision] | StsError


def known_keys(role_arn: RoleArn) -> dict[str, tuple[str, str]]:
    """The condition keys whose value is the same for each request of ours: the type and the value."""
    return {
        "aws:PrincipalAccount": ("string", role_arn.account_id),
        "aws:PrincipalArn": ("string", role_arn.text),
        "aws:ResourceAccount": ("string", role_arn.account_id),
        "aws:SecureTransport": ("boolean", "true"),
        "aws:ViaAWSService": ("boolean", "false"),
        "aws:CurrentTime": ("date", now().strftime("%Y-%m-%dT%H:%M:%SZ")),
    }
