"""What a permission set asks for, beside what a role has: missing, beyond, and unknown. Pure functions."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.aws.role_view import Decision, Right, RolePolicies
from app.connections.trust_policy import comparisons, glob, statements_of, texts
from app.ids import RoleArn
from app.permissions.permission_sets import READS_ITSELF

Cause = Literal["not_granted", "denied", "organization", "boundary", "condition", "pattern", "not_seen"]
_Statement = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gap:
    """A right of the set that the role lacks, or may lack; or a managed policy of the set, with `policy` alone."""

    action: str | None
    resource: str | None
    cause: Cause
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class Beyond:
    """What a policy of the role gives beside the set. Without action and resource: its content is unknown."""

    policy: str
    action: str | None = None
    resource: str | None = None


def rights(statements: Sequence[_Statement], known: Collection[str]) -> tuple[list[Right], list[Gap]]:
    """The set's rights that IAM can be asked about, and the others. `known`: the condition keys that we can fill."""
    askable: dict[Right, None] = {}
    others = []
    for statement in _allowing(statements):
        unfilled = _keys([statement]) - {key.lower() for key in known}
        for action, resource in _pairs(statement):
            if unfilled:
                others.append(Gap(action, resource, "condition"))
            elif {"*", "?"} & set(action) or "${" in resource:  # IAM takes neither, and no parameter
                others.append(Gap(action, resource, "pattern"))
            else:
                askable[action, resource] = None
    return list(askable), others


def gap(right: Right, decision: Decision | None, statements: Sequence[_Statement]) -> Gap | None:
    """What IAM's decision means; None when the role has the right."""
    if decision is None:
        return Gap(*right, "not_seen")
    if decision.allowed:
        return None
    if decision.by_organization:
        return Gap(*right, "organization")
    if decision.by_boundary:
        return Gap(*right, "boundary")
    if decision.denied:
        return Gap(*right, "denied")
    # IAM names the keys of all the role's policies, so also those of the set's other statements.
    return Gap(*right, "condition" if decision.untold - _keys(statements) else "not_granted")


def not_attached(policies: RolePolicies, managed: Collection[str]) -> list[Gap]:
    """`managed`: the ARNs of the set's managed policies."""
    return [Gap(None, None, "not_granted", arn) for arn in managed if arn not in policies.managed]


def beyond(
    policies: RolePolicies, statements: Sequence[_Statement], managed: Collection[str], role: RoleArn
) -> list[Beyond]:
    """What is not plainly a part of the set, or of the kit's policy read-itself."""
    asked_for = [*statements, {"Effect": "Allow", "Action": list(READS_ITSELF), "Resource": role.text}]
    found = []
    for name, document in policies.inline.items():
        parsed = statements_of(document)
        inline = None if parsed is None else list(_allowing(parsed.values()))
        if inline is None or not all({"Action", "Resource"} <= statement.keys() for statement in inline):
            found.append(Beyond(name))
            continue
        found += [
            Beyond(name, *pair)
            for statement in inline
            for pair in _pairs(statement)
            if not any(_covers(asked, pair, statement.get("Condition")) for asked in asked_for)
        ]
    return found + [Beyond(arn) for arn in policies.managed if arn not in managed]


def _allowing(statements: Collection[_Statement]) -> Iterator[_Statement]:
    return (statement for statement in statements if statement["Effect"] == "Allow")


def _pairs(statement: _Statement) -> Iterator[Right]:
    for action in texts(statement["Action"]):
        yield from ((action, resource) for resource in texts(statement["Resource"]))


def _keys(statements: Collection[_Statement]) -> set[str]:
    return {key for statement in statements for _, key, _ in comparisons(statement)}


def _covers(asked: _Statement, pair: Right, condition: object) -> bool:
    """Whether the set's statement gives this too, under no other condition."""
    if asked["Effect"] != "Allow" or asked.get("Condition") not in (None, condition):
        return False
    action, resource = pair
    same_action = any(_includes(one.lower(), action.lower()) for one in texts(asked["Action"]))
    return same_action and any(_includes(one, resource) for one in texts(asked["Resource"]))


def _includes(pattern: str, other: str) -> bool:
    """Whether the pattern matches all that the other one matches; a `?` only as the same text.

    A parameter of the set (`${Bucket}`) has a value that the customer chose, without wildcards and variables.
    """
    glob_of_it, parameters = re.subn(r"\$\{\w+\}", "*", pattern)
    own = {mark: pattern.count(mark) for mark in "*?"} | {"$": pattern.count("$") - parameters}
    if parameters and any(other.count(mark) > number for mark, number in own.items()):
        return False
    return pattern == other or ("?" not in pattern and glob(glob_of_it, other))
