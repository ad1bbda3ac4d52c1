"""The statements of a policy, parsed once: principals, actions and comparisons.

Pure functions of parsed JSON.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_ELEMENTS = {"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Condition"}
_OPERATOR = re.compile(
    r"(?:(forallvalues|foranyvalue):)?(string(?:not)?(?:equals|equalsignorecase|like)|arn(?:not)?(?:equals|like)"
    r"|(?:numeric|date)(?:(?:not)?equals|(?:less|greater)than(?:equals)?)|(?:not)?ipaddress|bool|null)(ifexists)?"
)


class Comparison(NamedTuple):
    """A key under an operator, both in lower case. `values` is empty if they are not understood."""

    operator: str
    key: str
    values: list[str]
    name: str | None = None  # the operator without its negation; None if it is not understood
    negated: bool = False
    quantifier: str | None = None
    if_exists: bool = False


class Statement(NamedTuple):
    """A statement of a trust policy. If a part is not understood, its list is empty."""

    allows: bool
    is_understood: bool  # it has only elements that Deputy knows
    names: list[tuple[str, str]]  # (kind, name) of each principal
    other_names: list[tuple[str, str]]  # the same for NotPrincipal
    has_other_names: bool
    actions: list[str]
    negates_actions: bool
    comparisons: list[Comparison]

    def compared(self, key: str, *operators: str, negated: bool = True) -> set[str]:
        """Return the values that it compares with this key.

        `operators`: only under these, if any are given. `negated`: also values that the key must
        not have.
        """
        parts = [it for it in self.comparisons if it.key == key and (negated or not it.negated)]
        return {
            value
            for it in parts
            if not operators or it.operator in operators
            for value in it.values
        }


def statements_of(policy: object) -> dict[int, dict[str, Any]] | None:
    """Return the statements by their number, from 1; None if they are not understood."""
    found = policy.get("Statement") if isinstance(policy, dict) else None
    statements = [found] if isinstance(found, dict) else found
    if not isinstance(statements, list) or not all(isinstance(it, dict) for it in statements):
        return None
    if any(it.get("Effect") not in ("Allow", "Deny") for it in statements):
        return None
    return dict(enumerate(statements, 1))


def statement_of(statement: dict[str, Any]) -> Statement:
    """Parse a statement of `statements_of`."""
    both = {"Action", "NotAction"} <= statement.keys()
    return Statement(
        allows=statement["Effect"] == "Allow",
        is_understood=statement.keys() <= _ELEMENTS,
        names=_names(statement.get("Principal")),
        other_names=_names(statement.get("NotPrincipal")),
        has_other_names="NotPrincipal" in statement,
        actions=[] if both else texts(statement.get("Action", statement.get("NotAction"))),
        negates_actions="NotAction" in statement,
        comparisons=list(comparisons(statement)),
    )


def _names(principal: object) -> list[tuple[str, str]]:
    if principal == "*":
        return [("AWS", "*")]
    kinds = principal if isinstance(principal, dict) else {}
    return [(kind, name) for kind, names in kinds.items() for name in texts(names)]


def comparisons(statement: dict[str, Any]) -> Iterator[Comparison]:
    """Yield each comparison of its Condition."""
    conditions = statement.get("Condition", {})
    for operator, keys in conditions.items() if isinstance(conditions, dict) else [("", None)]:
        found = _OPERATOR.fullmatch(operator.lower())
        quantifier, name, if_exists = found.groups() if found else (None, "", None)
        kind = name.replace("not", "") or None, "not" in name, quantifier, bool(if_exists)
        for key, values in keys.items() if isinstance(keys, dict) and keys else [("", None)]:
            yield Comparison(operator.lower(), key.lower(), texts(values), *kind)


def texts(value: object) -> list[str]:
    """Return a value or a list of values as texts, as IAM compares them.

    The list is empty if they are not understood.
    """
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | bool | int | float) for item in items):
        return []
    return [str(item).lower() if isinstance(item, bool) else str(item) for item in items]
