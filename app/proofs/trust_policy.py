"""Read a role's trust policy: whether it demands the External ID, and who else gets in.

The calls of a proof show the role's answers to them. The policy shows its answers to others: under
another session name, at another time, to another principal. Each statement is judged for every
External ID that makes a difference: none, those that the policy itself compares with, and any
further one. They are judged together, as the bits of an integer, so that no policy takes long to
read. Values that the caller or its network chooses are a choice: they are assumed to be whatever
the policy accepts. A condition that is not understood counts neither as demanding the External ID
nor as insecure.

Pure functions of a parsed policy. Property tests compare them with the sandbox's own evaluator and
with a simple implementation.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from enum import Enum
from functools import reduce
from operator import or_
from typing import NamedTuple

from app.config import Broker
from app.ids import AccountId
from app.proofs.anybody_else import let_in_anybody
from app.proofs.globs import Globs
from app.proofs.policy_statements import Comparison, Statement, statement_of, statements_of

_EXTERNAL_ID, _PRINCIPAL_ARN, _USER_ID = "sts:externalid", "aws:principalarn", "aws:userid"
_ASSUME = "sts:assumerole"
_WAYS_IN = (_ASSUME, f"{_ASSUME}withsaml", f"{_ASSUME}withwebidentity")
_UNIQUE_ID = 21  # characters of a role's or user's
_SPACE = re.compile(r"\s")
_SENDABLE = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)  # what STS accepts as an External ID
# Matches all texts of two or more characters, as each External ID has
_ANYTHING = re.compile(r"\*+\?{,2}|\?{1,2}\*+")
_SOMEBODY = re.compile(r"[0-9]{12}|arn:aws[a-z-]*:(iam|sts)::[0-9]{12}:[\w+=,.@/-]+", re.ASCII)
# Keys whose value the request, the session or the network of the caller decides. Another request of
# the broker may have another value.
_CHOSEN = re.compile(
    r"sts:(rolesessionname|sourceidentity|transitivetagkeys|durationseconds|requestcontext(providers|/.+))"
    r"|aws:((request|principal)tag/.+|tagkeys|sourceidentity|currenttime|epochtime|tokenissuetime|requestedregion"
    r"|sourceip|vpcsourceip|sourcevpc|sourcevpcarn|sourcevpce|vpceaccount|vpceorgid|vpceorgpaths|referer|useragent"
    r"|ec2instancesource.+)|(ec2|ssm):sourceinstancearn|ec2:roledelivery|lambda:sourcefunctionarn",
    re.DOTALL,
)
_LIKE = {"stringlike", "arnequals", "arnlike"}  # their values are patterns
_READ = _LIKE | {"stringequals", "stringequalsignorecase", "bool"}
_EQUAL = "stringequals", "foranyvalue:stringequals"
_Statements = dict[int, Statement]  # keys are their numbers, from 1


class Reading(NamedTuple):
    """The result of reading a trust policy, for our broker.

    Statements count from one; 0 is the policy as a whole.
    """

    # Statements that let the broker in without an External ID, or with an unlisted one
    open: tuple[int, ...]
    unclear: tuple[int, ...]  # statements that may do so, or may not
    anybody: tuple[int, ...]  # statements that let in every AWS account
    others: tuple[str, ...]  # the other principals that get in, as the policy writes them
    ends: tuple[str, ...]  # the dates that end the broker's access, as the policy writes them
    listed: tuple[
        tuple[int, str], ...
    ] = ()  # fixed External IDs that are not the tenant's, with their statement
    # Each value for sts:ExternalId under which a statement may let the broker in, with the
    # statement, variables included.
    compared: tuple[tuple[int, str], ...] = ()


class _Answer(Enum):
    """Whether a part of a statement applies to a request."""

    NO = 0
    YES = 1
    CHOICE = 2  # to some such requests, and not to others
    UNKNOWN = 3


_NO, _YES, _CHOICE, _UNKNOWN = _Answer


class _Answers(NamedTuple):
    """The answers for many requests: for each answer, the bits of the requests that get it.

    The other requests get YES.
    """

    no: int = 0
    choice: int = 0
    unknown: int = 0


class _Values:
    """The values of one key, each with the bits of the requests that have it."""

    def __init__(
        self, globs: Globs, values: Iterable[tuple[str, int]], other: int = 0, absent: int = 0
    ) -> None:
        # Other: a value that the policy never compares with; absent: no value
        self.other, self.absent = (other, absent)
        self.present = other
        self.texts: dict[str, int] = {}
        self.lowered: dict[str, int] = {}
        self._by_patterns: dict[int, int] = {}
        for value, bits in values:
            patterns = globs.matching(value)
            self.present |= bits
            self.texts[value] = bits
            self.lowered[value.lower()] = self.lowered.get(value.lower(), 0) | bits
            self._by_patterns[patterns] = self._by_patterns.get(patterns, 0) | bits

    def matching(self, patterns: int) -> int:
        """Return the requests whose value matches one of these patterns."""
        return sum(bits for matched, bits in self._by_patterns.items() if matched & patterns)


class _Requests(NamedTuple):
    """Requests that differ in one key, each a bit of `everything`.

    `broker`: they are our broker's; None: they are anybody else's.
    """

    broker: Broker | None
    everything: int
    keys: dict[str, _Values]
    globs: Globs

    def spread(self, answer: _Answer) -> _Answers:
        """Return the same answer for each request."""
        if answer is _YES:
            return _Answers()
        return _Answers(
            *(self.everything if answer is it else 0 for it in (_NO, _CHOICE, _UNKNOWN))
        )


def read(
    policy: object,
    broker: Broker,
    role_account: AccountId,
    external_ids: Collection[str],
    retired: Collection[str],
) -> Reading:
    """Read a policy.

    `external_ids`: those that the tenant's roles are to accept. `retired`: the tenant's others.
    They belong to nobody else, each rotation adds one, and none is tried.
    """
    if (parsed := statements_of(policy)) is None:
        return Reading((), (0,), (), (), ())
    statements = {n: statement_of(it) for n, it in parsed.items()}
    globs, actions = Globs(_patterns(statements)), _Actions(statements)
    ours = sorted(external_ids)
    foreign = _compared(statements, _EXTERNAL_ID) - {*external_ids, *retired}
    theirs = sorted(filter(_SENDABLE.fullmatch, foreign))
    requests = _of_broker(broker, role_account, [*ours, *theirs], globs)
    own = (1 << len(ours)) - 1  # the requests with one of them
    answers = {n: _answers(it, requests) for n, it in statements.items()}
    ways = _ways_in(statements, answers, actions, _ASSUME, requests.everything)
    bits = {external_id: 1 << n for n, external_id in enumerate(theirs, len(ours))}
    listed = _listed(statements, ways, bits)
    strange = {
        n: yes & ~own & ~sum(bits[value] for value in listed[n]) for n, (yes, _) in ways.items()
    }
    opened = {n for n, yes in strange.items() if yes}
    maybe = {n for n, (_, unknown) in ways.items() if strange[n] | unknown & ~own}
    admitting = {n for n, (yes, unknown) in ways.items() if (yes | unknown) & own}
    reach = {n: (yes | unknown) & ~own for n, (yes, unknown) in ways.items()}
    sought = {n: statements[n].compared(_EXTERNAL_ID, negated=False) for n in ways}
    # Where none admits us, the statement that let us in is not in this policy.
    unclear = sorted(maybe - opened) if admitting else [0]
    return Reading(
        open=tuple(sorted(opened)),
        unclear=tuple(unclear),
        anybody=let_in_anybody(statements, actions.named),
        others=tuple(dict.fromkeys(_others(statements, broker, actions, globs))),
        ends=tuple(dict.fromkeys(_ends(admitting, statements, answers, actions, own))),
        listed=tuple((n, value) for n in sorted(listed) for value in listed[n]),
        compared=tuple(
            (n, value) for n in reach for value in sought[n] if reach[n] & bits.get(value, ~own)
        ),
    )


def _listed(
    statements: _Statements, ways: dict[int, tuple[int, int]], bits: dict[str, int]
) -> dict[int, list[str]]:
    """Return the foreign External IDs that each statement compares for equality and admits."""
    equal = {n: sorted(statements[n].compared(_EXTERNAL_ID, *_EQUAL)) for n in ways}
    return {
        n: [value for value in equal[n] if yes & bits.get(value, 0)] for n, (yes, _) in ways.items()
    }


def _patterns(statements: _Statements) -> Iterator[tuple[str, bool]]:
    """Yield the patterns of the policy, each with whether it is an ARN's.

    Patterns with white space are left out, because no value that is compared has any. AWS does not
    count white space in a policy's size, so a policy may have sixteen times as much of it.
    """
    for statement in statements.values():
        for it in statement.comparisons:
            if it.name in _LIKE:
                yield from (
                    (value, it.name != "stringlike")
                    for value in it.values
                    if _is_pattern(value) and not _SPACE.search(value)
                )


def _is_pattern(value: str) -> bool:
    return "*" in value or "?" in value


class _Actions:
    """The statements that are about each way into a role."""

    def __init__(self, statements: _Statements) -> None:
        actions = (action.lower() for it in statements.values() for action in it.actions)
        globs = Globs((action, False) for action in actions if not _SPACE.search(action))
        self.named: dict[str, set[int]] = {}
        self._unclear = {n for n, it in statements.items() if not it.actions}
        for way in _WAYS_IN:
            matched = globs.matching(way)
            hits = {pattern for (pattern, _), bit in globs.accepting.items() if matched & bit}
            self.named[way] = {
                n
                for n, it in statements.items()
                if n not in self._unclear
                and it.negates_actions == hits.isdisjoint(map(str.lower, it.actions))
            }

    def answer(self, n: int, way: str) -> _Answer:
        return _UNKNOWN if n in self._unclear else _YES if n in self.named[way] else _NO


def _of_broker(
    broker: Broker, role_account: AccountId, external_ids: list[str], globs: Globs
) -> _Requests:
    """Return the broker's requests: one for each External ID, one with any other, one without."""
    other = 1 << len(external_ids)
    everything = (other << 2) - 1
    keys = {
        _EXTERNAL_ID: _Values(
            globs, ((it, 1 << n) for n, it in enumerate(external_ids)), other, other << 1
        )
    }
    fixed = {
        _PRINCIPAL_ARN: broker.arn,
        "aws:principalaccount": broker.account_id,
        "aws:principaltype": "AssumedRole" if broker.is_role else "User",
        "aws:principalisawsservice": "false",
        "aws:viaawsservice": "false",
        "aws:securetransport": "true",
        "aws:resourceaccount": role_account,
    }
    keys |= {key: _Values(globs, [(value, everything)]) for key, value in fixed.items()}
    return _Requests(broker, everything, keys, globs)


def _ways_in(
    statements: _Statements,
    answers: dict[int, _Answers],
    actions: _Actions,
    way: str,
    everything: int,
) -> dict[int, tuple[int, int]]:
    """Return for each statement that lets somebody in the requests that get in by it.

    They are two sets of bits: the requests that surely get in, and those that may.
    """
    closed = doubtful = 0
    admitted = {}
    for n, statement in statements.items():
        no, choice, unknown = answers[n]
        named = actions.answer(n, way)
        applies = 0 if named is _NO else everything & ~no
        unknown = everything if named is _UNKNOWN else unknown
        if statement.allows:
            admitted[n] = applies, unknown
        else:
            closed |= applies & ~choice & ~unknown
            doubtful |= applies & ~choice & unknown
    split = {
        n: (applies & ~closed, unknown | doubtful) for n, (applies, unknown) in admitted.items()
    }
    return {
        n: (applies & ~unknown, applies & unknown)
        for n, (applies, unknown) in split.items()
        if applies
    }


def _answers(statement: Statement, requests: _Requests) -> _Answers:
    """Return the requests to which some part of the statement does not apply, or may not.

    Its actions are not a part.
    """
    parts = [_condition(it, requests) for it in statement.comparisons]
    parts += [
        requests.spread(_YES if statement.is_understood else _UNKNOWN),
        _principal(statement, requests),
    ]
    return _Answers(*(reduce(or_, column) for column in zip(*parts, strict=True)))


def _principal(statement: Statement, requests: _Requests) -> _Answers:
    found = {_named(kind, name, requests.broker) for kind, name in statement.names}
    # NotPrincipal, for example, is not understood.
    return requests.spread(
        next((it for it in (_YES, _UNKNOWN, _CHOICE, _NO) if it in found), _UNKNOWN)
    )


def _named(kind: str, name: str, broker: Broker | None) -> _Answer:
    if (kind, name) == ("AWS", "*"):
        return _YES
    if broker is None:
        return _CHOICE
    if kind != "AWS":
        return _NO
    if name in {
        broker.arn,
        broker.account_id,
        f"arn:{broker.partition}:iam::{broker.account_id}:root",
    }:
        return _YES
    if _is_session_of(broker, name):
        return _CHOICE
    # IAM shows and accepts a unique id for a deleted principal
    return _NO if _SOMEBODY.fullmatch(name) else _UNKNOWN


def _is_session_of(broker: Broker, name: str) -> bool:
    return name.startswith(
        f"arn:{broker.partition}:sts::{broker.account_id}:assumed-role/{broker.name}/"
    )


def _condition(it: Comparison, requests: _Requests) -> _Answers:
    if it.name is None or not it.values:
        return requests.spread(_UNKNOWN)
    if it.key == _USER_ID and requests.broker is not None:
        return requests.spread(_user_id(it, requests.broker))
    if it.key not in requests.keys:
        is_choice = requests.broker is None or _CHOSEN.fullmatch(it.key)
        return requests.spread(_CHOICE if is_choice else _UNKNOWN)
    have = requests.keys[it.key]
    if it.name == "null":
        asked = {value.lower() for value in it.values}
        if it.operator != it.name or asked not in ({"true"}, {"false"}):
            return requests.spread(_UNKNOWN)
        return _Answers(no=have.present if asked == {"true"} else have.absent)
    yes, choice, unknown = _matching(it, have, requests.globs)
    present = requests.everything & ~have.absent
    unknown &= ~yes
    choice &= ~(yes | unknown)
    no = yes if it.negated else present & ~(yes | choice | unknown)
    holds_absent = (
        it.if_exists or it.quantifier == "forallvalues" or (it.negated and not it.quantifier)
    )
    return _Answers(no if holds_absent else no | have.absent, choice, unknown)


def _matching(it: Comparison, have: _Values, globs: Globs) -> tuple[int, int, int]:
    """Return the requests that match, those that are a choice, and those that are unknown.

    A request matches if its value is one of those that the comparison names.
    """
    yes = choice = unknown = patterns = 0
    for value in it.values:
        if not _is_read(it, value):
            unknown = have.present
        elif it.name in {"bool", "stringequalsignorecase"}:
            yes |= have.lowered.get(value.lower(), 0)
            unknown |= have.other
        else:
            yes |= have.texts.get(value, 0)
            if it.name in _LIKE and _is_pattern(value):
                patterns |= globs.accepting.get((value, it.name != "stringlike"), 0)
                if it.name == "stringlike" and _ANYTHING.fullmatch(value):
                    yes |= have.other
                choice |= have.other
    if patterns:
        yes |= have.matching(patterns)
    return yes, choice, unknown


def _is_read(it: Comparison, value: str) -> bool:
    if it.name == "bool":
        return value.lower() in {"true", "false"}
    return (
        it.name in _READ
        and "${" not in value
        and (not it.name.startswith("arn") or value.count(":") >= 5)
    )


def _user_id(it: Comparison, broker: Broker) -> _Answer:
    """Judge a comparison of aws:userid.

    It is the unique id of a principal. For a role, the name of the session follows, which is a
    choice. Deputy does not know the broker's unique id, only how such ids begin.
    """
    if it.operator == "null":
        asked = {value.lower() for value in it.values}
        return _NO if asked == {"true"} else _YES if asked == {"false"} else _UNKNOWN
    if it.name not in {"stringequals", "stringequalsignorecase", "stringlike"}:
        return _UNKNOWN
    found = {_fit(value, broker) for value in it.values} if it.name == "stringlike" else {_UNKNOWN}
    if _YES in found:
        return _NO if it.negated else _YES
    return _UNKNOWN if _UNKNOWN in found else _CHOICE


def _fit(pattern: str, broker: Broker) -> _Answer:
    """Return whether a pattern matches aws:userid of every principal of the broker's type.

    For a role, the answer is a choice if it matches only sessions of some names.
    """
    before, colon, session = pattern.partition(":")
    start = before[:4].split("*")[0].split("?")[0]
    if not ("AROA" if broker.is_role else "AIDA").startswith(start):
        return _UNKNOWN
    tail = before[len(start) :].lstrip("*?")
    head = before.removesuffix(tail)
    least, has_star = len(head) - head.count("*"), "*" in head
    fits_id = not tail and (least == _UNIQUE_ID or (has_star and least < _UNIQUE_ID))
    if not broker.is_role:
        return _YES if fits_id and not colon else _UNKNOWN
    if colon:
        if not fits_id or ":" in session:
            return _UNKNOWN
        return _YES if _ANYTHING.fullmatch(session) else _CHOICE
    if not has_star and least <= _UNIQUE_ID:
        return _UNKNOWN
    # A wildcard matches the colon
    return _YES if has_star and not tail and least <= _UNIQUE_ID else _CHOICE


def _compared(statements: _Statements, key: str) -> set[str]:
    return set().union(*(it.compared(key) for it in statements.values()))


def _others(
    statements: _Statements, broker: Broker, actions: _Actions, globs: Globs
) -> Iterator[str]:
    """Yield the other principals that get in.

    A condition on aws:PrincipalArn can narrow a principal. Then the ARNs in the condition are named
    instead.
    """
    # A value with white space is nobody's ARN.
    arns = sorted(
        arn
        for arn in _compared(statements, _PRINCIPAL_ARN) - {broker.arn}
        if not _SPACE.search(arn)
    )
    bits = {arn: 2 << n for n, arn in enumerate(arns)}
    keys = {_PRINCIPAL_ARN: _Values(globs, bits.items(), other=1)}
    requests = _Requests(None, (2 << len(arns)) - 1, keys, globs)
    answers = {n: _answers(it, requests) for n, it in statements.items()}
    admitted = dict.fromkeys(statements, 0)
    for way in _WAYS_IN:
        for n, (yes, unknown) in _ways_in(
            statements, answers, actions, way, requests.everything
        ).items():
            admitted[n] |= yes | unknown
    for n, statement in statements.items():
        if not admitted[n] & 1:
            continue
        if statement.has_other_names:
            yield "everybody but " + ", ".join(name for _, name in statement.other_names)
        else:
            names = [name for _, name in statement.names]
            yield from (
                name for name in names if name != broker.arn and not _is_session_of(broker, name)
            )
    named = [(admitted[n], it.compared(_PRINCIPAL_ARN)) for n, it in statements.items()]
    let_in = {arn for bits_of, compared in named for arn in compared if bits_of & bits.get(arn, 0)}
    yield from sorted(let_in)


def _ends(
    admitting: set[int],
    statements: _Statements,
    answers: dict[int, _Answers],
    actions: _Actions,
    own: int,
) -> Iterator[str]:
    """Yield the dates that end the broker's access.

    A date in one statement ends nothing while another statement lets us in without a date.
    """
    until = [list(_dates(statements[n], "lessthan")) for n in sorted(admitting)]
    if all(until):
        yield from (date for dates in until for date in dates)
    for n, statement in statements.items():
        if not statement.allows and actions.answer(n, _ASSUME) is not _NO and own & ~answers[n].no:
            yield from _dates(statement, "greaterthan")


def _dates(statement: Statement, order: str) -> Iterator[str]:
    for it in statement.comparisons:
        if order in it.operator and it.key in {"aws:currenttime", "aws:epochtime"}:
            yield from it.values
