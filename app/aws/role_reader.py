"""Read a role in IAM with a session of the role itself that may do nothing else.

See invariant 6 in docs/architecture.md. A proof reads the role's trust policy. A diagnosis also
reads its policies and simulates which rights they give. A failure of IAM does not show who may use
the role. So there is only one attempt, and a slow or unavailable IAM costs little.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar
from urllib.parse import unquote

from botocore.credentials import ReadOnlyCredentials

from app import strict_json
from app.aws.errors import Refused, StsError, Unavailable
from app.aws.query_api import QueryApi
from app.aws.role_view import Decision, Right, RolePolicies, RoleSettings, RoleView, known_keys
from app.ids import Grant, RoleArn
from app.permissions.permission_sets import READS, SET_TAG, SIMULATION
from app.settings.valid_values import ROLE_MAX_DEFAULT
from app.strict_json import JsonObject

_SIMULATE = SIMULATION.removeprefix("iam:")
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


@dataclass
class RoleSession:
    """Reads the role of `grant` with the credentials of the role's own session.

    `calls_left`: the limit of its calls. A role may have many policies, and the answers many pages.
    A diagnosis of the kit's role makes six calls.
    """

    api: QueryApi  # IAM's
    credentials: ReadOnlyCredentials
    grant: Grant
    role_unique_id: str
    calls_left: int = 40

    def settings(self) -> RoleSettings | StsError:
        """Return the settings of the role in IAM, or an error.

        The error is Refused if the role may not read itself, otherwise Unavailable.
        """
        return self._attempt(self._settings)

    def view(self, rights: Iterable[Right]) -> RoleView:
        """Return everything that the session can read of the role.

        The result also shows whether the role has the given rights.
        """
        return RoleView(
            self.settings(),
            self._attempt(self._policies),
            self._attempt(lambda: self._decisions(rights)),
        )

    def _attempt(self, read: Callable[[], Part]) -> Part | StsError:
        try:
            with self.api.breaker.call(str(self.grant.tenant_id)):
                return read()
        except Refused as error:
            return error
        except StsError:
            return Unavailable()

    def _settings(self) -> RoleSettings:
        role = self._ask("GetRole", self._role)["Role"]
        if role["RoleId"] != self.role_unique_id:
            raise Unavailable
        boundary = role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
        document = _parsed(role["AssumeRolePolicyDocument"])
        tags = {tag["Key"]: tag["Value"] for tag in role.get("Tags", [])}
        seconds = role.get("MaxSessionDuration", ROLE_MAX_DEFAULT)
        return RoleSettings(document, seconds, boundary, tags.get(SET_TAG))

    def _policies(self) -> RolePolicies:
        inline = {}
        for name in self._list("ListRolePolicies", "PolicyNames", self._role):
            policy = self._ask("GetRolePolicy", self._role | {"PolicyName": name})
            inline[name] = _parsed(policy["PolicyDocument"])
        attached = self._list("ListAttachedRolePolicies", "AttachedPolicies", self._role)
        return RolePolicies(inline, tuple(policy["PolicyArn"] for policy in attached))

    def _decisions(self, rights: Iterable[Right]) -> dict[Right, Decision]:
        """Ask IAM to simulate the rights, one resource at a time.

        For several resources in one call, IAM returns the decisions in another form.
        """
        actions: defaultdict[str, list[str]] = defaultdict(list)
        for action, resource in rights:
            actions[resource].append(action)
        context = []
        for key, (kind, value) in known_keys(self.grant.role_arn).items():
            context.append(
                {"ContextKeyName": key, "ContextKeyType": kind, "ContextKeyValues": [value]}
            )
        decisions = dict[Right, Decision]()
        for resource, names in actions.items():
            for first in range(0, len(names), _AT_ONCE):
                if self.calls_left == 0:  # the other rights are not known
                    return decisions
                parameters = {
                    "PolicySourceArn": self.grant.role_arn.text,
                    "ActionNames": names[first : first + _AT_ONCE],
                    "ResourceArns": [resource],
                    "ContextEntries": context,
                }
                for result in self._list(_SIMULATE, "EvaluationResults", parameters):
                    decisions[result["EvalActionName"], resource] = _decision(result)
        return decisions

    @property
    def _role(self) -> JsonObject:
        return {"RoleName": self.grant.role_arn.name}

    def _list(self, action: str, field: str, parameters: JsonObject) -> list[Any]:
        """Return the items of all pages of an answer."""
        answer = self._ask(action, parameters)
        items: list[Any] = answer[field]
        while marker := answer.get("Marker"):
            answer = self._ask(action, parameters | {"Marker": marker})
            items += answer[field]
        return items

    def _ask(self, action: str, parameters: JsonObject) -> JsonObject:
        if self.calls_left == 0:
            raise Unavailable
        self.calls_left -= 1
        return self.api.once(action, parameters, self.credentials)


def _decision(result: JsonObject) -> Decision:
    word = result["EvalDecision"]
    organization = result.get("OrganizationsDecisionDetail", {})
    boundary = result.get("PermissionsBoundaryDecisionDetail", {})
    # AWS documents both places for a request that names resources
    parts = [result, *result.get("ResourceSpecificResults", [])]
    missing = chain.from_iterable(part.get("MissingContextValues", []) for part in parts)
    return Decision(
        word == "allowed",
        word == "explicitDeny",
        not organization.get("AllowedByOrganizations", True),
        not boundary.get("AllowedByPermissionsBoundary", True),
        frozenset(map(str.lower, missing)),
    )


def _parsed(document: str) -> Any:
    try:
        return strict_json.parse_accepted(unquote(document))
    except ValueError:
        return None
