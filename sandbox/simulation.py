"""IAM's SimulatePrincipalPolicy for roles, which moto lacks.

It reports whether a role has a permission, and which kind of policy denies it.
"""

import itertools
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

from werkzeug.wrappers import Response

from sandbox.errors import AwsError, invalid, unsupported
from sandbox.identity import BOUNDARY, SCP, Permissions, role_policies
from sandbox.policy import Decision, Request, evaluate_identity, keys_of, strictest

ACTION = "SimulatePrincipalPolicy"
_WORDS = {
    Decision.ALLOWED: "allowed",
    Decision.NOT_ALLOWED: "implicitDeny",
    Decision.DENIED: "explicitDeny",
}
_PARAMETERS = {
    "Action",
    "Version",
    "PolicySourceArn",
    "ActionNames",
    "ResourceArns",
    "ContextEntries",
}


def simulate(form: Mapping[str, str], role_of: Callable[[str], Any]) -> Response:
    """Answer the call. `role_of` returns moto's role with an ARN, or None."""
    for name in form:
        if name.partition(".")[0] not in _PARAMETERS:
            raise unsupported(f"its {ACTION} takes no {name}")
    role = role_of(form.get("PolicySourceArn", ""))
    if role is None:
        raise AwsError(
            404, "NoSuchEntity", f"The role with ARN {form.get('PolicySourceArn')} cannot be found."
        )
    actions, resources = _listed(form, "ActionNames"), _listed(form, "ResourceArns") or ["*"]
    if len(resources) > 1:
        raise unsupported("it simulates one resource at a time")
    for action in actions:
        if ":" not in action or {"*", "?"} & set(action):
            raise invalid(f"Invalid Action: {action}")
    context, policies, results = dict(_context(form)), role_policies(role), ""
    for action in actions:
        results += _result(policies, Request(action, resources[0], context))
    body = (
        f'<{ACTION}Response xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><{ACTION}Result>'
        f"<IsTruncated>false</IsTruncated><EvaluationResults>{results}</EvaluationResults>"
        f"</{ACTION}Result>"
        f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata>"
        f"</{ACTION}Response>"
    )
    return Response(body, 200, content_type="text/xml")


def _listed(form: Mapping[str, str], name: str) -> list[str]:
    members: list[str] = []
    while (place := f"{name}.member.{len(members) + 1}") in form:
        members.append(form[place])
    return members


def _context(form: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for n in itertools.count(1):
        entry = f"ContextEntries.member.{n}."
        if f"{entry}ContextKeyName" not in form:
            return
        values = _listed(form, f"{entry}ContextKeyValues")
        if len(values) != 1:
            raise unsupported("it takes one value for a context key")
        yield form[f"{entry}ContextKeyName"], values[0]


def _result(policies: Permissions, request: Request) -> str:
    decisions, details = [evaluate_identity(policies.identity, request)], ""
    for name, kind in (("PermissionsBoundary", BOUNDARY), ("Organizations", SCP)):
        if kind in policies.ceilings:
            decisions.append(evaluate_identity([policies.ceilings[kind]], request))
            allowed = str(decisions[-1] is Decision.ALLOWED).lower()
            element = f"<AllowedBy{name}>{allowed}</AllowedBy{name}>"
            details += f"<{name}DecisionDetail>{element}</{name}DecisionDetail>"
    decision = strictest(decisions)
    absent = keys_of(policies.identity) - request.keys().keys()
    missing = "".join(f"<member>{escape(key)}</member>" for key in sorted(absent))
    return (
        f"<member><EvalActionName>{escape(request.action)}</EvalActionName>"
        f"<EvalResourceName>{escape(request.resource or '*')}</EvalResourceName>"
        f"<EvalDecision>{_WORDS[decision]}</EvalDecision><MatchedStatements/>"
        f"<MissingContextValues>{missing}</MissingContextValues>{details}</member>"
    )
