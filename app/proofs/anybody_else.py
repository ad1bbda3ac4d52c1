"""Which statements of a trust policy let in every AWS account.

The External ID is no secret, so it keeps nobody out. "Anybody else" is anybody whose account,
organization and ARN the policy names nowhere. A statement for the principal `*` is narrowed only by
a comparison of one of these. The value must be one that nobody else can have, and the operator must
fail where the key is absent.
"""

import re
from collections.abc import Iterable, Mapping

from app.proofs.policy_requests import YES, RequestAnswers
from app.proofs.policy_statements import Comparison, Statement

_ARN, _PATHS = "aws:principalarn", "aws:principalorgpaths"
_NARROWING = {_ARN, "aws:principalaccount", "aws:principalorgid", _PATHS}
_EQUAL = {"stringequals", "stringequalsignorecase"}
_ARN_LIKE = {"arnequals", "arnlike"}
# A pattern must begin with this, before its first wildcard, to admit nobody else.
_BEGINS = {
    _ARN: re.compile(r"arn:[^:]+:(iam|sts)::[0-9]{12}:"),
    _PATHS: re.compile(r"o-[a-z0-9]+/"),
}
# The parts of an ARN are compared one by one. Wildcards before the account do not reach into it.
_ARN_OF_ACCOUNT = re.compile(r"([^:]*:){4}[0-9]{12}:.*", re.DOTALL)
# The role's account and its organization belong to nobody else.
_OF_RESOURCE = re.compile(r"\$\{aws:resource(account|orgid)\}", re.IGNORECASE)


def let_in_anybody(
    statements: Iterable[Statement], actions: Mapping[int, Mapping[str, RequestAnswers]], way: str
) -> set[int]:
    """Return the numbers of the statements that let in anybody else this way.

    `actions`: whether each statement is about each way into a role.
    """
    admitting = set()
    for statement in statements:
        if actions[statement.number][way] is not YES:
            continue
        if statement.allows and _admits_anybody(statement):
            admitting.add(statement.number)
        if not statement.allows and _denies_anybody(statement):
            return set()
    return admitting


def _admits_anybody(statement: Statement) -> bool:
    """Return whether it may let in anybody else. A part that is not understood keeps nobody out."""
    everybody = _names_everybody(statement.names)
    if statement.other_names is not None and ("AWS", "*") not in statement.other_names:
        everybody = True
    return everybody and not any(map(_narrows, statement.comparisons))


def _denies_anybody(statement: Statement) -> bool:
    """Return whether it surely denies anybody else. A part that is not understood denies nobody."""
    everybody = ("AWS", "*") in statement.names
    if statement.other_names:
        everybody = not _names_everybody(statement.other_names)
    understood = statement.is_understood and everybody
    return understood and all(map(_holds_for_anybody, statement.comparisons))


def _names_everybody(names: list[tuple[str, str]]) -> bool:
    return any(name == "*" for _, name in names)


def _narrows(comparison: Comparison) -> bool:
    if comparison.negated or comparison.if_exists or comparison.quantifier == "forallvalues":
        return False
    return _compares_with_nobody_else(comparison)


def _holds_for_anybody(comparison: Comparison) -> bool:
    may_hold = comparison.negated and comparison.quantifier != "foranyvalue"
    return may_hold and _compares_with_nobody_else(comparison)


def _compares_with_nobody_else(comparison: Comparison) -> bool:
    if comparison.key not in _NARROWING or not comparison.values:
        return False
    return not any(_admits_others(comparison, value) for value in comparison.values)


def _admits_others(comparison: Comparison, value: str) -> bool:
    """Return whether anybody else can have a value that is compared with this one.

    The same holds for a value that is not understood.
    """
    text = _OF_RESOURCE.sub("000000000000", value)
    if "${" in text or comparison.name not in {*_EQUAL, *_ARN_LIKE, "stringlike"}:
        return True
    if comparison.name in _EQUAL or not {"*", "?"} & set(text):
        return False
    if comparison.name in _ARN_LIKE:
        return comparison.key != _ARN or _ARN_OF_ACCOUNT.fullmatch(text) is None
    begins = _BEGINS.get(comparison.key)
    return begins is None or begins.match(re.split(r"[*?]", text, maxsplit=1)[0]) is None
