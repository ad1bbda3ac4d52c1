"""Detect patterns that match everything, in whatever form they are written.

No statement of ours allows all actions on all resources. `dev/check_policies.py` applies the same
rule to the templates.
"""

import re
from collections.abc import Iterable, Mapping
from fnmatch import filter as matching, fnmatchcase
from itertools import product

# Variables of IAM or CloudFormation that restrict nothing in one account.
_ANY = re.compile(
    r"\$\{(AWS::(Partition|Region|AccountId)|aws:((Principal|Resource)Account|RequestedRegion))\}"
)
_ARN_PARTS = 6  # arn, partition, service, region, account, name
_VARIABLE = re.compile(r"\$\{[^}]*\}")
_EC2_ID = re.compile(r"/[a-z]+-[*?]+$")  # matches all ids of one type, such as i-* or snap-*
_NOBODYS = "\0"  # in no name and no pattern, so only a wildcard matches it
_NOBODYS_PATH = f"{_NOBODYS}/{_NOBODYS}"
_REGIONS, _ACCOUNTS = ("", _NOBODYS * 9), ("", _NOBODYS * 12)
_NAMES = (f"{_NOBODYS * 32}/{_NOBODYS * 32}", f"{_NOBODYS * 32}:{_NOBODYS * 32}")


def all_actions(patterns: Iterable[str]) -> list[str]:
    """Return the patterns that match actions of several services, or all actions of one.

    Examples are `*`, `s3:?*` and `*:Get*`.
    """
    wide = []
    for pattern in patterns:
        service, _, name = pattern.partition(":")
        if {"*", "?"} & {*service} or not name.strip("*?"):
            wide.append(pattern)
    return wide


def all_resources(patterns: Iterable[str]) -> list[str]:
    """Return the patterns that name no region, no account and no resource.

    Examples are `*`, `arn:aws:*` and `arn:aws:s3:::*`.
    """
    return list(filter(_is_everything, patterns))


def resources_of(service: str, patterns: Iterable[str]) -> list[str]:
    """Return the patterns that may cover a resource of the service. A parameter may be any ARN."""
    covering = []
    for pattern in patterns:
        parts = _VARIABLE.sub("*", pattern).split(":", 5)
        if len(parts) < _ARN_PARTS or fnmatchcase(service, parts[2]):
            covering.append(pattern)
    return covering


def unnamed_resources(patterns: Iterable[str], arn_names: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the patterns that name no more than a service and a type of resource.

    Examples are `*` and `arn:aws:iam::*:role/*`. `arn_names`: for each service, the names in its
    ARNs, such as `role/${RoleName}` for iam.
    """
    return [pattern for pattern in patterns if _is_unnamed(_ANY.sub("*", pattern), arn_names)]


def _is_unnamed(pattern: str, arn_names: Mapping[str, Iterable[str]]) -> bool:
    parts = pattern.split(":", 5)
    if len(parts) < _ARN_PARTS or {"*", "?"} & {*parts[2]}:
        # A wildcard may match several parts of an ARN, and a parameter may be a whole ARN.
        return bool({"*", "?"} & {*pattern})
    service, name = parts[2], parts[5]
    if service == "ec2":
        name = _EC2_ID.sub("/*", name)
    examples = [*_NAMES]
    for arn_name in arn_names.get(service, ()):
        examples += _VARIABLE.sub(_NOBODYS, arn_name), _VARIABLE.sub(_NOBODYS_PATH, arn_name)
    return bool(matching(examples, name))


def _is_everything(pattern: str) -> bool:
    pattern = _ANY.sub("*", pattern)
    _, partition, service, *_ = (*re.sub(r"[*?]", _NOBODYS, pattern).split(":"), _NOBODYS, _NOBODYS)
    return any(
        fnmatchcase(f"arn:{partition}:{service}:{region}:{account}:{name}", pattern)
        for region, account, name in product(_REGIONS, _ACCOUNTS, _NAMES)
    )
