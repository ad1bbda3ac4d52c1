"""Read a role in IAM with a session of the role itself that may do nothing else.

See invariant 6 in docs/architecture.md. A proof reads the role's trust policy. A diagnosis also
reads its policies and simulates which rights they give. A failure of IAM does not show who may use
the role. So there is only one attempt, and a slow or unavailable IAM costs little.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any, TypeVar
from urllib.parse import unquote

import urllib3
from botocore.credentials import ReadOnlyCredentials
from botocore.session import Session

from app import strict_json
from app.aws.breaker import Breaker
from app.aws.errors import AWS_ERRORS, Refused, StsError, Unavailable, classify
from app.aws.query import QueryApi
from app.aws.role_view import Decision, Right, RolePolicies, RoleSettings, RoleView, known_keys
from app.ids import Grant, RoleArn
from app.permissions.permission_sets import READS, SET_TAG, SIMULATION
from app.settings.checks import ROLE_MAX_DEFAULT

_SECONDS = 2
_MOST_CALLS = 40  # calls to IAM in one session; a diagnosis of the kit's role makes six
_AT_ONCE = 100  # maximum number of actions in one call

Part = TypeVar("Part")


def session_policy(role_arn: RoleArn, *more: str) -> str:
    """Return a session policy that limits a session to reading its own role.

    `more`: further actions that it allows on the role.
    """
    # A path may contain characters that are wildcards or variables in a policy. `?` matches them.
    # The pattern still matches only one role, because roles' names are unique in an account.
    own = re.sub(r"[*?$]", "?", role_arn.text)
    statement = {"Effect": "Allow", "Action": [*READS, *more], "Resource": own}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]}, separators=(",", ":"))


class OwnRole:
    """A client of IAM in the partition of `region`.

    Creating it makes no call. It opens connections on first use.
    """

    def __init__(self, region: str, boto: Session) -> None:
        self._api = QueryApi("iam", region, boto, urllib3.Timeout(total=_SECONDS))
        self._breaker = Breaker()  # IAM may be unavailable while STS works

    def settings(
        self, credentials: ReadOnlyCredentials, grant: Grant, role_unique_id: str
    ) -> RoleSettings | StsError:
        """Return the settings of the session's own role in IAM, or an error.

        The error is Refused if the role may not read itself, otherwise Unavailable.
        """
        ask = self._asking(credentials, grant)
        return _attempt(lambda: _settings(ask, grant.role_arn, role_unique_id))

    def view(
        self,
        credentials: ReadOnlyCredentials,
        grant: Grant,
        role_unique_id: str,
        rights: Iterable[Right],
    ) -> RoleView:
        """Return everything that the session can read of its own role.

        The result also shows whether the role has the given rights.
        """
        ask, role = self._asking(credentials, grant), grant.role_arn
        return RoleView(
            _attempt(lambda: _settings(ask, role, role_unique_id)),
            _attempt(lambda: _policies(ask, role)),
            _attempt(lambda: _decisions(ask, role, rights)),
        )

    def _asking(self, credentials: ReadOnlyCredentials, grant: Grant) -> "_Ask":
        calls_left = iter(range(_MOST_CALLS))

        def ask(action: str, form: dict[str, str], parse: Callable[[Any], Part]) -> Part:
            if next(calls_left, None) is None:
                raise Unavailable
            try:
                with self._breaker.call(grant.external_id):
                    return parse(self._api.once(action, form, credentials))
            except AWS_ERRORS as error:
                failure = classify(error)
                raise (failure if isinstance(failure, Refused) else Unavailable()) from error

        return ask


_Ask = Callable[[str, dict[str, str], Callable[[Any], Any]], Any]


def _attempt(read: Callable[[], Part]) -> Part | StsError:
    try:
        return read()
    except StsError as error:
        return error


def _settings(ask: _Ask, role: RoleArn, role_unique_id: str) -> RoleSettings:
    def parse(answer: Any) -> RoleSettings:
        settings = answer["Role"]
        if settings["RoleId"] != role_unique_id:
            raise Unavailable
        boundary = settings.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
        document = _parsed(settings["AssumeRolePolicyDocument"], strict_json.parse_accepted)
        tags = {tag["Key"]: tag["Value"] for tag in settings.get("Tags", [])}
        seconds = settings.get("MaxSessionDuration", ROLE_MAX_DEFAULT)
        return RoleSettings(document, seconds, boundary, tags.get(SET_TAG))

    settings: RoleSettings = ask("GetRole", {"RoleName": role.name}, parse)
    return settings


def _policies(ask: _Ask, role: RoleArn) -> RolePolicies:
    form, inline = {"RoleName": role.name}, {}
    for name in list(_pages(ask, "ListRolePolicies", form, itemgetter("PolicyNames"))):
        inline[name] = ask(
            "GetRolePolicy",
            form | {"PolicyName": name},
            lambda answer: _parsed(answer["PolicyDocument"]),
        )
    attached = _pages(
        ask,
        "ListAttachedRolePolicies",
        form,
        lambda answer: [policy["PolicyArn"] for policy in answer["AttachedPolicies"]],
    )
    return RolePolicies(inline, tuple(attached))


def _decisions(ask: _Ask, role: RoleArn, rights: Iterable[Right]) -> dict[Right, Decision]:
    """Ask IAM to simulate the rights, one resource at a time.

    For several resources in one call, IAM returns the decisions in another form.
    """
    actions: defaultdict[str, list[str]] = defaultdict(list)
    for action, resource in rights:
        actions[resource].append(action)
    decisions = {}
    for resource, names in actions.items():
        for first in range(0, len(names), _AT_ONCE):
            form = _simulation(role, resource, names[first : first + _AT_ONCE])
            for action, decision in _pages(ask, SIMULATION.removeprefix("iam:"), form, _results):
                decisions[action, resource] = decision
    return decisions


def _simulation(role: RoleArn, resource: str, actions: list[str]) -> dict[str, str]:
    form = {"PolicySourceArn": role.text, "ResourceArns.member.1": resource}
    for n, action in enumerate(actions, 1):
        form[f"ActionNames.member.{n}"] = action
    for n, (key, (kind, value)) in enumerate(known_keys(role).items(), 1):
        entry = f"ContextEntries.member.{n}."
        form |= {f"{entry}ContextKeyName": key, f"{entry}ContextKeyType": kind}
        form[f"{entry}ContextKeyValues.member.1"] = value
    return form


def _results(answer: Any) -> list[tuple[str, Decision]]:
    return [(result["EvalActionName"], _decision(result)) for result in answer["EvaluationResults"]]


def _decision(result: dict[str, Any]) -> Decision:
    word = result["EvalDecision"]
    organization = result.get("OrganizationsDecisionDetail", {})
    boundary = result.get("PermissionsBoundaryDecisionDetail", {})
    return Decision(
        word == "allowed",
        word == "explicitDeny",
        not organization.get("AllowedByOrganizations", True),
        not boundary.get("AllowedByPermissionsBoundary", True),
        frozenset(map(str.lower, result.get("MissingContextValues", []))),
    )


def _pages(
    ask: _Ask, action: str, form: dict[str, str], items: Callable[[Any], list[Any]]
) -> Iterator[Any]:
    marker: dict[str, str] = {}
    while True:
        page, more = ask(
            action, form | marker, lambda answer: (items(answer), answer.get("Marker"))
        )
        yield from page
        if not more:
            return
        marker = {"Marker": more}


def _parsed(document: str, parse: Callable[[str], Any] = strict_json.parse) -> Any:
    try:
        return parse(unquote(document))
    except ValueError:
        return None
