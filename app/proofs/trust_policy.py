"""Read a role's trust policy: whether it demands the External ID, and who else gets in.

A proof's calls show how the role answers those calls. The policy also shows how the role answers
other calls: with another session name, at another time, from another principal. Each statement is
judged for requests without an External ID, with each External ID that the policy names, and with
one that it does not name. A condition that Deputy does not understand makes a statement unclear:
neither secure nor insecure.

The External ID is not secret, so it keeps nobody out. "Anybody else" is a principal whose account,
organization and ARN the policy does not name. A statement for the principal `*` lets in anybody
else unless its Condition compares the account, the organization or the ARN. That comparison must
have only values that nobody else can have, and an operator that fails if the key is absent.

All functions are pure, and take a parsed policy. Property tests compare them with the sandbox's own
evaluator and with a simple implementation.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain, filterfalse
from typing import NamedTuple

from app.ids import AccountId, Broker
from app.proofs.access_end import end_dates
from app.proofs.policy_conditions import (
    CHOICE,
    EXTERNAL_ID,
    LIKE,
    NO,
    PRINCIPAL_ARN,
    UNKNOWN,
    YES,
    KeyValues,
    RequestAnswers,
    Requests,
    holds_for_anybody,
    is_pattern,
    narrows,
    requests_of_broker,
    strongest,
)
from app.proofs.policy_statements import Globs, Statement, statements_of

_ASSUME = "sts:assumerole"
WAYS_IN = (_ASSUME, f"{_ASSUME}withsaml", f"{_ASSUME}withwebidentity")
_SPACE = re.compile(r"\s")
SOMEBODY = re.compile(r"[0-9]{12}|arn:aws[a-z-]*:(iam|sts)::[0-9]{12}:[\w+=,.@/-]+", re.ASCII)
SENDABLE = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)  # the External IDs that STS accepts
_EQUAL = {"stringequals", "foranyvalue:stringequals"}


class Reading(NamedTuple):
    """The result of reading a trust policy, for our broker.

    Statements are numbered from 1. The number 0 stands for the whole policy.
    """

    # Statements that accept the broker without an External ID, or with one that is neither the
    # tenant's nor in `listed`
    open: tuple[int, ...] = ()
    unclear: tuple[int, ...] = ()  # statements that may belong in `open`
    anybody: tuple[int, ...] = ()  # statements that let in every AWS account
    others: tuple[str, ...] = ()  # the other principals that get in, as the policy writes them
    ends: tuple[str, ...] = ()  # dates that end the broker's access, as the policy writes them
    # (statement, value): fixed External IDs that are not the tenant's
    listed: tuple[tuple[int, str], ...] = ()
    # (statement, value): values of sts:ExternalId with which the statement may accept the broker. A
    # value may contain variables.
    compared: tuple[tuple[int, str], ...] = ()


class _Entry(NamedTuple):
    """A statement, and the bits of the requests that it certainly or possibly lets in."""

    statement: Statement
    certain: int
    possible: int


class _TrustPolicy:
    """The statements of a policy, with their patterns compiled."""

    def __init__(self, statements: list[Statement]) -> None:
        self.statements = statements
        self.globs = _compiled(chain.from_iterable(map(_patterns, statements)))
        self.actions = {statement.number: _actions(statement) for statement in statements}

    def compared(self, key: str) -> set[str]:
        return set().union(*(statement.compared(key) for statement in self.statements))

    def answers(self, requests: Requests) -> dict[int, RequestAnswers]:
        """Return to which requests each statement applies, regardless of its actions."""
        answers = {}
        for statement in self.statements:
            principals = strongest(_principal(*name, requests.broker) for name in statement.names)
            answers[statement.number] = principals | requests.answers_of(statement)
        return answers

    def entries(
        self, way: str, requests: Requests, answers: Mapping[int, RequestAnswers]
    ) -> Iterator[_Entry]:
        """Yield each statement that lets in some of the requests by the action `way`."""
        closed = doubtful = 0
        allowed = []
        for statement in self.statements:
            no, choice, unknown = answers[statement.number] | self.actions[statement.number][way]
            applies = requests.everything & ~no
            if statement.allows:
                allowed.append((statement, applies, unknown))
            else:
                closed |= applies & ~choice & ~unknown
                doubtful |= applies & ~choice & unknown
        for statement, applies, unknown in allowed:
            if admitted := applies & ~closed:
                yield _Entry(statement, admitted & ~unknown & ~doubtful, admitted)

    def anybody(self, way: str) -> set[int]:
        """Return the numbers of the statements that let in anybody else by the action `way`.

        There are none if a statement denies anybody else.
        """
        admitting = set()
        for statement in self.statements:
            if self.actions[statement.number][way] is not YES:
                continue
            if statement.allows and _admits_anybody(statement):
                admitting.add(statement.number)
            if not statement.allows and _denies_anybody(statement):
                return set()
        return admitting


def _principal(kind: str, name: str, broker: Broker | None) -> RequestAnswers:
    """Return whether a principal that a statement names is the broker (None: anybody else)."""
    if (kind, name) == ("AWS", "*"):
        return YES
    if broker is None:
        return CHOICE
    account = broker.account_id
    ours = {broker.arn, account, f"arn:{broker.partition}:iam::{account}:root"}
    if kind == "AWS" and name in ours:
        return YES
    if kind == "AWS" and _is_session_of(broker, name):
        return CHOICE
    if kind != "AWS" or SOMEBODY.fullmatch(name):
        return NO
    return UNKNOWN  # such as the unique id that IAM shows for a deleted principal


def _is_session_of(broker: Broker, name: str) -> bool:
    sessions = f"arn:{broker.partition}:sts::{broker.account_id}:assumed-role/{broker.name}/"
    return broker.is_role and name.startswith(sessions)


def _compiled(patterns: Iterable[tuple[str, bool]]) -> Globs:
    """Compile the patterns that contain no white space.

    The others match nothing, because no compared text has white space. AWS does not count white
    space in a policy's size, so a policy may have sixteen times as much of it as other text.
    """
    return Globs(pattern for pattern in patterns if not _SPACE.search(pattern[0]))


def _patterns(statement: Statement) -> Iterator[tuple[str, bool]]:
    """Yield (pattern, whether it is for ARNs) for each pattern in a statement's comparisons."""
    for comparison in statement.comparisons:
        if comparison.name in LIKE:
            for value in filter(is_pattern, comparison.values):
                yield value, comparison.name != "stringlike"


def _actions(statement: Statement) -> dict[str, RequestAnswers]:
    """Return, for each action in WAYS_IN, whether the statement applies to it."""
    if not statement.actions:
        return dict.fromkeys(WAYS_IN, UNKNOWN)
    globs = _compiled((action.lower(), False) for action in statement.actions)
    answers = dict.fromkeys(WAYS_IN, NO)
    for way in WAYS_IN:
        if bool(globs.matching(way)) != statement.negates_actions:
            answers[way] = YES
    return answers


def read(
    policy: object,
    broker: Broker,
    role_account: AccountId,
    external_ids: Collection[str],
    retired: Collection[str],
) -> Reading:
    """Return what a trust policy means for the broker and for others.

    `external_ids`: the External IDs that the tenant's roles may accept. `retired`: the tenant's
    other External IDs. They are not tried, because they belong to no other tenant, and each
    rotation adds one.
    """
    statements = statements_of(policy)
    if statements is None:
        return Reading(unclear=(0,))
    trust = _TrustPolicy(statements)
    foreign = filter(SENDABLE.fullmatch, trust.compared(EXTERNAL_ID) - {*external_ids, *retired})
    requests = requests_of_broker(broker, role_account, [*external_ids, *foreign], trust.globs)
    own = (1 << len(external_ids)) - 1  # bits of the requests with one of `external_ids`
    answers = trust.answers(requests)
    entries = list(trust.entries(_ASSUME, requests, answers))
    admitting = [entry.statement for entry in entries if entry.possible & own]
    reading = _read_external_ids(entries, requests.keys[EXTERNAL_ID].texts, own)
    if not admitting:  # no statement of this policy can have let us in
        reading = reading._replace(unclear=(0,))
    return reading._replace(
        anybody=tuple(sorted(set().union(*map(trust.anybody, WAYS_IN)))),
        others=tuple(dict.fromkeys(_others(trust, broker))),
        ends=tuple(dict.fromkeys(end_dates(admitting, _denying(trust, answers, own)))),
    )


def _read_external_ids(entries: list[_Entry], bits: Mapping[str, int], own: int) -> Reading:
    """Return a Reading with the fields about External IDs.

    `bits`: the request's bit for each External ID that is tried.
    """
    opened, unclear = [], []
    listed, compared = set(), set()
    for statement, certain, possible in entries:
        number = statement.number
        strange, reached = certain & ~own, possible & ~own
        for operator, value in _external_ids(statement):
            bit = bits.get(value, 0) & ~own
            if reached & (bit or -1):
                compared.add((number, value))
            if certain & bit and operator in _EQUAL:
                listed.add((number, value))
                strange &= ~bit
        if strange:
            opened.append(number)
        elif reached & ~certain:
            unclear.append(number)
    return Reading(
        tuple(opened),
        tuple(unclear),
        listed=tuple(sorted(listed)),
        compared=tuple(sorted(compared)),
    )


def _external_ids(statement: Statement) -> Iterator[tuple[str, str]]:
    """Yield (operator, External ID) for each External ID that a statement accepts."""
    for comparison in statement.comparisons:
        if comparison.key == EXTERNAL_ID and not comparison.negated:
            for value in comparison.values:
                yield comparison.operator, value


def _others(trust: _TrustPolicy, broker: Broker) -> Iterator[str]:
    """Yield the principals other than the broker that the policy lets in.

    If a condition on aws:PrincipalArn narrows a principal, the ARNs in the condition are yielded
    instead. A value with white space is left out, because no ARN has any.
    """
    named = trust.compared(PRINCIPAL_ARN) - {broker.arn}
    arns = sorted(filterfalse(_SPACE.search, named))
    # The first bit is the request with an ARN that the policy does not name.
    bits = {arn: 2 << n for n, arn in enumerate(arns)}
    keys = {PRINCIPAL_ARN: KeyValues(trust.globs, bits, other=1)}
    requests = Requests(None, (2 << len(arns)) - 1, keys)
    answers = trust.answers(requests)
    admitted: defaultdict[int, int] = defaultdict(int)
    for way in WAYS_IN:
        for entry in trust.entries(way, requests, answers):
            admitted[entry.statement.number] |= entry.possible
    narrowed = set()
    for statement in trust.statements:
        reached = admitted[statement.number]
        if reached & 1:
            yield from _other_principals(statement, broker)
        for arn in statement.compared(PRINCIPAL_ARN):
            if reached & bits.get(arn, 0):
                narrowed.add(arn)
    yield from sorted(narrowed)


def _other_principals(statement: Statement, broker: Broker) -> Iterator[str]:
    if statement.other_names is not None:
        yield "everybody but " + ", ".join(name for _, name in statement.other_names)
        return
    for _, name in statement.names:
        if name != broker.arn and not _is_session_of(broker, name):
            yield name


def _denying(
    trust: _TrustPolicy, answers: Mapping[int, RequestAnswers], own: int
) -> Iterator[Statement]:
    """Yield the Deny statements that may apply to a request with one of the tenant's IDs."""
    for statement in trust.statements:
        may_apply = trust.actions[statement.number][_ASSUME] is not NO
        if may_apply and not statement.allows and own & ~answers[statement.number].no:
            yield statement


def _admits_anybody(statement: Statement) -> bool:
    """Return whether an Allow statement may let in anybody else.

    If Deputy does not understand a part, it assumes that the part keeps nobody out.
    """
    everybody = _names_everybody(statement.names)
    if statement.other_names is not None and ("AWS", "*") not in statement.other_names:
        everybody = True
    return everybody and not any(map(narrows, statement.comparisons))


def _denies_anybody(statement: Statement) -> bool:
    """Return whether a Deny statement certainly denies anybody else.

    If Deputy does not understand a part, it assumes that the statement denies nobody.
    """
    everybody = ("AWS", "*") in statement.names
    if statement.other_names:
        everybody = not _names_everybody(statement.other_names)
    understood = statement.is_understood and everybody
    return understood and all(map(holds_for_anybody, statement.comparisons))


def _names_everybody(names: list[tuple[str, str]]) -> bool:
    return any(name == "*" for _, name in names)
