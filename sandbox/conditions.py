"""The Condition element of an IAM policy, evaluated as IAM does.

If IAM's result is unknown, the policy is rejected. Most important is an operator's result for a key
that the request does not have, because trust policies go wrong there. A plain operator is false,
a negated one true, `…IfExists` and `ForAllValues:` true, `ForAnyValue:` false.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

# Keys in lower case: AWS ignores the case of condition keys, but not of their values.
Context = Mapping[str, str]
Test = Callable[[str, str], bool]


class UnsupportedPolicy(Exception):  # noqa: N818 - it reads as a statement about the policy
    """A policy that the sandbox cannot evaluate.

    It is an error, because a guess would make a test or a demo wrong.
    """


_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_LITERALS = {"*", "?", "$"}  # `${*}` is a literal star in a policy


class Values:
    """Converts the text of one policy to patterns.

    Policy variables are replaced, except before version 2012-10-17.
    """

    def __init__(self, context: Context, *, variables: bool) -> None:
        self._context = context
        self._variables = variables

    def glob(self, pattern: str) -> re.Pattern[str]:
        """Compile a pattern with the wildcards `*` and `?`. A variable's value is literal."""
        return re.compile("".join(self._parts(pattern, _wildcards)), re.DOTALL)

    def literal(self, text: str) -> str:
        return "".join(part for part in self._parts(text, str, str))

    def _parts(
        self, text: str, fixed: Callable[[str], str], inserted: Callable[[str], str] = re.escape
    ) -> list[str]:
        if not self._variables:
            return [fixed(text)]
        # `split` with one group alternates fixed text (even indexes) and variables' names (odd
        # indexes).
        pieces = _VARIABLE.split(text)
        return [
            inserted(self._lookup(piece)) if n % 2 else fixed(piece)
            for n, piece in enumerate(pieces)
        ]

    def _lookup(self, name: str) -> str:
        if name in _LITERALS:
            return name
        value = self._context.get(name.strip().lower())
        if value is None:
            msg = f"the sandbox has no value for the policy variable ${{{name}}}"
            raise UnsupportedPolicy(msg)
        return value


def _wildcards(text: str) -> str:
    return re.escape(text).replace(r"\*", ".*").replace(r"\?", ".")


def holds(conditions: Any, context: Context, values: Values) -> bool:
    """Return True if the condition of every key of every operator holds."""
    return all(
        _key_holds(operator, key, _texts(wanted), context.get(key.lower()), values)
        for operator, tests in _mapping(conditions, "Condition").items()
        for key, wanted in _mapping(tests, operator).items()
    )


def compared_keys(conditions: Any) -> set[str]:
    """Return the keys that the element compares, in lower case."""
    return {
        key.lower()
        for tests in _mapping(conditions, "Condition").values()
        for key in _mapping(tests, "its tests")
    }


def _key_holds(
    operator: str, key: str, wanted: list[str], have: str | None, values: Values
) -> bool:
    quantifier, name, if_exists = _parse(operator)
    if name == "null":
        return _null_holds(operator, key, wanted, have)
    negated, test = _operator(operator, name, values)
    if have is None:
        if if_exists:
            return True
        return quantifier == "forallvalues" or (negated and quantifier == "")
    # The sandbox's requests have one value per key, so "for all" and "for any" are the same. Every
    # value is tested, so that an unsupported one is noticed even after another has matched.
    hits = [test(value, have) for value in wanted]
    return any(hits) != negated


def _parse(operator: str) -> tuple[str, str, bool]:
    prefix, colon, rest = operator.lower().rpartition(":")
    if colon and prefix not in {"forallvalues", "foranyvalue"}:
        raise UnsupportedPolicy(f"unknown condition operator {operator!r}")
    name = rest.removesuffix("ifexists")
    if name == "null" and (colon or name != rest):
        raise UnsupportedPolicy(f"{operator!r}: Null takes neither a quantifier nor IfExists")
    return prefix, name, name != rest


def _null_holds(operator: str, key: str, wanted: list[str], have: str | None) -> bool:
    answers = {value.lower() for value in wanted}
    if not answers <= {"true", "false"} or len(answers) != 1:
        raise UnsupportedPolicy(f"{operator} on {key} must be one of true and false, not {wanted}")
    return (have is None) == (answers == {"true"})


def _operator(written: str, name: str, values: Values) -> tuple[bool, Test]:
    negated = name in _NEGATED
    positive = _NEGATED.get(name, name)
    if positive in {"stringlike", "arnequals", "arnlike"}:
        match = _string_like if positive == "stringlike" else _arn_like
        return negated, lambda wanted, have: match(values, wanted, have)
    test = _TESTS.get(positive)
    if test is None:
        raise UnsupportedPolicy(f"unknown condition operator {written!r}")
    return negated, lambda wanted, have: test(values.literal(wanted), have)


def _string_like(values: Values, pattern: str, have: str) -> bool:
    return values.glob(pattern).fullmatch(have) is not None


def _arn_like(values: Values, pattern: str, have: str) -> bool:
    """Match an ARN part by part. A star crosses a colon only in the sixth and last part."""
    wanted_parts, have_parts = pattern.split(":", 5), have.split(":", 5)
    if len(wanted_parts) != 6:
        raise UnsupportedPolicy(f"{pattern!r} is not an ARN of six parts")
    if len(have_parts) != 6:
        return False
    pairs = zip(wanted_parts, have_parts, strict=True)
    return all(values.glob(wanted).fullmatch(part) is not None for wanted, part in pairs)


def _bool(wanted: str, have: str) -> bool:
    if wanted.lower() not in {"true", "false"}:
        raise UnsupportedPolicy(f"Bool compares with true or false, not {wanted!r}")
    return wanted.lower() == have.lower()


def _ordered(parse: Callable[[str], Any], compare: Callable[[Any, Any], bool]) -> Test:
    def test(wanted: str, have: str) -> bool:
        try:
            limit = parse(wanted)
        except ValueError:
            raise UnsupportedPolicy(f"cannot read {wanted!r} in a condition") from None
        try:
            return compare(parse(have), limit)
        except ValueError:
            return False

    return test


def _date(text: str) -> datetime:
    if text.isdecimal():
        return datetime.fromtimestamp(int(text), UTC)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)


def _inside(have: Any, wanted: Any) -> bool:
    return have.version == wanted.version and bool(have.subnet_of(wanted))


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "equals": lambda have, limit: bool(have == limit),
    "lessthan": lambda have, limit: bool(have < limit),
    "lessthanequals": lambda have, limit: bool(have <= limit),
    "greaterthan": lambda have, limit: bool(have > limit),
    "greaterthanequals": lambda have, limit: bool(have >= limit),
}
_TESTS: dict[str, Test] = {
    "stringequals": lambda wanted, have: wanted == have,
    "stringequalsignorecase": lambda wanted, have: wanted.lower() == have.lower(),
    "bool": _bool,
    "ipaddress": _ordered(_network, _inside),
    **{f"numeric{name}": _ordered(float, compare) for name, compare in _COMPARISONS.items()},
    **{f"date{name}": _ordered(_date, compare) for name, compare in _COMPARISONS.items()},
}
_NEGATED = {
    "stringnotequals": "stringequals",
    "stringnotequalsignorecase": "stringequalsignorecase",
    "stringnotlike": "stringlike",
    "arnnotequals": "arnequals",
    "arnnotlike": "arnlike",
    "numericnotequals": "numericequals",
    "datenotequals": "dateequals",
    "notipaddress": "ipaddress",
}


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise UnsupportedPolicy(f"{what} must be an object that is not empty")
    return value


def _texts(value: Any) -> list[str]:
    """Return a condition's values as the texts that IAM compares.

    A single value becomes a list. Booleans and numbers become text.
    """
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(item, str | bool | int | float) for item in items):
        raise UnsupportedPolicy(f"a condition compares with texts, not with {value!r}")
    return [str(item).lower() if isinstance(item, bool) else str(item) for item in items]
