"""Read a role's trust policy: whether it demands the External ID, and who else gets in.

A proof's calls show how the role answers those calls. The policy also shows how the role answers
other calls: with another session name, at another time, from another principal. Each statement is
judged for requests without an External ID, with each External ID that the policy names, and with
one that it does not name. A condition that Deputy does not understand makes a statement unclear:
neither secure nor insecure.

The External ID is not secret, so it keeps nobody out. "Anybody else" is a principal whose account,
organization and ARN the policy does not name. A statement for the principal `*` lets in anybody
else unless its Condition compares the account, the organization or the ARN. A statement for an
identity provider that gives a login to everybody lets in anybody else unless its Condition compares
a claim that says whose login it is. That comparison must have only values that nobody else can
have, and an operator that fails if the key is absent.

All functions are pure, and take a parsed policy. Property tests compare them with the sandbox's own
evaluator and with a simple implementation.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import NamedTuple

from app.ids import AccountId, Broker
from app.proofs.access_end import end_dates
from app.proofs.policy_conditions import (
    CHOICE,
    EXTERNAL_ID,
    LIKE,
    NO,
    UNKNOWN,
    YES,
    RequestAnswers,
    Requests,
    is_pattern,
    requests_of_broker,
    strongest,
)
from app.proofs.policy_outsiders import (
    SPACE,
    WEB_IDENTITY,
    Outsiders,
    admits_anybody,
    denies_anybody,
    is_session_of,
)
from app.proofs.policy_statements import Globs, Statement, statements_of

_ASSUME = "sts:assumerole"
WAYS_IN = (_ASSUME, f"{_ASSUME}withsaml", WEB_IDENTITY)
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
    # Statements that let in every AWS account, or everybody at a public identity provider
    anybody: tuple[int, ...] = ()
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

    def answers(
        self, requests: Requests, principals_of: Callable[[Statement], RequestAnswers]
    ) -> dict[int, RequestAnswers]:
        """Return to which requests each statement applies, regardless of its actions."""
        answers = {}
        for statement in self.statements:
            answers[statement.number] = principals_of(statement) | requests.answers_of(statement)
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
            if statement.allows and admits_anybody(statement, way):
                admitting.add(statement.number)
            if not statement.allows and denies_anybody(statement):
                return set()
        return admitting


def _names_broker(broker: Broker, statement: Statement) -> RequestAnswers:
    """Return whether the principals of a statement include the broker."""
    return strongest(_is_broker(broker, *name) for name in statement.names)


def _is_broker(broker: Broker, kind: str, name: str) -> RequestAnswers:
    account = broker.account_id
    ours = {"*", broker.arn, account, f"arn:{broker.partition}:iam::{account}:root"}
    if kind == "AWS" and name in ours:
        return YES
    if kind == "AWS" and is_session_of(broker, name):
        return CHOICE
    if kind != "AWS" or SOMEBODY.fullmatch(name):
        return NO
    return UNKNOWN  # such as the unique id that IAM shows for a deleted principal


def _compiled(patterns: Iterable[tuple[str, bool]]) -> Globs:
    """Compile the patterns that contain no white space.

    The others match nothing, because no compared text has white space. AWS does not count white
    space in a policy's size, so a policy may have sixteen times as much of it as other text.
    """
    return Globs(pattern for pattern in patterns if not SPACE.search(pattern[0]))


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
    answers = trust.answers(requests, partial(_names_broker, broker))
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

    They are the principals of each statement that lets in callers whose ARNs the policy does not
    name, and each ARN that the policy names, in whatever element, and lets in.
    """
    outsiders = Outsiders(trust.statements, trust.globs, broker)
    answers = trust.answers(outsiders.requests, outsiders.named_by)
    admitted: defaultdict[int, int] = defaultdict(int)
    for way in WAYS_IN:
        for entry in trust.entries(way, outsiders.requests, answers):
            admitted[entry.statement.number] |= entry.possible
    for statement in trust.statements:
        yield from outsiders.principals_among(statement, admitted[statement.number])
    for arn, bit in outsiders.bits.items():
        if any(bit & reached for reached in admitted.values()):
            yield arn


def _denying(
    trust: _TrustPolicy, answers: Mapping[int, RequestAnswers], own: int
) -> Iterator[Statement]:
    """Yield the Deny statements that may apply to a request with one of the tenant's IDs."""
    for statement in trust.statements:
        may_apply = trust.actions[statement.number][_ASSUME] is not NO
        if may_apply and not statement.allows and own & ~answers[statement.number].no:
            yield statement
