"""The rights of a role compared with its permission set: missing, beyond, and unknown.

Pure functions.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any, Literal

from app.aws.role_view import Decision, Right, RolePolicies
from app.ids import RoleArn
from app.permissions.permission_sets import READS_ITSELF
from app.proofs.globs import Globs
from app.proofs.policy_statements import comparisons, elements_of, texts

Cause = Literal[
    "not_granted", "denied", "organization", "boundary", "condition", "pattern", "not_seen"
]
_Statement = dict[str, Any]
# The number of rights of one role that are compared. AWS lets 10,240 characters of inline policies
# name 100,000 pairs of an action and a resource, and comparing them would hold up every other
# request of the process.
_MOST_COMPARED = 1_000
_MOST_CHARACTERS = 10_240  # in all their texts; AWS does not count white space in its limit


@dataclass(frozen=True, slots=True)
class Gap:
    """A right of the set that the role lacks or may lack.

    It is a managed policy of the set if only `policy` is given.
    """

    action: str | None
    resource: str | None
    cause: Cause
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class Beyond:
    """A right that a policy of the role gives beyond the set.

    Without action and resource, the policy's content is unknown.
    """

    policy: str
    action: str | None = None
    resource: str | None = None


def rights(
    statements: Sequence[_Statement], known: Collection[str]
) -> tuple[list[Right], list[Gap]]:
    """Return the set's rights that IAM can be asked about, and the others as gaps.

    `known`: the condition keys for which Deputy has a value.
    """
    askable: dict[Right, None] = {}
    others = []
    for statement in _allowing(statements):
        unfilled = _keys([statement]) - {key.lower() for key in known}
        for action, resource in product(texts(statement["Action"]), texts(statement["Resource"])):
            if unfilled:
                others.append(Gap(action, resource, "condition"))
            elif {"*", "?"} & set(
                action
            ) or "${" in resource:  # IAM accepts neither, and no parameter
                others.append(Gap(action, resource, "pattern"))
            else:
                askable[action, resource] = None
    return list(askable), others


def gap(right: Right, decision: Decision | None, statements: Sequence[_Statement]) -> Gap | None:
    """Return the gap that IAM's decision means, or None when the role has the right."""
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
    # IAM names the keys of all the role's policies, including those of the set's other statements.
    return Gap(*right, "condition" if decision.untold - _keys(statements) else "not_granted")


def not_attached(policies: RolePolicies, managed: Collection[str]) -> list[Gap]:
    """Return the set's managed policies that the role lacks. `managed`: their ARNs."""
    return [Gap(None, None, "not_granted", arn) for arn in managed if arn not in policies.managed]


def beyond(
    policies: RolePolicies,
    statements: Sequence[_Statement],
    managed: Collection[str],
    role: RoleArn,
) -> list[Beyond]:
    """Return the rights that are not plainly part of the set, or of the kit's policy read-itself.

    Once the role's policies exceed the limits of this comparison, the content of the others is
    unknown.
    """
    reads_itself = {"Effect": "Allow", "Action": list(READS_ITSELF), "Resource": role.text}
    asked_for = _AskedFor(list(_allowing([*statements, reads_itself])))
    found = []
    compared = characters = 0
    for name, document in policies.inline.items():
        parsed = elements_of(document)
        inline = None if parsed is None else list(_allowing(parsed))
        if inline is not None and all(
            {"Action", "Resource"} <= statement.keys() for statement in inline
        ):
            named = [
                (texts(it["Action"]), texts(it["Resource"]), it.get("Condition")) for it in inline
            ]
            compared += sum(len(actions) * len(resources) for actions, resources, _ in named)
            characters += sum(
                len(text) for actions, resources, _ in named for text in (*actions, *resources)
            )
            if compared <= _MOST_COMPARED and characters <= _MOST_CHARACTERS:
                found += [
                    Beyond(name, *pair) for rights in named for pair in asked_for.without(*rights)
                ]
                continue
        found.append(Beyond(name))
    return found + [Beyond(arn) for arn in policies.managed if arn not in managed]


class _AskedFor:
    """The set's Allow statements, with all their patterns compiled once."""

    def __init__(self, statements: Sequence[_Statement]) -> None:
        actions = [frozenset(map(str.lower, texts(it["Action"]))) for it in statements]
        resources = [frozenset(texts(it["Resource"])) for it in statements]
        self._each = list(
            zip(actions, resources, (it.get("Condition") for it in statements), strict=True)
        )
        self._actions, self._resources = _Patterns(chain(*actions)), _Patterns(chain(*resources))

    def without(
        self, actions: list[str], resources: list[str], condition: object
    ) -> Iterator[Right]:
        """Yield the pairs that no statement gives, either without a condition or under this one."""
        including = {it: self._resources.including(it) for it in resources}
        covered = [
            {it for it in including if not on.isdisjoint(including[it])} for _, on, _ in self._each
        ]
        for action in actions:
            names = self._actions.including(action.lower())
            giving = [
                covers
                for (of, _, only_if), covers in zip(self._each, covered, strict=True)
                if only_if in (None, condition) and not of.isdisjoint(names)
            ]
            yield from (
                (action, resource)
                for resource in resources
                if not any(resource in on for on in giving)
            )


def _allowing(statements: Collection[_Statement]) -> Iterator[_Statement]:
    return (statement for statement in statements if statement["Effect"] == "Allow")


def _keys(statements: Collection[_Statement]) -> set[str]:
    return {it.key for statement in statements for it in comparisons(statement)}


class _Patterns:
    """Patterns of the set: actions in lower case, or resources.

    A parameter of the set (`${Bucket}`) has a value that the customer chose, without wildcards and
    variables.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._exact: set[str] = set()
        globs: dict[str, list[tuple[str, dict[str, int]]]] = {}
        for pattern in {*patterns}:
            glob, parameters = re.subn(r"\$\{\w+\}", "*", pattern)
            marks = {mark: pattern.count(mark) for mark in "*?"} | {
                "$": pattern.count("$") - parameters
            }
            if not parameters:
                self._exact.add(pattern)
            if "?" not in pattern:
                globs.setdefault(glob, []).append((pattern, marks if parameters else {}))
        self._globs = Globs((glob, False) for glob in globs)
        self._of_bit = {bit: globs[glob] for (glob, _), bit in self._globs.accepting.items()}

    def including(self, other: str) -> set[str]:
        """Return the patterns that match everything that the other pattern matches.

        A pattern with a `?` is included only if it is the same.
        """
        found = {other} & self._exact
        matched = self._globs.matching(other)
        while matched:
            bit = matched & -matched
            matched ^= bit
            for pattern, marks in self._of_bit[bit]:
                if all(other.count(mark) <= number for mark, number in marks.items()):
                    found.add(pattern)
        return found
