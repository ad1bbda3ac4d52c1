"""The Condition element of an IAM policy, evaluated as IAM does.

If IAM's result is unknown, the policy is rejected. Most mistakes in trust policies concern a
condition's key that a request does not have. Then a plain operator is false, a negated one true,
`…IfExists` and `ForAllValues:` true. `ForAnyValue:` is false, also with `IfExists`, as was seen at
AWS: its documentation can be read both ways.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

# Keys in lower case: AWS ignores the case of condition keys, but not of their values.
Context = Mapping[str, str]
Test = Callable[[str, str], bool]


class UnsupportedPolicy(Exception):  # noqa: N818 - it reads as a statement about the policy
    """A policy that the sandbox cannot evaluate.

    The sandbox raises it because a guess would make a test or a demo wrong.
    """

    code = "SandboxUnsupported"


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

    def match(self, patterns: Iterable[str], text: str) -> bool:
        """Return whether a pattern matches. All are compiled, so that any bad one raises."""
        matches = [self.glob(pattern).fullmatch(text) for pattern in patterns]
        return any(matches)

    def literal(self, text: str) -> str:
        return "".join(self._parts(text, str, str))

    def _parts(
        self, text: str, fixed: Callable[[str], str], inserted: Callable[[str], str] = re.escape
    ) -> list[str]:
        if not self._variables:
            return [fixed(text)]
        # `split` with one group returns fixed text at even indexes, and variables' names at odd
        # ones.
        pieces = _VARIABLE.split(text)
        pieces[::2] = map(fixed, pieces[::2])
        pieces[1::2] = [inserted(self._lookup(name)) for name in pieces[1::2]]
        return pieces

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
    for operator, tests in _mapping(conditions, "Condition").items():
        for key, limits in _mapping(tests, operator).items():
            if not _key_holds(operator, key, _texts(limits), context.get(key.lower()), values):
                return False
    return True


def compared_keys(conditions: Any) -> set[str]:
    """Return the keys that the element compares, in lower case."""
    keys: set[str] = set()
    for tests in _mapping(conditions, "Condition").values():
        keys.update(map(str.lower, _mapping(tests, "its tests")))
    return keys


def _key_holds(
    operator: str, key: str, limits: list[str], have: str | None, values: Values
) -> bool:
    quantifier, name, if_exists = _parse(operator)
    if name == "null":
        return _null_holds(operator, key, limits, have)
    negated, test = _operator(operator, name, values)
    if have is None:
        return quantifier != "foranyvalue" and bool(if_exists or quantifier or negated)
    # The sandbox's requests have one value per key, so "for all" and "for any" are the same. Every
    # value is tested, so that an unsupported one is noticed even after another has matched.
    hits = [test(value, have) for value in limits]
    return any(hits) != negated


def _parse(operator: str) -> tuple[str, str, bool]:
    prefix, colon, rest = operator.lower().rpartition(":")
    if colon and prefix not in {"forallvalues", "foranyvalue"}:
        raise UnsupportedPolicy(f"unknown condition operator {operator!r}")
    name = rest.removesuffix("ifexists")
    if name == "null" and (colon or name != rest):
        raise UnsupportedPolicy(f"{operator!r}: Null takes neither a quantifier nor IfExists")
    return prefix, name, name != rest


def _null_holds(operator: str, key: str, limits: list[str], have: str | None) -> bool:
    answers = {value.lower() for value in limits}
    if not answers <= {"true", "false"} or len(answers) != 1:
        raise UnsupportedPolicy(f"{operator} on {key} must be one of true and false, not {limits}")
    return (have is None) == (answers == {"true"})


def _operator(written: str, name: str, values: Values) -> tuple[bool, Test]:
    negated = name in _NEGATED
    positive = _NEGATED.get(name, name)
    if positive in {"stringlike", "arnequals", "arnlike"}:
        match = _string_like if positive == "stringlike" else _arn_like
        return negated, lambda limit, have: match(values, limit, have)
    test = _TESTS.get(positive)
    if test is None:
        raise UnsupportedPolicy(f"unknown condition operator {written!r}")
    return negated, lambda limit, have: test(values.literal(limit), have)


def _string_like(values: Values, pattern: str, have: str) -> bool:
    return values.glob(pattern).fullmatch(have) is not None


def _arn_like(values: Values, pattern: str, have: str) -> bool:
    """Match an ARN part by part. A star crosses a colon only in the sixth and last part."""
    limit_parts, have_parts = pattern.split(":", 5), have.split(":", 5)
    if len(limit_parts) != 6:
        raise UnsupportedPolicy(f"{pattern!r} is not an ARN of six parts")
    if len(have_parts) != 6:
        return False
    pairs = zip(limit_parts, have_parts, strict=True)
    return all(values.glob(limit).fullmatch(part) for limit, part in pairs)


def _bool(limit: str, have: str) -> bool:
    if limit.lower() not in {"true", "false"}:
        raise UnsupportedPolicy(f"Bool compares with true or false, not {limit!r}")
    return limit.lower() == have.lower()


def _ordered(parse: Callable[[str], Any], compare: Callable[[Any, Any], bool]) -> Test:
    def test(text: str, have: str) -> bool:
        try:
            limit = parse(text)
        except ValueError:
            raise UnsupportedPolicy(f"cannot read {text!r} in a condition") from None
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


def _inside(have: Any, limit: Any) -> bool:
    return have.version == limit.version and bool(have.subnet_of(limit))


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "equals": lambda have, limit: bool(have == limit),
    "lessthan": lambda have, limit: bool(have < limit),
    "lessthanequals": lambda have, limit: bool(have <= limit),
    "greaterthan": lambda have, limit: bool(have > limit),
    "greaterthanequals": lambda have, limit: bool(have >= limit),
}
_TESTS: dict[str, Test] = {
    "stringequals": lambda limit, have: limit == have,
    "stringequalsignorecase": lambda limit, have: limit.lower() == have.lower(),
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


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise UnsupportedPolicy(f"{name} must be an object that is not empty")
    return value


def _texts(value: Any) -> list[str]:
    """Return a condition's values as the texts that IAM compares.

    A single value becomes a list. Booleans and numbers become text.
    """
    texts = []
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, str | bool | int | float):
            raise UnsupportedPolicy(f"a condition compares with texts, not with {value!r}")
        texts.append(str(item).lower() if isinstance(item, bool) else str(item))
    if not texts:
        raise UnsupportedPolicy("a condition compares with no value")
    return texts
