"""Compare a role's rights with its permission set: missing, additional and unknown rights.

All functions are pure.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Literal

from app.aws.role_view import Decision, Right, RolePolicies
from app.ids import RoleArn
from app.permissions.permission_sets import READS_ITSELF
from app.proofs.policy_statements import Globs, comparisons, elements_of, texts
from app.strict_json import JsonObject

Cause = Literal[
    "not_granted", "denied", "organization", "boundary", "condition", "pattern", "not_seen"
]
# Maximum number of a role's rights that are compared. The 10,240 characters that AWS allows for
# inline policies can name 100,000 pairs of an action and a resource. Comparing so many would block
# every other request of the process.
_MOST_COMPARED = 1_000
_MOST_CHARACTERS = 10_240  # maximum in these rights; AWS's limit ignores white space
# Maximum in all pairs and their policies' names: an answer repeats a resource of 5,000 characters
# for each of 500 actions.
_MOST_ANSWERED = 230_000


@dataclass(frozen=True)
class Gap:
    """A right of the permission set that the role lacks or may lack.

    If it has only `policy`, the role lacks a managed policy of the permission set.
    """

    action: str | None
    resource: str | None
    cause: Cause
    policy: str | None = None


@dataclass(frozen=True)
class Beyond:
    """A right that a policy of the role gives, but the permission set does not have.

    Without action and resource, the policy's content is unknown.
    """

    policy: str
    action: str | None = None
    resource: str | None = None


def rights(statements: Sequence[JsonObject], keys: Iterable[str]) -> tuple[list[Right], list[Gap]]:
    """Return the permission set's rights that IAM can simulate, and the others as gaps.

    `keys`: the condition keys for which Deputy has a value.
    """
    askable: dict[Right, None] = {}
    others = []
    known_keys = set(map(str.lower, keys))
    for statement in _allowing(statements):
        has_unknown_key = not known_keys.issuperset(_keys([statement]))
        for action, resource in product(texts(statement["Action"]), texts(statement["Resource"])):
            if has_unknown_key:
                others.append(Gap(action, resource, "condition"))
            elif re.search("[*?]", action) or "${" in resource:
                # IAM's simulation accepts no wildcard in an action, and no variable or parameter in
                # a resource.
                others.append(Gap(action, resource, "pattern"))
            else:
                askable[action, resource] = None
    return list(askable), others


def gap(right: Right, decision: Decision | None, statements: Sequence[JsonObject]) -> Gap | None:
    """Return the gap that IAM's decision shows, or None if the role has the right."""
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
    # IAM lists the missing condition keys of all the role's policies. Those of the permission set's
    # own statements are expected, so they do not count.
    return Gap(*right, "condition" if decision.untold - _keys(statements) else "not_granted")


def beyond(
    policies: RolePolicies,
    statements: Sequence[JsonObject],
    managed: Collection[str],
    role: RoleArn,
) -> list[Beyond]:
    """Return the role's rights that are not plainly in its permission set or in read-itself.

    read-itself is a policy of the kit. If the role's policies exceed the limits of this comparison,
    the content of the remaining policies is unknown.
    """
    reads_itself = {"Effect": "Allow", "Action": list(READS_ITSELF), "Resource": role.text}
    asked_for = _AskedFor(_allowing([*statements, reads_itself]))
    result = []
    pairs = characters = answered = 0
    for name, document in policies.inline.items():
        allowed = _allowed_by(document)
        for actions, resources, _ in allowed or ():
            count = len(actions) * len(resources)
            of_actions, of_resources = len("".join(actions)), len("".join(resources))
            pairs += count
            characters += of_actions + of_resources
            answered += of_actions * len(resources) + of_resources * len(actions)
            answered += count * len(name)
        is_large = characters > _MOST_CHARACTERS or answered > _MOST_ANSWERED
        if allowed is None or pairs > _MOST_COMPARED or is_large:
            result.append(Beyond(name))
            continue
        for rights_of_statement in allowed:
            result += [Beyond(name, *right) for right in asked_for.without(*rights_of_statement)]
    return result + [Beyond(arn) for arn in policies.managed if arn not in managed]


_Rights = tuple[list[str], list[str], object]  # actions, resources, condition


def _allowed_by(document: object) -> list[_Rights] | None:
    """Return the rights in a policy's Allow statements; None if the policy is not understood."""
    parsed = elements_of(document)
    if parsed is None:
        return None
    allowed = []
    for statement in _allowing(parsed):
        if not {"Action", "Resource"} <= statement.keys():
            return None
        allowed.append(_rights_of(statement))
    return allowed


def _rights_of(statement: JsonObject) -> _Rights:
    return texts(statement["Action"]), texts(statement["Resource"]), statement.get("Condition")


class _AskedFor:
    """The Allow statements of a permission set, with all their patterns compiled.

    A parameter such as `${Bucket}` stands for a value that the customer chose. It has no wildcards
    and no variables.
    """

    def __init__(self, statements: Iterable[JsonObject]) -> None:
        # The actions in lower case, the resources and the condition of each statement
        self._each: list[tuple[set[str], set[str], object]] = []
        patterns, self._exact = set[str](), set[str]()
        for actions, resources, condition in map(_rights_of, statements):
            names = set(map(str.lower, actions))
            self._each.append((names, set(resources), condition))
            patterns.update(names, resources)
        globs: dict[str, list[tuple[str, dict[str, int]]]] = defaultdict(list)
        for pattern in patterns:
            glob, parameters = re.subn(r"\$\{\w+\}", "*", pattern)
            most = {}
            if parameters:
                variables = pattern.count("$") - parameters
                most = {"*": pattern.count("*"), "?": 0, "$": variables}
            else:
                self._exact.add(pattern)
            if "?" not in pattern:
                globs[glob].append((pattern, most))
        self._globs = Globs((glob, False) for glob in globs)
        self._of_bit = {bit: globs[glob] for (glob, _), bit in self._globs.accepting.items()}

    def without(
        self, actions: list[str], resources: list[str], condition: object
    ) -> Iterator[Right]:
        """Yield each pair of an action and a resource that no statement covers.

        A statement covers a pair only if its condition is empty or equals `condition`.
        """
        including = {resource: self._including(resource) for resource in resources}
        for action in actions:
            names, given = self._including(action.lower()), set[str]()
            for set_actions, set_resources, only_if in self._each:
                if only_if in (None, condition) and names & set_actions:
                    given |= set_resources
            for resource in resources:
                if given.isdisjoint(including[resource]):
                    yield action, resource

    def _including(self, other: str) -> set[str]:
        """Return the patterns that match everything that `other` matches.

        A pattern with a `?` is returned only if it equals `other`.
        """
        including = {other} & self._exact
        matched = self._globs.matching(other)
        while matched:
            bit = matched & -matched
            matched ^= bit
            for pattern, most in self._of_bit[bit]:
                if all(other.count(mark) <= number for mark, number in most.items()):
                    including.add(pattern)
        return including


def _allowing(statements: Iterable[JsonObject]) -> Iterator[JsonObject]:
    return (statement for statement in statements if statement["Effect"] == "Allow")


def _keys(statements: Iterable[JsonObject]) -> set[str]:
    return {comparison.key for comparison in chain(*map(comparisons, statements))}
