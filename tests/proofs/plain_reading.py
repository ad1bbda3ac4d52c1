"""A plain reading of a trust policy: each caller against each statement, pattern by pattern. Slow,
and easy to check.

app/proofs/trust_policy.py judges all callers together; a property test compares the two. Left out
are statements for everybody and ends. Of aws:userid a few values stand for all.
"""

import fnmatch
import re
from enum import Enum

from app.proofs.policy_conditions import CHOSEN
from app.proofs.policy_statements import statements_of
from app.proofs.trust_policy import SENDABLE, SOMEBODY, WAYS_IN


class Answer(Enum):
    NO = 0
    YES = 1
    CHOICE = 2
    UNKNOWN = 3


NO, YES, CHOICE, UNKNOWN = Answer
OTHER = object()
ID, ARN, ASSUME = "sts:externalid", "aws:principalarn", "sts:assumerole"
USER_ID, UNIQUE = "aws:userid", ["A" * 17, "B" * 17, "0123456789ABCDEFG"]
SESSIONS = ["xy", "ops", "deputy-x"]  # the names that a test compares with, and others
LIKE = {"stringlike", "arnequals", "arnlike"}


def plain_reading(policy, broker, role_account, external_ids, retired):
    """Return open, unclear and listed, as in `Reading`."""
    parsed = statements_of(policy)
    if parsed is None:
        return (), (0,), ()
    statements = {it.number: it for it in parsed}
    fixed = {
        ARN: broker.arn,
        "aws:principalaccount": broker.account_id,
        "aws:principaltype": "AssumedRole" if broker.is_role else "User",
        "aws:principalisawsservice": "false",
        "aws:viaawsservice": "false",
        "aws:securetransport": "true",
        "aws:resourceaccount": role_account,
        "sts:durationseconds": None,
    }
    theirs = filter(SENDABLE.fullmatch, compared(statements, ID) - {*external_ids, *retired})
    found = [
        (n, value, answer)
        for value in (None, OTHER, *theirs)
        for n, answer in ways_in(statements, fixed | {ID: value}, broker).items()
    ]
    listed = {
        (n, value)
        for n, value, answer in found
        if answer is YES and value in equal_ids(statements[n])
    }
    found = [(n, answer) for n, value, answer in found if (n, value) not in listed]
    opened = {n for n, answer in found if answer is YES}
    explained = any(ways_in(statements, fixed | {ID: own}, broker) for own in external_ids)
    unclear = tuple(sorted({n for n, _ in found} - opened)) if explained else (0,)
    return tuple(sorted(opened)), unclear, tuple(sorted(listed))


def equal_ids(statement):
    """The values of StringEquals alone, as a list that a person wrote."""
    plain = {"stringequals", "foranyvalue:stringequals"}
    return {
        value
        for it in statement.comparisons
        if it.operator in plain and it.key == ID
        for value in it.values
    }


def compared(statements, key):
    return {value for it in statements.values() for value in it.compared(key)}


def plain_others(policy, broker):
    """Return the names in `others`, as in `Reading`: each caller but the broker, each way in."""
    statements = {it.number: it for it in statements_of(policy) or ()}
    named = compared(statements, ARN) | {
        name for it in statements.values() for name in names_of(it) if is_one(name)
    }
    found = set()
    for caller in [OTHER, None, *(it for it in named - {broker.arn} if not re.search(r"\s", it))]:
        keys = {ARN: caller, "sts:durationseconds": None}
        for way in WAYS_IN:
            for n in ways_in(statements, keys, broker, way):
                found |= {caller} - {OTHER, None}
                found |= principals_among(statements[n], caller, broker)
    return found


def names_of(statement):
    return [name for _, name in [*statement.names, *(statement.other_names or ())]]


def principals_among(statement, caller, broker):
    names = {
        name
        for kind, name in statement.names
        if outsider_is(kind, name, caller, broker) is not NO and caller in {OTHER, None, name}
    }
    if statement.other_names is not None and caller in {OTHER, None}:
        names.add("everybody but " + ", ".join(name for _, name in statement.other_names))
    return names


ONE = re.compile(r"arn:aws[a-z-]*:(iam::\d{12}:(role|user)|sts::\d{12}:federated-user)/[^*?]+")
TOGETHER = re.compile(
    r"(?:arn:aws[a-z-]*:(?:iam|sts)::)?(\d{12})(?::(?:root|assumed-role/([^/*?]+)/[^/]+))?"
)


def is_one(name):
    return ONE.fullmatch(name) is not None


def outsider_is(kind, name, caller, broker):
    if kind != "AWS" or name == "*":
        return YES if kind == "AWS" else CHOICE if caller in {OTHER, None} else NO
    if caller is None or name == broker.arn or is_session(broker, name):
        return NO
    if is_one(name):
        return Answer(caller == name)
    together = TOGETHER.fullmatch(name)
    return CHOICE if caller is OTHER or together is None else is_among(*together.groups(), caller)


def is_among(account, role, caller):
    of = re.fullmatch(r"arn:[^:]*:(?:iam|sts)::(\d{12}):(.+)", caller, re.DOTALL)
    theirs = of is not None and of[1] == account
    if role is None and theirs:
        return YES
    vague = of is None or set("*?$") & set(caller)
    return CHOICE if vague or (theirs and of[2].split("/")[-1] == role) else NO


def is_session(broker, name):
    role = f"arn:{broker.partition}:sts::{broker.account_id}:assumed-role/{broker.name}/"
    return broker.is_role and name.startswith(role)


def ways_in(statements, keys, broker, way=None):
    """`way`: of a caller that is not the broker."""
    found = {n: answers(it, keys, broker, way) for n, it in statements.items()}
    denied = [
        found[n] for n, it in statements.items() if not it.allows and not {NO, CHOICE} & found[n]
    ]
    if any(UNKNOWN not in it for it in denied):
        return {}
    allowed = {n: found[n] for n, it in statements.items() if it.allows and NO not in found[n]}
    return {n: UNKNOWN if denied or UNKNOWN in it else YES for n, it in allowed.items()}


def answers(statement, keys, broker, way):
    named = any(glob(pattern.lower(), way or ASSUME) for pattern in statement.actions)
    action = Answer(named != statement.negates_actions) if statement.actions else UNKNOWN
    conditions = {condition(it, keys, broker, way) for it in statement.comparisons}
    principal = named_by(statement, keys[ARN], broker, way)
    return {YES if statement.is_understood else UNKNOWN, principal, action, *conditions}


def named_by(statement, caller, broker, way):
    if way is None:
        if not statement.names:
            return UNKNOWN
        return first(principal_is(kind, name, broker) for kind, name in statement.names)
    names = statement.names if statement.other_names is None else statement.other_names
    found = first(outsider_is(*name, caller, broker) for name in names) if names else UNKNOWN
    if statement.other_names is None:
        return found
    return YES if found is NO else UNKNOWN


def first(found):
    found = set(found)
    return next((it for it in (YES, UNKNOWN, CHOICE) if it in found), NO)


def principal_is(kind, name, broker):
    if (kind, name) == ("AWS", "*"):
        return YES
    if kind != "AWS":
        return NO
    if name in {
        broker.arn,
        broker.account_id,
        f"arn:{broker.partition}:iam::{broker.account_id}:root",
    }:
        return YES
    if is_session(broker, name):
        return CHOICE
    return NO if SOMEBODY.fullmatch(name) else UNKNOWN


def condition(it, keys, broker, way):
    if it.name is None or not it.values:
        return UNKNOWN
    if it.key == USER_ID and way is None:
        return user_id(it, is_role=broker.is_role)
    if it.key not in keys:
        return CHOICE if way is not None or CHOSEN.fullmatch(it.key) else UNKNOWN
    have = keys[it.key]
    if it.name == "null":
        absent = {value.lower() for value in it.values}
        clear = it.operator == "null" and absent in ({"true"}, {"false"})
        return Answer((have is None) == (absent == {"true"})) if clear else UNKNOWN
    if have is None:
        return without_key(it)
    found = first(matches(it.name, value, have) for value in it.values)
    return {YES: NO, NO: YES}.get(found, found) if it.negated else found


def without_key(it):
    if it.quantifier == "foranyvalue":
        return UNKNOWN if it.if_exists else NO
    return Answer(it.if_exists or it.quantifier == "forallvalues" or it.negated)


def user_id(it, *, is_role):
    found = first(fits(value, is_role=is_role) for value in it.values)
    return NO if it.negated and found is YES else found


def fits(pattern, *, is_role):
    users = [
        [f"AROA{unique}:{name}" for name in SESSIONS] if is_role else [f"AIDA{unique}"]
        for unique in UNIQUE
    ]
    matched = [[glob(pattern, text) for text in texts] for texts in users]
    return YES if all(map(all, matched)) else CHOICE if all(map(any, matched)) else UNKNOWN


def matches(name, wanted, have):
    no_arn = name.startswith("arn") and wanted.count(":") < 5
    no_bool = name == "bool" and wanted.lower() not in {"true", "false"}
    if (
        name not in {*LIKE, "stringequals", "stringequalsignorecase", "bool"}
        or "${" in wanted
        or no_arn
        or no_bool
    ):
        return UNKNOWN
    if name in {"bool", "stringequalsignorecase"}:
        return UNKNOWN if have is OTHER else Answer(wanted.lower() == have.lower())
    if name not in LIKE or not {"*", "?"} & set(wanted):
        return Answer(wanted == have)
    if have is OTHER:
        return (
            YES
            if name == "stringlike" and re.fullmatch(r"\*+\?{,2}|\?{1,2}\*+", wanted)
            else CHOICE
        )
    if name == "stringlike":
        return Answer(glob(wanted, have))
    parts = zip(wanted.split(":", 5), have.split(":", 5), strict=False)
    return Answer(have.count(":") >= 5 and all(glob(*part) for part in parts))


def glob(pattern, text):
    return re.fullmatch(fnmatch.translate(pattern.replace("[", "[[]")), text) is not None
