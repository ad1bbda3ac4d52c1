"""The statements of a policy: parsed once, with all patterns compiled.

All functions are pure, and take parsed JSON.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

_HEAD = 5  # colons before the last part of an ARN
_ELEMENTS = {"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Condition"}
_OPERATOR = re.compile(
    r"(?:(forallvalues|foranyvalue):)?(string(?:not)?(?:equals|equalsignorecase|like)"
    r"|arn(?:not)?(?:equals|like)"
    r"|(?:numeric|date)(?:(?:not)?equals|(?:less|greater)than(?:equals)?)"
    r"|(?:not)?ipaddress|bool|null)(ifexists)?"
)


class Comparison(NamedTuple):
    """A comparison in a Condition. Its operator and key are in lower case.

    `values` is empty if Deputy does not understand the values.
    """

    operator: str
    key: str
    values: list[str]
    name: str | None  # the operator without its negation; None for an unknown operator
    negated: bool
    quantifier: str | None
    if_exists: bool


class Statement(NamedTuple):
    """A statement of a trust policy.

    If Deputy does not understand a part, the list for that part is empty.
    """

    number: int  # from 1
    allows: bool
    is_understood: bool  # it has only elements that Deputy knows
    names: list[tuple[str, str]]  # (kind, name) of each principal
    other_names: list[tuple[str, str]] | None  # the same for NotPrincipal; None without it
    actions: list[str]
    negates_actions: bool
    comparisons: list[Comparison]

    def compared(self, key: str) -> set[str]:
        """Return the values with which the statement compares this key."""
        return {
            value
            for comparison in self.comparisons
            if comparison.key == key
            for value in comparison.values
        }


def elements_of(policy: object) -> list[dict[str, Any]] | None:
    """Return a policy's statements as dictionaries; None if the policy is not understood."""
    statements = policy.get("Statement") if isinstance(policy, dict) else None
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list):
        return None
    for statement in statements:
        if not isinstance(statement, dict) or statement.get("Effect") not in ("Allow", "Deny"):
            return None
    return statements


def statements_of(policy: object) -> list[Statement] | None:
    """Parse the statements of a trust policy. Returns None if the policy is not understood."""
    elements = elements_of(policy)
    if elements is None:
        return None
    return [_parsed(number, statement) for number, statement in enumerate(elements, 1)]


def _parsed(number: int, statement: dict[str, Any]) -> Statement:
    negates_actions = "NotAction" in statement
    actions = texts(statement.get("NotAction" if negates_actions else "Action"))
    if negates_actions and "Action" in statement:
        actions = []
    other_names = _names(statement["NotPrincipal"]) if "NotPrincipal" in statement else None
    return Statement(
        number,
        statement["Effect"] == "Allow",
        statement.keys() <= _ELEMENTS,
        _names(statement.get("Principal")),
        other_names,
        actions,
        negates_actions,
        list(comparisons(statement)),
    )


def _names(principal: object) -> list[tuple[str, str]]:
    if principal == "*":
        return [("AWS", "*")]
    pairs: list[tuple[str, str]] = []
    if isinstance(principal, dict):
        for kind, names in principal.items():
            pairs.extend((kind, name) for name in texts(names))
    return pairs


def comparisons(statement: dict[str, Any]) -> Iterator[Comparison]:
    """Yield each comparison in the Condition of a statement."""
    conditions = statement.get("Condition", {})
    if not isinstance(conditions, dict):
        conditions = {"": None}
    for operator, tests in conditions.items():
        match = _OPERATOR.fullmatch(operator.lower())
        quantifier, name, if_exists = match.groups() if match else (None, "", None)
        kind = name.replace("not", "") or None, "not" in name, quantifier, bool(if_exists)
        keys = tests if isinstance(tests, dict) and tests else {"": None}
        for key, values in keys.items():
            yield Comparison(operator.lower(), key.lower(), texts(values), *kind)


def texts(value: object) -> list[str]:
    """Return a value, or a list of values, as a list of strings in the form that IAM compares.

    The list is empty if a value is not a string, a number or a boolean.
    """
    result = []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, bool):
            result.append(str(item).lower())
        elif isinstance(item, str | int | float):
            result.append(str(item))
        else:
            return []
    return result


class Globs:
    """Compiled patterns with the wildcards `*` and `?`. A text is compared with all at once.

    All patterns form one automaton, so nothing backtracks. Each character of a pattern is a state,
    and each state is one bit of an integer. Each character of a text advances all states with four
    operations on that integer.

    `patterns`: pairs of a pattern and whether it is for ARNs. ARNs are compared part by part, so a
    wildcard matches no colon before the last part.
    """

    def __init__(self, patterns: Iterable[tuple[str, bool]]) -> None:
        # The bit of each pattern in the result of `matching`
        self.accepting: dict[tuple[str, bool], int] = {}
        self._start = self._stay = self._any = self._stay_at_colon = self._any_at_colon = 0
        # For each character, the bits of the states that advance on it
        self._next: defaultdict[str, int] = defaultdict(int)
        offset = 0
        for pattern in dict.fromkeys(patterns):
            offset = self._add(*pattern, offset)
            self.accepting[pattern] = 1 << offset
            offset += 1
        self._all = sum(self.accepting.values())
        self._moves = {character: bits | self._any for character, bits in self._next.items()}
        self._moves[":"] = self._next.get(":", 0) | self._any_at_colon

    # The first two arguments are one item of `patterns`.
    def _add(self, pattern: str, is_arn: bool, offset: int) -> int:  # noqa: FBT001
        """Add a pattern's states from the bit `offset` on, and return the bit of its last state."""
        self._start |= 1 << offset
        colons = 0
        for character in pattern:
            bit = 1 << offset
            crosses = not is_arn or colons >= _HEAD
            if character == "*":
                self._stay |= bit
                self._stay_at_colon |= bit if crosses else 0
                continue
            if character == "?":
                self._any |= bit
                self._any_at_colon |= bit if crosses else 0
            else:
                self._next[character] |= bit
                colons += character == ":"
            offset += 1
        return offset

    def matching(self, text: str) -> int:
        """Return the bits of the patterns that match the whole text."""
        return self.states_after(text) & self._all

    def states_after(self, text: str) -> int:
        """Return the bits of the states after this text; 0 if no match can begin with it."""
        states, move = self._start, self._moves.get
        for character in text:
            stay = self._stay_at_colon if character == ":" else self._stay
            states = (states & move(character, self._any)) << 1 | states & stay
            if not states:
                break
        return states
