"""Find the statements of a trust policy that let in every AWS account.

The External ID is not secret, so it keeps nobody out. "Anybody else" is a principal whose account,
organization and ARN the policy does not name. A statement for the principal `*` lets in anybody
else unless its Condition compares the account, the organization or the ARN. That comparison must
have only values that nobody else can have, and an operator that fails if the key is absent.
"""

import re
from collections.abc import Iterable, Mapping

from app.proofs.policy_requests import YES, RequestAnswers
from app.proofs.policy_statements import Comparison, Statement

_ARN, _PATHS = "aws:principalarn", "aws:principalorgpaths"
_NARROWING = {_ARN, "aws:principalaccount", "aws:principalorgid", _PATHS}
_EQUAL = {"stringequals", "stringequalsignorecase"}
_ARN_LIKE = {"arnequals", "arnlike"}
# A pattern that lets in nobody else has this prefix before its first wildcard.
_BEGINS = {
    _ARN: re.compile(r"arn:[^:]+:(iam|sts)::[0-9]{12}:"),
    _PATHS: re.compile(r"o-[a-z0-9]+/"),
}
# IAM compares ARNs part by part, so a wildcard before the account does not match the account.
_ARN_OF_ACCOUNT = re.compile(r"([^:]*:){4}[0-9]{12}:.*", re.DOTALL)
# IAM replaces these variables by the role's account and organization, which nobody else has.
_OF_RESOURCE = re.compile(r"\$\{aws:resource(account|orgid)\}", re.IGNORECASE)


def let_in_anybody(
    statements: Iterable[Statement], actions: Mapping[int, Mapping[str, RequestAnswers]], way: str
) -> set[int]:
    """Return the numbers of the statements that let in anybody else by the action `way`.

    There are none if a statement denies anybody else. `actions`: by statement number and action,
    YES if the statement applies to the action.
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
    """Return whether an Allow statement may let in anybody else.

    A part that Deputy does not understand counts as keeping nobody out.
    """
    everybody = _names_everybody(statement.names)
    if statement.other_names is not None and ("AWS", "*") not in statement.other_names:
        everybody = True
    return everybody and not any(map(_narrows, statement.comparisons))


def _denies_anybody(statement: Statement) -> bool:
    """Return whether a Deny statement certainly denies anybody else.

    A statement with a part that Deputy does not understand counts as denying nobody.
    """
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
    """Return whether anybody else's account, organization or ARN can match this value.

    Returns True for a value that Deputy does not understand.
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
