"""Trust policies of 8,192 characters, IAM's upper limit, that are as slow to read as possible."""

import json
import string
from typing import Any

_LETTERS = string.ascii_letters + string.digits
_LONGEST = 8_192  # characters, after a customer has asked AWS for more than 2,048
_ALLOW = {
    "Effect": "Allow",
    "Principal": {"AWS": "arn:aws:iam::111122223333:root"},
    "Action": "sts:AssumeRole",
    "Condition": {"StringEquals": {"sts:ExternalId": "dpy-" + "a" * 64}},
}


def _deny(condition: dict[str, Any]) -> dict[str, Any]:
    return {
        "Effect": "Deny",
        "Principal": {"AWS": "*"},
        "Action": "sts:AssumeRole",
        "Condition": condition,
    }


def _ids(count: int) -> list[str]:
    return [f"x{number}" for number in range(count)]


_PATTERNS = {
    "many patterns beside many External IDs": _deny(
        {
            "StringLike": {"sts:ExternalId": [f"*a*b*{number}*" for number in range(250)]},
            "StringEquals": {"sts:ExternalId": _ids(400)},
        }
    ),
    "many stars": _deny(
        {
            "StringLike": {
                "sts:ExternalId": ["*a" * 1_800 + "b"],
                "aws:PrincipalArn": ["*a" * 1_800 + "b"],
            }
        }
    ),
    "many principals' ARNs": _deny(
        {
            "ArnLike": {"aws:PrincipalArn": [f"arn:*:*:*:*:*{number}*" for number in range(180)]},
            "ArnEquals": {
                "aws:PrincipalArn": [f"arn:aws:iam::{number:012}:root" for number in range(90)]
            },
        }
    ),
    "one user id of stars": _deny({"StringLike": {"aws:userid": "AROA" + "*" * 7_800 + ":x:"}}),
    "many user ids": _deny(
        {"StringLike": {"aws:userid": [f"*?:x{number}*" for number in range(650)]}}
    ),
    "many short patterns": _deny(
        {
            "StringNotLike": {
                "aws:PrincipalArn": [f"{a}*{b}" for a in _LETTERS for b in _LETTERS][:1_290]
            }
        }
    ),
    "many characters": _deny(
        {
            "StringLike": {
                "aws:PrincipalArn": [f"*{chr(0x100 + number)}*" for number in range(1_290)]
            }
        }
    ),
}
SLOW_STATEMENTS = tuple(_PATTERNS.values())


def slow_policies() -> dict[str, Any]:
    """Return the policies by the reason for their slowness."""
    tiny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s*",
        "Condition": {"Null": {"sts:ExternalId": "true"}},
    }
    many = [_ALLOW]
    while len(json.dumps([*many, tiny], separators=(",", ":"))) < _LONGEST:
        many.append(tiny)
    return {name: {"Statement": [_ALLOW, deny]} for name, deny in _PATTERNS.items()} | {
        "many statements": {"Statement": many}
    }
