"""The trust policy that the kit asks a customer for."""

from typing import Any

from app.ids import Broker


def trust_policy(broker: Broker, external_id: str, *others: str | None) -> dict[str, Any]:
    """Return the policy that lets only the broker assume the role, with this External ID.

    `others`: further External IDs that it accepts, as during a rotation. Its principal is the
    account's root, and a condition names the broker. AWS stores a role or user as principal by its
    unique id, so recreating the broker would break every customer's role. AWS stores condition
    values unchanged.
    """
    accepted: Any = [external_id, *filter(None, others)]
    if len(accepted) == 1:
        accepted = external_id
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:{broker.partition}:iam::{broker.account_id}:root"},
                "Action": "sts:AssumeRole",
                "Condition": {
                    "StringEquals": {"sts:ExternalId": accepted},
                    "ArnEquals": {"aws:PrincipalArn": broker.arn},
                },
            }
        ],
    }
