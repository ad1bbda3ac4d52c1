"""The principals of a trust policy that are not the broker, and whether they are anybody.

All functions are pure.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import filterfalse

from app.ids import Broker
from app.proofs.policy_conditions import (
    NEVER_SENT,
    NO,
    PRINCIPAL_ARN,
    PUBLIC_CLAIMS,
    YES,
    KeyValues,
    RequestAnswers,
    Requests,
    holds_for_anybody,
    is_pattern,
    narrows,
    strongest,
)
from app.proofs.policy_statements import Globs, Statement

WEB_IDENTITY = "sts:assumerolewithwebidentity"
SPACE = re.compile(r"\s")
# An ARN of aws:PrincipalArn: its account, and what comes after it
_ARN = re.compile(r"arn:[^:]*:(?:iam|sts)::([0-9]{12}):(.+)", re.DOTALL)
# A principal that is one caller, whose aws:PrincipalArn is this ARN
_CALLER = re.compile(
    r"arn:aws[a-z-]*:(iam::[0-9]{12}:(role|user)|sts::[0-9]{12}:federated-user)/[^*?]+"
)
# A principal that is many callers: its account, and the name of a session's role
_PRINCIPAL = re.compile(
    r"(?:arn:aws[a-z-]*:(?:iam|sts)::)?([0-9]{12})(?::(?:root|assumed-role/([^/*?]+)/[^/]+))?"
)
_OTHER, _WITHOUT_ARN = 1, 2  # bits of the callers whose ARN the policy does not name
_UNNAMED = _OTHER | _WITHOUT_ARN


class Outsiders:
    """Callers other than the broker, with one bit for each.

    They are one without aws:PrincipalArn (a service or an identity provider's user), one with an
    ARN that the policy does not name, and one with each ARN that it names. A value with white space
    is left out, because no ARN has any.
    """

    def __init__(self, statements: list[Statement], globs: Globs, broker: Broker) -> None:
        named: set[str] = set()
        for statement in statements:
            named |= statement.compared(PRINCIPAL_ARN)
            named |= {name for _, name in statement.names if _CALLER.fullmatch(name)}
            named |= {name for _, name in statement.other_names or () if _CALLER.fullmatch(name)}
        arns = sorted(filterfalse(SPACE.search, named - {broker.arn}))
        self.bits = {arn: 4 << n for n, arn in enumerate(arns)}
        self._broker = broker
        self._of_account: defaultdict[str, int] = defaultdict(int)
        self._of_role: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._doubtful = _OTHER  # callers whose account or name is not known
        for arn, bit in self.bits.items():
            match = _ARN.fullmatch(arn)
            if match is None or is_pattern(arn) or "$" in arn:
                self._doubtful |= bit
            if match is not None:
                self._of_account[match[1]] |= bit
                self._of_role[match[1], match[2].rpartition("/")[2]] |= bit
        keys = {
            PRINCIPAL_ARN: KeyValues(globs, self.bits, _OTHER, _WITHOUT_ARN),
            NEVER_SENT: KeyValues(globs, {}, absent=-1),
        }
        self.requests = Requests(None, (4 << len(arns)) - 1, keys)

    def named_by(self, statement: Statement) -> RequestAnswers:
        """Return which callers are principals of a statement."""
        if statement.other_names is None:
            return strongest(self.named_as(*name) for name in statement.names)
        # A Deny may also hold for a principal that its NotPrincipal names, if that leaves out the
        # session or the account.
        excepted = strongest(self.named_as(*name) for name in statement.other_names)
        return RequestAnswers(unknown=~excepted.no)

    def named_as(self, kind: str, name: str) -> RequestAnswers:
        """Return which callers this principal is."""
        if (kind, name) == ("AWS", "*"):
            return YES
        if kind != "AWS":
            return _some_of(_OTHER | _WITHOUT_ARN)
        if name == self._broker.arn or is_session_of(self._broker, name):
            return NO
        if _CALLER.fullmatch(name):
            return RequestAnswers(no=~self.bits.get(name, 0))
        return self._named_together(name)

    def _named_together(self, name: str) -> RequestAnswers:
        match = _PRINCIPAL.fullmatch(name)
        if match is None:  # such as a unique id
            return _some_of(~_WITHOUT_ARN)
        account, role = match.groups()
        if role is not None:
            return _some_of(self._doubtful | self._of_role[account, role])
        everyone = RequestAnswers(no=~self._of_account[account])
        return strongest([everyone, _some_of(self._doubtful)])

    def principals_among(self, statement: Statement, callers: int) -> Iterator[str]:
        """Yield the principals of a statement that some of these callers are."""
        if statement.other_names is not None and callers & _UNNAMED:
            yield "everybody but " + ", ".join(name for _, name in statement.other_names)
        for kind, name in statement.names:
            own = _UNNAMED | self.bits.get(name, 0)
            if callers & own & ~self.named_as(kind, name).no:
                yield name


def _some_of(callers: int) -> RequestAnswers:
    return RequestAnswers(no=~callers, choice=callers)


def is_session_of(broker: Broker, name: str) -> bool:
    sessions = f"arn:{broker.partition}:sts::{broker.account_id}:assumed-role/{broker.name}/"
    return broker.is_role and name.startswith(sessions)


def admits_anybody(statement: Statement, way: str) -> bool:
    """Return whether an Allow statement for this action may let in anybody else.

    If Deputy does not understand a part, it assumes that the part keeps nobody out.
    """
    everybody = _names_everybody(statement.names)
    if way == WEB_IDENTITY:
        everybody |= any(map(_is_public, statement.names))
    if statement.other_names is not None and ("AWS", "*") not in statement.other_names:
        everybody = True
    return everybody and not any(map(narrows, statement.comparisons))


def denies_anybody(statement: Statement) -> bool:
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


def _is_public(principal: tuple[str, str]) -> bool:
    """Return whether a principal is an identity provider that gives a login to everybody.

    Its name is the provider's, or the ARN under which the role's account registered it.
    """
    kind, name = principal
    return kind == "Federated" and name.rpartition(":oidc-provider/")[2] in PUBLIC_CLAIMS
