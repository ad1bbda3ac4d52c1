"""Evaluates IAM policies as AWS does: role trust policies, bucket policies and identity policies.

The functions are pure: each depends only on a document and a request, and none uses moto.
Unsupported elements raise `UnsupportedPolicy`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, IntEnum
from functools import lru_cache
from typing import Any

from sandbox.conditions import Context, UnsupportedPolicy, Values, compared_keys, holds


class Kind(Enum):
    ROOT = "root"
    USER = "user"
    SESSION = "session"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True)
class Caller:
    """The identity that signed a request.

    `principal_arn` is the value of aws:PrincipalArn: for a session, its role's ARN with the path.
    """

    kind: Kind
    account: str
    arn: str
    principal_arn: str
    unique_id: str
    issued_at: datetime | None = None  # None unless it is a session

    @property
    def account_root(self) -> str:
        return f"arn:aws:iam::{self.account}:root"


ANONYMOUS = Caller(Kind.ANONYMOUS, "", "anonymous", "", "")


@dataclass(frozen=True)
class Request:
    """One action on one resource.

    Without a resource it means "any resource", which suffices to detect a session that may do
    nothing.
    """

    action: str
    resource: str | None = None
    context: Mapping[str, str] = field(default_factory=dict)

    def keys(self) -> Context:
        return {key.lower(): value for key, value in self.context.items()}


class Decision(Enum):
    ALLOWED = "allowed"
    NOT_ALLOWED = "not allowed"  # no statement allows it
    DENIED = "denied"  # a statement denies it; no Allow can outweigh that


class Grant(IntEnum):
    """What a resource's own policy grants to a caller, the strongest last."""

    DENIED = -1
    NONE = 0
    ACCOUNT = 1  # only the account was named, so the account's own policies decide
    PRINCIPAL = 2  # the user or role itself was named, or everybody
    SESSION = 3  # this very session was named; not even its session policy narrows the grant


@dataclass(frozen=True)
class _Document:
    statements: tuple[Mapping[str, Any], ...]
    variables: bool


_STATEMENT_KEYS = {"Sid", "Effect", "Condition"}
_MATCHERS = ("Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource")


def evaluate_identity(documents: Iterable[str], request: Request) -> Decision:
    """Return the joint decision of an identity's policies, or of one session policy."""
    context = request.keys()
    result = Decision.NOT_ALLOWED
    for text in documents:
        document = _read(text)
        values = Values(context, variables=document.variables)
        for statement in document.statements:
            _shape(statement, required={"Resource"}, forbidden={"Principal"})
            if not _covers(statement, request, values) or not _conditions(
                statement, context, values
            ):
                continue
            if statement["Effect"] == "Deny":
                return Decision.DENIED
            result = Decision.ALLOWED
    return result


def evaluate_resource(text: str, caller: Caller, request: Request, *, trust: bool = False) -> Grant:
    """Return what a resource's policy grants to the caller.

    A role's trust policy has no Resource element, because it applies to the role.
    """
    document, context = _read(text), request.keys()
    values = Values(context, variables=document.variables)
    required, forbidden = {"Principal", "Resource"}, set[str]()
    if trust:
        required, forbidden = {"Principal"}, {"Resource"}
    best = Grant.NONE
    for statement in document.statements:
        _shape(statement, required=required, forbidden=forbidden)
        grant = _grant(statement, caller)
        if grant is Grant.NONE or not _covers(statement, request, values):
            continue
        if not _conditions(statement, context, values):
            continue
        if statement["Effect"] == "Deny":
            return Grant.DENIED
        best = max(best, grant)
    return best


def evaluate_service(text: str, service: str, request: Request) -> bool:
    """Return whether a resource's policy lets an AWS service make this request."""
    document, context = _read(text), request.keys()
    values = Values(context, variables=document.variables)
    allowed = False
    for statement in document.statements:
        _shape(statement, required={"Principal", "Resource"}, forbidden={"NotPrincipal"})
        principal = statement["Principal"]
        services = _list(principal["Service"]) if "Service" in principal else []
        named = service in services or "*" in _principals(principal)
        if not named or not _covers(statement, request, values):
            continue
        if not _conditions(statement, context, values):
            continue
        if statement["Effect"] == "Deny":
            return False
        allowed = True
    return allowed


def keys_of(documents: Iterable[str]) -> set[str]:
    """Return the condition keys that these policies compare, in lower case."""
    keys: set[str] = set()
    for text in documents:
        for statement in _read(text).statements:
            if "Condition" in statement:
                keys |= compared_keys(statement["Condition"])
    return keys


def strictest(decisions: Iterable[Decision]) -> Decision:
    """Return the joint decision of policies that all must allow a request."""
    distinct = set(decisions)
    for decision in (Decision.DENIED, Decision.NOT_ALLOWED):
        if decision in distinct:
            return decision
    return Decision.ALLOWED


def check_document(text: str) -> None:
    """Check the form of an identity or session policy.

    Raises `UnsupportedPolicy` if it is invalid.
    """
    for statement in _read(text).statements:
        _shape(statement, required={"Resource"}, forbidden={"Principal"})


@lru_cache(maxsize=1024)
def _read(text: str) -> _Document:
    """Parse and check a policy. Cached, because each call evaluates the same policies."""
    try:
        raw = json.loads(text)
    except ValueError:
        raise UnsupportedPolicy("the policy is not JSON") from None
    if (
        not isinstance(raw, dict)
        or not set(raw) <= {"Version", "Id", "Statement"}
        or "Statement" not in raw
    ):
        raise UnsupportedPolicy("a policy is an object with Version, Id and Statement only")
    if raw.get("Version", "2008-10-17") not in ("2008-10-17", "2012-10-17"):
        raise UnsupportedPolicy(f"unknown policy version {raw['Version']!r}")
    statements = raw["Statement"] if isinstance(raw["Statement"], list) else [raw["Statement"]]
    for statement in statements:
        _check_statement(statement)
    return _Document(tuple(statements), variables=raw.get("Version") == "2012-10-17")


def _check_statement(statement: Any) -> None:
    if not isinstance(statement, dict) or not set(statement) <= _STATEMENT_KEYS | set(_MATCHERS):
        raise UnsupportedPolicy(f"not a statement that the sandbox knows: {statement!r}")
    if statement.get("Effect") not in ("Allow", "Deny"):
        raise UnsupportedPolicy(f"Effect must be Allow or Deny, not {statement.get('Effect')!r}")
    if ("Action" in statement) == ("NotAction" in statement):
        raise UnsupportedPolicy("a statement has either Action or NotAction")


def _shape(statement: Mapping[str, Any], *, required: set[str], forbidden: set[str]) -> None:
    for name in required | forbidden:
        present = (name in statement) + (f"Not{name}" in statement)
        if name in required and present != 1:
            raise UnsupportedPolicy(f"a statement of this policy needs either {name} or Not{name}")
        if name in forbidden and present:
            raise UnsupportedPolicy(f"a statement of this policy cannot have {name}")


def _covers(statement: Mapping[str, Any], request: Request, values: Values) -> bool:
    """Return True if the statement applies to this action on this resource."""
    plain = Values({}, variables=False)  # Action takes no policy variables
    actions = _list(statement.get("Action", statement.get("NotAction")))
    if plain.match(map(str.lower, actions), request.action.lower()) != ("Action" in statement):
        return False
    if "Resource" not in statement and "NotResource" not in statement:
        return True
    resources = _list(statement.get("Resource", statement.get("NotResource")))
    if request.resource is None:
        # "Any resource": an Allow for some resources counts, a Deny only for all resources
        return statement["Effect"] == "Allow" or ("Resource" in statement and "*" in resources)
    return values.match(resources, request.resource) == ("Resource" in statement)


def _conditions(statement: Mapping[str, Any], context: Context, values: Values) -> bool:
    return "Condition" not in statement or holds(statement["Condition"], context, values)


def _grant(statement: Mapping[str, Any], caller: Caller) -> Grant:
    element = "Principal" if "Principal" in statement else "NotPrincipal"
    listed = {_named(name, caller) for name in _principals(statement[element])} | {Grant.NONE}
    if element == "Principal":
        return max(listed)
    listed.remove(Grant.NONE)
    if not listed:
        return Grant.PRINCIPAL
    everything = {Grant.ACCOUNT, Grant.PRINCIPAL}
    if caller.kind is Kind.SESSION:
        everything.add(Grant.SESSION)
    if listed >= everything or (caller.kind is Kind.ROOT and Grant.ACCOUNT in listed):
        return Grant.NONE
    # AWS's documentation says to list the account, the role and the session, "or the policy might
    # deny access".
    raise UnsupportedPolicy(
        f"NotPrincipal lists a part of {caller.arn} only: what AWS does then is not documented"
    )


def _principals(value: Any) -> list[str]:
    """Return the AWS principals of a Principal element.

    Services and identity providers never sign with the sandbox's keys.
    """
    if value == "*":
        return ["*"]
    if not isinstance(value, dict) or not value.keys() <= _PRINCIPAL_TYPES:
        raise UnsupportedPolicy(f"unknown principal {value!r}")
    return _list(value["AWS"]) if "AWS" in value else []


_PRINCIPAL_TYPES = {"AWS", "Service", "Federated", "CanonicalUser"}
_ACCOUNT = re.compile(r"[0-9]{12}")
_PRINCIPAL_ARN = re.compile(
    r"arn:aws[a-z-]*:(iam::[0-9]{12}:(root|(user|role)/[\w+=,.@/-]+)"
    r"|sts::[0-9]{12}:(assumed-role|federated-user)/[\w+=,.@/-]+)",
    re.ASCII,
)
_UNIQUE_ID = re.compile(r"A[A-Z]{3}[A-Z0-9]{12,}")


def _named(name: str, caller: Caller) -> Grant:
    if name == "*":
        return Grant.PRINCIPAL
    if _ACCOUNT.fullmatch(name):
        name = f"arn:aws:iam::{name}:root"
    elif not _PRINCIPAL_ARN.fullmatch(name) and not _UNIQUE_ID.fullmatch(name):
        raise UnsupportedPolicy(
            f"unknown principal {name!r}: AWS takes no patterns but a lone * here"
        )
    if caller.kind is Kind.ANONYMOUS:
        return Grant.NONE
    if caller.kind is Kind.SESSION and name == caller.arn:
        return Grant.SESSION
    if (
        name in {caller.principal_arn, caller.unique_id.partition(":")[0]}
        and caller.kind is not Kind.ROOT
    ):
        return Grant.PRINCIPAL
    return Grant.ACCOUNT if name == caller.account_root else Grant.NONE


def _list(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value]
    for item in items or [None]:
        if not isinstance(item, str) or not item:
            raise UnsupportedPolicy(f"expected a text or a list of texts, not {value!r}")
    return items
