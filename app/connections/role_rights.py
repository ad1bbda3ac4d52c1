"""What a permission set asks for, beside what a role has: missing, beyond, and unknown. Pure functions."""

import fnmatch
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from app.aws.role_view import Decision, Right, RolePolicies
from app.connections.policy_statements import comparisons, statements_of, texts
from app.ids import RoleArn
from app.permissions.permission_sets import READS_ITSELF

Cause = Literal["not_granted", "denied", "organization", "boundary", "condition", "pattern", "not_seen"]
_Statement = dict[str, Any]
# Rights of one role that are compared: AWS lets 10,240 characters of inline policies name 100,000 pairs of an action
# and a resource, and the comparison would hold up every other request of the process.
_MOST_COMPARED = 1_000


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
        for action, resource in product(texts(statement["Action"]), texts(statement["Resource"])):
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
    """What is not plainly a part of the set, or of the kit's policy read-itself.

    From the policy on that takes the role's rights past `_MOST_COMPARED`, the content of policies is unknown.
    """
    reads_itself = {"Effect": "Allow", "Action": list(READS_ITSELF), "Resource": role.text}
    asked_for = [_AskedFor(it) for it in _allowing([*statements, reads_itself])]
    found = []
    compared = 0
    for name, document in policies.inline.items():
        parsed = statements_of(document)
        inline = None if parsed is None else list(_allowing(parsed.values()))
        if inline is not None and all({"Action", "Resource"} <= statement.keys() for statement in inline):
            compared += sum(len(texts(it["Action"])) * len(texts(it["Resource"])) for it in inline)
            if compared <= _MOST_COMPARED:
                found += [Beyond(name, *pair) for statement in inline for pair in _uncovered(statement, asked_for)]
                continue
        found.append(Beyond(name))
    return found + [Beyond(arn) for arn in policies.managed if arn not in managed]


class _AskedFor:
    """A statement of the set, with its patterns compiled once: a customer's policy may hold a thousand rights."""

    def __init__(self, statement: _Statement) -> None:
        self._condition = statement.get("Condition")
        self._actions = [_Pattern(action.lower()) for action in texts(statement["Action"])]
        self._resources = [_Pattern(resource) for resource in texts(statement["Resource"])]

    def gives(self, action: str, condition: object) -> bool:
        """Whether it gives the action on some resource, under no other condition."""
        return self._condition in (None, condition) and any(it.includes(action.lower()) for it in self._actions)

    def on(self, resource: str) -> bool:
        return any(it.includes(resource) for it in self._resources)


def _uncovered(statement: _Statement, asked_for: Sequence[_AskedFor]) -> Iterator[Right]:
    """The pairs of a role's statement that no statement of the set gives."""
    resources = texts(statement["Resource"])
    covered = [{resource for resource in resources if it.on(resource)} for it in asked_for]
    for action in texts(statement["Action"]):
        giving = [on for it, on in zip(asked_for, covered, strict=True) if it.gives(action, statement.get("Condition"))]
        yield from ((action, resource) for resource in resources if not any(resource in on for on in giving))


def _allowing(statements: Collection[_Statement]) -> Iterator[_Statement]:
    return (statement for statement in statements if statement["Effect"] == "Allow")


def _keys(statements: Collection[_Statement]) -> set[str]:
    return {it.key for statement in statements for it in comparisons(statement)}


class _Pattern:
    """A pattern of the set: an action in small letters, or a resource.

    A parameter of the set (`${Bucket}`) has a value that the customer chose, without wildcards and variables.
    """

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        glob_of_it, parameters = re.subn(r"\$\{\w+\}", "*", pattern)
        self._own = {mark: pattern.count(mark) for mark in "*?"} | {"$": pattern.count("$") - parameters}
        self._has_parameters = parameters > 0
        # fnmatch's expressions never go back over what they have matched.
        expression = re.compile(fnmatch.translate(glob_of_it.replace("[", "[[]")))
        self._matches = None if "?" in pattern else expression.fullmatch

    def includes(self, other: str) -> bool:
        """Whether it matches all that the other pattern matches; a `?` only as the same text."""
        if self._has_parameters and any(other.count(mark) > number for mark, number in self._own.items()):
            return False
        return self._text == other or (self._matches is not None and self._matches(other) is not None)
