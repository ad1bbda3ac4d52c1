"""The values that app/aws/role_reader.py reads of a role, as plain data."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from app.aws.errors import StsError
from app.clock import now
from app.ids import RoleArn

Right = tuple[str, str]  # an action, and a resource


class RoleSettings(NamedTuple):
    trust_policy: Any  # parsed JSON; None when it can't be parsed
    max_seconds: int
    boundary: str | None
    permission_set: str | None = None  # the role's tag: its permission set's name and version


class RolePolicies(NamedTuple):
    """The policies of a role: inline ones by name, parsed, and the ARNs of managed ones."""

    inline: Mapping[str, Any]
    managed: tuple[str, ...]


class Decision(NamedTuple):
    """IAM's decision about one right.

    `untold`: condition keys of the role's policies for which we have no value.
    """

    allowed: bool
    denied: bool  # an explicit deny
    by_organization: bool  # denied by the organization's policies
    by_boundary: bool
    untold: frozenset[str]


class RoleView(NamedTuple):
    """The settings and rights of a role, as its own session reads them.

    A part that could not be read is replaced by its error.
    """

    settings: RoleSettings | StsError
    policies: RolePolicies | StsError
    decisions: Mapping[Right, Decision] | StsError


def known_keys(role_arn: RoleArn) -> dict[str, tuple[str, str]]:
    """Return the condition keys whose value is the same for all our requests.

    The result has the type and the value of each key.
    """
    current_time = now().strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "aws:PrincipalAccount": ("string", role_arn.account_id),
        "aws:PrincipalArn": ("string", role_arn.text),
        "aws:ResourceAccount": ("string", role_arn.account_id),
        "aws:SecureTransport": ("boolean", "true"),
        "aws:ViaAWSService": ("boolean", "false"),
        "aws:CurrentTime": ("date", current_time),
        # A policy that revoked older sessions compares it. Ours are opened for the request.
        "aws:TokenIssueTime": ("date", current_time),
    }
