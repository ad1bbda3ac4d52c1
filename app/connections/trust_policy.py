"""Reads a role's trust policy: can our broker get in without this tenant's External ID, and who else is named?

The calls of a proof show what the role answered to them. The policy shows what it would answer to others: under another
session name, at another time, to another principal. Each statement is tried with every External ID that makes a
difference: none, those that the policy itself compares with, and any further one. Values that vary from request to
request are a choice: they are assumed to be whatever the policy admits. A condition that is not understood counts
neither as requiring the External ID nor as insecure.

Pure functions of a parsed policy. A property test holds them to the sandbox's own evaluator.
"""

import fnmatch
import functools
import re
from collections.abc import Collection, Iterable, Iterator
from enum import Enum
from typing import Any, NamedTuple

from app.config import Broker
from app.ids import AccountId


class _Answer(Enum):
    """Whether something in a statement applies to a request."""

    NO = False
    YES = True
    CHOICE = 2  # to some such requests, and not to others
    UNKNOWN = 3


class _Other(Enum):
    """Any value that the policy compares with nowhere."""

    VALUE = 0


_NO, _YES, _CHOICE, _UNKNOWN = _Answer
_Keys = dict[str, str | _Other | None]  # None: the request does not have the key
_Statements = dict[int, dict[str, Any]]  # by their number, from 1
_EXTERNAL_ID, _PRINCIPAL_ARN = "sts:externalid", "aws:principalarn"
_ASSUME = "sts:assumerole"
_WAYS_IN = (_ASSUME, f"{_ASSUME}withsaml", f"{_ASSUME}withwebidentity")
_SENDABLE = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)  # what STS takes for an External ID
_ANYTHING = re.compile(r"\*+\?{,2}|\?{1,2}\*+")  # of two characters at least, as each External ID has
_SOMEBODY = re.compile(r"[0-9]{12}|arn:aws[a-z-]*:(iam|sts)::[0-9]{12}:[\w+=,.@/-]+", re.ASCII)
_VARYING = re.compile(
    r"sts:(rolesessionname|sourceidentity|transitivetagkeys)|aws:((request|principal)tag/.+|tagkeys|sourceidentity"
    r"|currenttime|epochtime|tokenissuetime|sourceip|vpcsourceip|sourcevpc|sourcevpce|requestedregion|useragent)"
)
_ELEMENTS = {"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Condition"}
_LIKE = {"stringlike", "arnequals", "arnlike"}  # their values are patterns
_READ = _LIKE | {"stringequals", "stringequalsignorecase", "bool"}
_OPERATOR = re.compile(
    r"(?:(forallvalues|foranyvalue):)?(string(?:not)?(?:equals|equalsignorecase|like)|arn(?:not)?(?:equals|like)"
    r"|(?:numeric|date)(?:(?:not)?equals|(?:less|greater)than(?:equals)?)|(?:not)?ipaddress|bool|null)(ifexists)?"
)


class Reading(NamedTuple):
    """What a trust policy says of our broker. Statements count from one; 0 is the policy as a whole."""

    open: tuple[int, ...]  # statements that let the broker in without an External ID of the tenant's
    unclear: tuple[int, ...]  # statements that may do so, or may not
    others: tuple[str, ...]  # the other principals that get in, as the policy writes them
    ends: tuple[str, ...]  # the dates that end the broker's access, as the policy writes them


class _Request(NamedTuple):
    """All requests with these values; from our broker, or from anybody else (None)."""

    action: str
    keys: _Keys
    broker: Broker | None


def read(
    policy: object, broker: Broker, role_account: AccountId, external_ids: Collection[str], retired: Collection[str]
) -> Reading:
    """`external_ids`: those that the tenant's roles are to accept. `retired`: its others, which are nobody else's: each
    rotation adds one, and none is tried.
    """
    statements = statements_of(policy)
    if statements is None:
        return Reading((), (0,), (), ())
    fixed: _Keys = {
        _PRINCIPAL_ARN: broker.arn,
        "aws:principalaccount": broker.account_id,
        "aws:principaltype": "AssumedRole" if broker.is_role else "User",
        "aws:principalisawsservice": "false",
        "aws:viaawsservice": "false",
        "aws:securetransport": "true",
        "aws:resourceaccount": role_account,
    }
    theirs = filter(_SENDABLE.fullmatch, _compared(statements, _EXTERNAL_ID) - {*external_ids, *retired})
    strange, ours = (
        [_Request(_ASSUME, fixed | {_EXTERNAL_ID: it}, broker) for it in sent]
        for sent in ((None, _Other.VALUE, *theirs), external_ids)
    )
    found = [way for request in strange for way in _ways_in(statements, request).items()]
    opened = {n for n, answer in found if answer is _YES}
    admitting = {n for request in ours for n in _ways_in(statements, request)}
    return Reading(
        open=tuple(sorted(opened)),
        unclear=tuple(sorted({n for n, _ in found} - opened)) if admitting else (0,),  # it let us in: why is not here
        others=tuple(dict.fromkeys(_others(statements, broker))),
        ends=tuple(dict.fromkeys(_ends(admitting, statements, ours))),
    )


def statements_of(policy: object) -> _Statements | None:
    found = policy.get("Statement") if isinstance(policy, dict) else None
    statements = [found] if isinstance(found, dict) else found
    if not isinstance(statements, list) or not all(isinstance(it, dict) for it in statements):
        return None
    if any(it.get("Effect") not in ("Allow", "Deny") for it in statements):
        return None
    return dict(enumerate(statements, 1))


def _ways_in(statements: _Statements, request: _Request) -> dict[int, _Answer]:
    """The statements by which such a request gets in: YES, some of them do; UNKNOWN, some may."""
    applying = {n: _answers(it, request) for n, it in statements.items()}
    denied = [answers for n, answers in applying.items() if statements[n]["Effect"] == "Deny"]
    denied = [answers for answers in denied if not {_NO, _CHOICE} & answers]
    if any(_UNKNOWN not in answers for answers in denied):
        return {}
    return {
        n: _UNKNOWN if denied or _UNKNOWN in answers else _YES
        for n, answers in applying.items()
        if statements[n]["Effect"] == "Allow" and _NO not in answers
    }


def _answers(statement: dict[str, Any], request: _Request) -> set[_Answer]:
    """Whether each part of the statement applies; all of them must."""
    known = _YES if statement.keys() <= _ELEMENTS else _UNKNOWN
    conditions = {_condition(operator, key, values, request) for operator, key, values in comparisons(statement)}
    return {known, _principal(statement, request), _action(statement, request.action), *conditions}


def _any(answers: Iterable[_Answer]) -> _Answer:
    found = set(answers)
    return next((it for it in (_YES, _UNKNOWN, _CHOICE) if it in found), _NO)


def _principal(statement: dict[str, Any], request: _Request) -> _Answer:
    names = _names(statement.get("Principal"))
    if not names:
        return _UNKNOWN  # NotPrincipal, for example
    return _any(_named(kind, name, request.broker) for kind, name in names)


def _named(kind: str, name: str, broker: Broker | None) -> _Answer:
    if (kind, name) == ("AWS", "*"):
        return _YES
    if broker is None:
        return _CHOICE
    if kind != "AWS":
        return _NO
    if name in {broker.arn, broker.account_id, f"arn:{broker.partition}:iam::{broker.account_id}:root"}:
        return _YES
    if _is_session_of(broker, name):
        return _CHOICE
    return _NO if _SOMEBODY.fullmatch(name) else _UNKNOWN  # IAM shows a unique id for who was deleted, and takes one


def _is_session_of(broker: Broker, name: str) -> bool:
    return name.startswith(f"arn:{broker.partition}:sts::{broker.account_id}:assumed-role/{broker.name}/")


def _names(principal: object) -> list[tuple[str, str]]:
    """(kind, name) of each principal; none when they are not understood."""
    if principal == "*":
        return [("AWS", "*")]
    kinds = principal if isinstance(principal, dict) else {}
    return [(kind, name) for kind, names in kinds.items() for name in texts(names)]


def _action(statement: dict[str, Any], action: str) -> _Answer:
    patterns = texts(statement.get("Action", statement.get("NotAction")))
    if not patterns or {"Action", "NotAction"} <= statement.keys():
        return _UNKNOWN
    named = any(glob(pattern.lower(), action) for pattern in patterns)
    return _Answer(named == ("Action" in statement))


def comparisons(statement: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """(operator, key, values) of each comparison; without values where it is not understood."""
    conditions = statement.get("Condition", {})
    for operator, keys in conditions.items() if isinstance(conditions, dict) else [("", None)]:
        for key, values in keys.items() if isinstance(keys, dict) and keys else [("", None)]:
            yield operator.lower(), key.lower(), texts(values)


def _condition(operator: str, key: str, values: list[str], request: _Request) -> _Answer:
    found = _OPERATOR.fullmatch(operator)
    if found is None or not values:
        return _UNKNOWN
    if key not in request.keys:
        return _CHOICE if request.broker is None or _VARYING.fullmatch(key) else _UNKNOWN
    quantifier, name, if_exists = found.groups()
    have, negated = request.keys[key], "not" in name
    if name == "null":
        absent = {value.lower() for value in values}
        clear = operator == name and absent in ({"true"}, {"false"})
        return _Answer((have is None) == (absent == {"true"})) if clear else _UNKNOWN
    if have is None:
        return _Answer(bool(if_exists) or quantifier == "forallvalues" or (negated and not quantifier))
    wanted = name.replace("not", "")
    same = key == _EXTERNAL_ID and wanted in {"stringequals", "stringlike"} and have in values  # there may be hundreds
    answer = _YES if same else _any(_matches(wanted, value, have) for value in values)
    return {_YES: _NO, _NO: _YES}.get(answer, answer) if negated else answer


def _matches(name: str, wanted: str, have: str | _Other) -> _Answer:
    no_arn = name.startswith("arn") and wanted.count(":") < 5
    no_bool = name == "bool" and wanted.lower() not in {"true", "false"}
    if name not in _READ or "${" in wanted or no_arn or no_bool:
        return _UNKNOWN
    if name in {"bool", "stringequalsignorecase"}:
        return _UNKNOWN if isinstance(have, _Other) else _Answer(wanted.lower() == have.lower())
    if name not in _LIKE or not {"*", "?"} & set(wanted):
        return _Answer(wanted == have)
    if isinstance(have, _Other):
        return _YES if name == "stringlike" and _ANYTHING.fullmatch(wanted) else _CHOICE
    if name == "stringlike":
        return _Answer(glob(wanted, have))
    # An ARN is compared part by part: a star does not reach across a colon before the last part.
    parts = zip(wanted.split(":", 5), have.split(":", 5), strict=False)
    return _Answer(have.count(":") >= 5 and all(glob(*part) for part in parts))


def glob(pattern: str, text: str) -> bool:
    return compiled_glob(pattern).fullmatch(text) is not None


@functools.lru_cache(512)  # as many as `re` keeps: each External ID that a policy names is compared with its patterns
def compiled_glob(pattern: str) -> re.Pattern[str]:
    # Somebody may write a pattern to be slow. fnmatch's expressions never go back over what they have matched.
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]")))


def texts(value: object) -> list[str]:
    """One value or a list of them, as IAM compares them; none when they are not understood."""
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | bool | int | float) for item in items):
        return []
    return [str(item).lower() if isinstance(item, bool) else str(item) for item in items]


def _compared(statements: _Statements, key: str) -> set[str]:
    found = [values for it in statements.values() for _, tested, values in comparisons(it) if tested == key]
    return set().union(*found)


def _others(statements: _Statements, broker: Broker) -> Iterator[str]:
    """A condition on aws:PrincipalArn can narrow a principal: then the ARNs in it are named instead."""
    arns: list[str | _Other] = [_Other.VALUE, *sorted(_compared(statements, _PRINCIPAL_ARN) - {broker.arn})]
    for arn in arns:
        keys: _Keys = {_PRINCIPAL_ARN: arn}
        for n in sorted({n for way in _WAYS_IN for n in _ways_in(statements, _Request(way, keys, None))}):
            allow = statements[n]
            if isinstance(arn, str):
                yield from {arn} & _compared({n: allow}, _PRINCIPAL_ARN)
            elif "NotPrincipal" in allow:
                yield "everybody but " + ", ".join(name for _, name in _names(allow["NotPrincipal"]))
            else:
                names = [name for _, name in _names(allow.get("Principal"))]
                yield from (name for name in names if name != broker.arn and not _is_session_of(broker, name))


def _ends(admitting: set[int], statements: _Statements, ours: list[_Request]) -> Iterator[str]:
    """A date in one statement ends nothing while another statement lets us in without one."""
    until = [list(_dates(statements[n], "lessthan")) for n in sorted(admitting)]
    if all(until):
        yield from (date for dates in until for date in dates)
    for deny in statements.values():
        if deny["Effect"] == "Deny" and any(_NO not in _answers(deny, request) for request in ours):
            yield from _dates(deny, "greaterthan")


def _dates(statement: dict[str, Any], order: str) -> Iterator[str]:
    for operator, key, values in comparisons(statement):
        if order in operator and key in {"aws:currenttime", "aws:epochtime"}:
            yield from values
