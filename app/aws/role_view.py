"""What a role says of itself, as plain values: app/aws/own_role.py asks it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from app.aws.errors import StsError
from app.clock import now
from app.ids import RoleArn

TrustPolicy = Any  # parsed JSON; None when it is not JSON as we read it
Right = tuple[str, str]  # an action, and a resource


class RoleSettings(NamedTuple):
    trust_policy: TrustPolicy
    max_seconds: int
    boundary: str | None
    permission_set: str | None = None  # its tag: the set's name and version


class RolePolicies(NamedTuple):
    """What is attached to a role: its inline policies by name, parsed, and the ARNs of its
    managed policies.
    """

    inline: Mapping[str, Any]
    managed: tuple[str, ...]


class Decision(NamedTuple):
    """What IAM says of one right. `untold`: the condition keys that the role's policies compare,
    and we could not fill.
    """

    allowed: bool
    denied: bool  # a statement says so
    by_organization: bool  # its policies do not let the role have it
    by_boundary: bool
    untold: frozenset[str]


class RoleView(NamedTuple):
    """What a role says of itself. Instead of each part there may be the reason why it was not
    seen.
    """

    settings: RoleSettings | StsError
    policies: RolePolicies | StsError
    decisions: Mapping[Right, Decision] | StsError


def known_keys(role_arn: RoleArn) -> dict[str, tuple[str, str]]:
    """The condition keys whose value is the same for each request of ours: the type and the
    value.
    """
    return {
        "aws:PrincipalAccount": ("string", role_arn.account_id),
        "aws:PrincipalArn": ("string", role_arn.text),
        "aws:ResourceAccount": ("string", role_arn.account_id),
        "aws:SecureTransport": ("boolean", "true"),
        "aws:ViaAWSService": ("boolean", "false"),
        "aws:CurrentTime": ("date", now().strftime("%Y-%m-%dT%H:%M:%SZ")),
    }
