"""The conditions of a trust policy, applied to requests.

`Requests.answers_of` decides to which requests the conditions of a statement apply, and
`requests_of_broker` has what Deputy takes for granted about the broker's own. Requests that differ
in one condition key are judged together. Each request is one bit of an integer, so even a large
policy is judged fast. The principal or its network chooses the values of some keys. For such a key,
Deputy assumes a value that the policy accepts. It calls this a choice.

All functions are pure.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from app.ids import AccountId, Broker
from app.proofs.policy_statements import Comparison, Globs, Statement

EXTERNAL_ID, PRINCIPAL_ARN, USER_ID = "sts:externalid", "aws:principalarn", "aws:userid"
NEVER_SENT = "sts:durationseconds"  # a key of GetServiceBearerToken, and of no way into a role
_UNIQUE_ID = 21  # characters of the unique id of a role or user
_UNKNOWN_CHARACTER = "\0"  # only wildcards match it, because no policy contains it
_USER_IDS = 24, 86  # characters of the shortest and of the longest user id of a role
# Patterns that match every text of two or more characters. Each External ID has two or more.
_ANYTHING = re.compile(r"\*+\?{,2}|\?{1,2}\*+")
# Condition keys with values that depend on the broker's request, session or network. Two requests
# of the broker may have different values.
CHOSEN = re.compile(
    r"sts:(rolesessionname|sourceidentity|transitivetagkeys|requestcontext(providers|/.+))"
    r"|aws:((request|principal)tag/.+|tagkeys|sourceidentity|currenttime|epochtime|tokenissuetime"
    r"|requestedregion|sourceip|vpcsourceip|sourcevpc|sourcevpcarn|sourcevpce|vpceaccount"
    r"|vpceorgid|vpceorgpaths|referer|useragent"
    r"|ec2instancesource.+)|(ec2|ssm):sourceinstancearn|ec2:roledelivery|lambda:sourcefunctionarn",
    re.DOTALL,
)
LIKE = {"stringlike", "arnequals", "arnlike"}  # operators whose values are patterns
_IN_ANY_CASE = {"stringequalsignorecase", "bool"}
_READ = LIKE | _IN_ANY_CASE | {"stringequals"}
_PATHS = "aws:principalorgpaths"
# The identity providers that give a login to everybody, and the claims that say whose a login is:
# AWS's page "Identity-provider controls for shared OIDC providers", and its lists of keys for
# federation. GitHub's further claims are in GitHub's own reference.
PUBLIC_CLAIMS = {
    "cognito-identity.amazonaws.com": ("aud", "sub"),
    "accounts.google.com": ("aud", "oaud", "sub"),
    "graph.facebook.com": ("app_id", "id"),
    "www.amazon.com": ("app_id", "user_id"),
    "token.actions.githubusercontent.com": (
        *("sub", "repository", "repository_id", "repository_owner", "repository_owner_id"),
    ),
    "gitlab.com": ("sub",),
    "app.terraform.io": ("sub",),
    "agent.buildkite.com": ("sub",),
}
_CLAIMS = {f"{host}:{claim}" for host, claims in PUBLIC_CLAIMS.items() for claim in claims}
_NARROWING = {PRINCIPAL_ARN, "aws:principalaccount", "aws:principalorgid", _PATHS, *_CLAIMS}
_FIXED = {"stringequals", "stringequalsignorecase"}  # operators whose values are no patterns
# The owner in a subject, as in repo:owner/… and organization:owner:…
_OWNER = re.compile(r"(?:(?:repo|project_path|organization):)?+[^:/]+[:/]")
# A pattern that lets in nobody else has this prefix before its first wildcard.
_BEGINS = {
    PRINCIPAL_ARN: re.compile(r"arn:[^:]+:(iam|sts)::[0-9]{12}:"),
    _PATHS: re.compile(r"o-[a-z0-9]+/"),
    "token.actions.githubusercontent.com:repository": re.compile(r"[^:/]+/"),
    "token.actions.githubusercontent.com:sub": _OWNER,
    "gitlab.com:sub": _OWNER,
    "app.terraform.io:sub": _OWNER,
    "agent.buildkite.com:sub": _OWNER,
}
# IAM compares ARNs part by part, so a wildcard before the account does not match the account.
_ARN_OF_ACCOUNT = re.compile(r"([^:]*:){4}[0-9]{12}:.*", re.DOTALL)
# IAM replaces these variables by the role's account and organization, which nobody else has.
_OF_RESOURCE = re.compile(r"\$\{aws:resource(account|orgid)\}", re.IGNORECASE)


class RequestAnswers(NamedTuple):
    """The answer for each request: whether a part of a statement applies to it.

    Each field has the bits of the requests with that answer. `choice`: the principal can choose
    whether the part applies. A request in none of the fields has the answer YES.
    """

    no: int = 0
    choice: int = 0
    unknown: int = 0

    def __or__(self, other: "RequestAnswers") -> "RequestAnswers":
        """Return the answers for a statement that has both parts."""
        return RequestAnswers(
            self.no | other.no, self.choice | other.choice, self.unknown | other.unknown
        )


# The same answer for every request: -1 has all bits set.
YES, NO, CHOICE, UNKNOWN = (
    RequestAnswers(),
    RequestAnswers(no=-1),
    RequestAnswers(choice=-1),
    RequestAnswers(unknown=-1),
)


class KeyValues:
    """The values of one condition key, and the bits of the requests that have each value.

    `other`: the requests with a value that the policy does not name. `absent`: the requests without
    the key.
    """

    def __init__(
        self, globs: Globs, values: Mapping[str, int], other: int = 0, absent: int = 0
    ) -> None:
        self.globs = globs
        self.other = other
        self.absent = absent
        self.texts = values
        self.lowered: defaultdict[str, int] = defaultdict(int)
        self._by_patterns: defaultdict[int, int] = defaultdict(int)
        for value, bits in values.items():
            self.lowered[value.lower()] |= bits
            self._by_patterns[globs.matching(value)] |= bits

    def matching(self, patterns: int) -> int:
        """Return the requests whose value matches one of these patterns."""
        requests = 0
        for matched, bits in self._by_patterns.items():
            if matched & patterns:
                requests |= bits
        return requests


class Requests(NamedTuple):
    """Requests that differ in one condition key.

    `broker`: the broker, if it makes the requests; None: anybody else makes them.
    """

    broker: Broker | None
    everything: int  # the bits of all requests
    keys: dict[str, KeyValues]

    def answers_of(self, statement: Statement) -> RequestAnswers:
        """Return to which requests the statement applies, whatever its principals and actions."""
        answers = YES if statement.is_understood else UNKNOWN
        for comparison in statement.comparisons:
            answers |= _compare(comparison, self)
        return answers


def requests_of_broker(
    broker: Broker, role_account: AccountId, external_ids: Sequence[str], globs: Globs
) -> Requests:
    """Return the broker's requests: one with each External ID, one with another, one without."""
    other = 1 << len(external_ids)
    everything = (other << 2) - 1
    bits = {external_id: 1 << n for n, external_id in enumerate(external_ids)}
    keys = {
        EXTERNAL_ID: KeyValues(globs, bits, other, other << 1),
        USER_ID: KeyValues(globs, {}),
        NEVER_SENT: KeyValues(globs, {}, absent=everything),
    }
    for key, value in (
        (PRINCIPAL_ARN, broker.arn),
        ("aws:principalaccount", broker.account_id),
        ("aws:principaltype", "AssumedRole" if broker.is_role else "User"),
        ("aws:principalisawsservice", "false"),
        ("aws:viaawsservice", "false"),
        ("aws:securetransport", "true"),
        ("aws:resourceaccount", role_account),
    ):
        keys[key] = KeyValues(globs, {value: everything})
    return Requests(broker, everything, keys)


def strongest(alternatives: Iterable[RequestAnswers]) -> RequestAnswers:
    """Return the strongest answer for each request; UNKNOWN if there are none.

    YES is stronger than UNKNOWN, which is stronger than CHOICE.
    """
    answers = list(alternatives)
    if not answers:
        return UNKNOWN
    yes = unknown = choice = 0
    for answer in answers:
        yes |= ~(answer.no | answer.choice | answer.unknown)
        unknown |= answer.unknown
        choice |= answer.choice
    unknown &= ~yes
    choice &= ~(yes | unknown)
    return RequestAnswers(~(yes | unknown | choice), choice, unknown)


def _compare(comparison: Comparison, requests: Requests) -> RequestAnswers:
    if comparison.name is None or not comparison.values:
        return UNKNOWN
    values = requests.keys.get(comparison.key)
    if values is None:
        is_choice = requests.broker is None or CHOSEN.fullmatch(comparison.key)
        return CHOICE if is_choice else UNKNOWN
    if comparison.name == "null":
        return _compare_with_null(comparison, values)
    if comparison.key == USER_ID and requests.broker is not None:
        return _compare_user_id(comparison, requests.broker)
    return _compare_texts(comparison, values)


def _compare_texts(comparison: Comparison, values: KeyValues) -> RequestAnswers:
    # `yes`: the requests whose value matches a value of the comparison
    yes = choice = unknown = patterns = 0
    is_text = comparison.name == "stringlike"
    for value in comparison.values:
        if not _is_read(comparison.name, value):
            unknown = ~values.absent
        elif comparison.name in _IN_ANY_CASE:
            yes |= values.lowered.get(value.lower(), 0)
            unknown |= values.other
        else:
            yes |= values.texts.get(value, 0)
            if comparison.name in LIKE and is_pattern(value):
                patterns |= values.globs.accepting.get((value, not is_text), 0)
                choice = values.other
                if is_text and _ANYTHING.fullmatch(value):
                    yes |= values.other
    if patterns:
        yes |= values.matching(patterns)
    unknown &= ~yes
    choice &= ~(yes | unknown)
    no = yes if comparison.negated else ~(yes | choice | unknown)
    return RequestAnswers(no & ~values.absent, choice, unknown) | _without_key(
        comparison, values.absent
    )


def _without_key(comparison: Comparison, absent: int) -> RequestAnswers:
    """Return the answers for the requests `absent`, which do not have the compared key.

    AWS's documentation of `ForAnyValue:…IfExists` can be read both ways. AWS was seen to answer
    false, but not by us: `make aws-check` asks.
    """
    if comparison.quantifier == "foranyvalue":
        return RequestAnswers(unknown=absent) if comparison.if_exists else RequestAnswers(no=absent)
    if comparison.if_exists or comparison.quantifier or comparison.negated:
        return YES
    return RequestAnswers(no=absent)


def _compare_with_null(comparison: Comparison, values: KeyValues) -> RequestAnswers:
    absent = set(map(str.lower, comparison.values))
    if comparison.operator == "null" and absent == {"true"}:
        return RequestAnswers(no=~values.absent)
    if comparison.operator == "null" and absent == {"false"}:
        return RequestAnswers(no=values.absent)
    return UNKNOWN


def is_pattern(value: str) -> bool:
    return "*" in value or "?" in value


def _is_read(name: str | None, value: str) -> bool:
    if name == "bool":
        return value.lower() in {"true", "false"}
    if name in {"arnequals", "arnlike"} and value.count(":") < 5:
        return False
    return name in _READ and "${" not in value


def _compare_user_id(comparison: Comparison, broker: Broker) -> RequestAnswers:
    """Judge a comparison of aws:userid.

    This key is a user's unique id, or a role's unique id with a colon and the session name. The
    session name is a choice. Deputy does not know the broker's unique id, only the prefix of such
    ids.
    """
    if comparison.name != "stringlike":
        return UNKNOWN
    answer = strongest(_fit(value, broker) for value in comparison.values)
    if answer == YES and comparison.negated:
        return NO
    return answer


def _fit(pattern: str, broker: Broker) -> RequestAnswers:
    """Return whether a pattern matches aws:userid of every principal of the broker's type.

    For a role, the answer is CHOICE if the pattern matches only some session names.
    """
    unique_id = ("AROA" if broker.is_role else "AIDA").ljust(_UNIQUE_ID, _UNKNOWN_CHARACTER)
    if len(pattern.replace("*", "")) > max(_USER_IDS):
        return UNKNOWN  # it matches nothing, and may be very long
    # A user id has one colon at most. So in a pattern with a colon, no wildcard matches a colon.
    globs = Globs([(pattern, ":" in pattern)])
    if not broker.is_role:
        return YES if globs.matching(unique_id) else UNKNOWN
    beginning = f"{unique_id}:"
    user_ids = (beginning.ljust(length, _UNKNOWN_CHARACTER) for length in _USER_IDS)
    if all(map(globs.matching, user_ids)):
        return YES
    if pattern.count(":") <= 1 and globs.states_after(beginning):
        return CHOICE
    return UNKNOWN


def narrows(comparison: Comparison) -> bool:
    """Return whether an Allow statement with this comparison keeps anybody else out."""
    if comparison.negated or comparison.if_exists or comparison.quantifier == "forallvalues":
        return False
    return _compares_with_nobody_else(comparison)


def holds_for_anybody(comparison: Comparison) -> bool:
    """Return whether a Deny statement with this comparison applies to anybody else."""
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
    if "${" in text or comparison.name not in _FIXED | LIKE:
        return True
    if comparison.name in _FIXED or not {"*", "?"} & set(text):
        return False
    if comparison.name != "stringlike":
        return comparison.key != PRINCIPAL_ARN or _ARN_OF_ACCOUNT.fullmatch(text) is None
    begins = _BEGINS.get(comparison.key)
    return begins is None or begins.match(re.split(r"[*?]", text, maxsplit=1)[0]) is None
