"""Which statements of a trust policy let in every AWS account.

The External ID is no secret, so it keeps nobody out. "Anybody else" is anybody whose account,
organization and ARN the policy names nowhere. A statement for the principal `*` is narrowed only by
a comparison of one of these. The value must be one that nobody else can have, and the operator must
fail where the key is absent.
"""

import re
from collections.abc import Collection, Mapping

from app.proofs.policy_statements import Comparison, Statement

_ARN, _PATHS = "aws:principalarn", "aws:principalorgpaths"
_NARROWING = {_ARN, "aws:principalaccount", "aws:principalorgid", _PATHS}
_EQUAL = {"stringequals", "stringequalsignorecase"}
_ARN_LIKE = {"arnequals", "arnlike"}
_LIKE = {"stringlike", *_ARN_LIKE}
# A pattern must begin with this, before its first wildcard, to admit nobody else.
_BEGINS = {
    _ARN: re.compile(r"arn:[^:]+:(iam|sts)::[0-9]{12}:"),
    _PATHS: re.compile(r"o-[a-z0-9]+/"),
}
# The role's account and its organization belong to nobody else.
_OF_RESOURCE = re.compile(r"\$\{aws:resource(account|orgid)\}", re.IGNORECASE)


def let_in_anybody(
    statements: Mapping[int, Statement], ways_in: Mapping[str, Collection[int]]
) -> tuple[int, ...]:
    """Return the numbers of the statements that let in anybody else.

    `ways_in`: the numbers of the statements about each way into a role.
    """
    found: set[int] = set()
    for about in ways_in.values():
        if not any(
            n in about and not it.allows and _denies_strangers(it) for n, it in statements.items()
        ):
            found |= {n for n in about if statements[n].allows and _admits_strangers(statements[n])}
    return tuple(sorted(found))


def _admits_strangers(statement: Statement) -> bool:
    """Return whether it may let in anybody else. A part that is not understood keeps nobody out."""
    others = statement.other_names
    everybody = any(name == "*" for _, name in statement.names)
    everybody |= statement.has_other_names and ("AWS", "*") not in others
    return everybody and not any(map(_narrows, statement.comparisons))


def _denies_strangers(statement: Statement) -> bool:
    """Return whether it surely denies anybody else. A part that is not understood denies nobody."""
    others = statement.other_names
    everybody = (
        not any(name == "*" for _, name in others) if others else ("AWS", "*") in statement.names
    )
    return (
        statement.is_understood
        and everybody
        and all(map(_holds_for_strangers, statement.comparisons))
    )


def _narrows(it: Comparison) -> bool:
    if it.negated or it.if_exists or it.quantifier == "forallvalues":
        return False
    return _compares_with_no_stranger(it)


def _holds_for_strangers(it: Comparison) -> bool:
    return it.negated and it.quantifier != "foranyvalue" and _compares_with_no_stranger(it)


def _compares_with_no_stranger(it: Comparison) -> bool:
    if it.key not in _NARROWING or not it.values:
        return False
    return not any(_admits_a_stranger(it, value) for value in it.values)


def _admits_a_stranger(it: Comparison, value: str) -> bool:
    """Return whether anybody else can have a value that is compared with this one.

    The same holds for a value that is not understood.
    """
    text = _OF_RESOURCE.sub("000000000000", value)
    if "${" in text or it.name not in _EQUAL | _LIKE:
        return True
    if it.name in _EQUAL or not {"*", "?"} & set(text):
        return False
    if it.name in _ARN_LIKE:
        # Its parts are compared one by one, so wildcards before the account do not reach into it.
        *_, account, _ = parts if len(parts := text.split(":", 5)) == 6 else ("*", "")
        return re.fullmatch("[0-9]{12}", account) is None or it.key != _ARN
    begins = _BEGINS.get(it.key)
    return begins is None or begins.match(re.split(r"[*?]", text, maxsplit=1)[0]) is None
