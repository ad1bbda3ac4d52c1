"""IAM's SimulatePrincipalPolicy for roles, which moto lacks.

It reports whether a role has a permission, and what denies it.
"""

import itertools
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

from werkzeug.wrappers import Response

from sandbox.errors import AwsError, invalid, unsupported
from sandbox.identity import RolePolicies, role_policies
from sandbox.policy import Decision, Request, evaluate_identity, keys_of

ACTION = "SimulatePrincipalPolicy"
_WORDS = {
    Decision.ALLOWED: "allowed",
    Decision.NOT_ALLOWED: "implicitDeny",
    Decision.DENIED: "explicitDeny",
}
_KNOWN = {"Action", "Version", "PolicySourceArn", "ActionNames", "ResourceArns", "ContextEntries"}


def simulate(form: Mapping[str, str], role_of: Callable[[str], Any]) -> Response:
    """Answer the call. `role_of` returns moto's role of an ARN, or None."""
    if surplus := [name for name in form if name.partition(".")[0] not in _KNOWN]:
        raise unsupported(f"its {ACTION} takes no {', '.join(surplus)}")
    role = role_of(form.get("PolicySourceArn", ""))
    if role is None:
        raise AwsError(
            404, "NoSuchEntity", f"The role with ARN {form.get('PolicySourceArn')} cannot be found."
        )
    actions, resources = (
        list(_listed(form, "ActionNames")),
        list(_listed(form, "ResourceArns")) or ["*"],
    )
    if len(resources) > 1:
        raise unsupported("it simulates one resource at a time")
    for action in actions:
        if ":" not in action or {"*", "?"} & set(action):
            raise invalid(f"Invalid Action: {action}")
    context = dict(_context(form))
    requests = [Request(action, resources[0], context) for action in actions]
    results = "".join(_result(role_policies(role), request) for request in requests)
    body = (
        f'<{ACTION}Response xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><{ACTION}Result>'
        f"<IsTruncated>false</IsTruncated><EvaluationResults>{results}</EvaluationResults></{ACTION}Result>"
        f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata></{ACTION}Response>"
    )
    return Response(body, 200, content_type="text/xml")


def _listed(form: Mapping[str, str], name: str) -> Iterator[str]:
    places = (f"{name}.member.{n}" for n in itertools.count(1))
    return (form[place] for place in itertools.takewhile(form.__contains__, places))


def _context(form: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for n in itertools.count(1):
        entry = f"ContextEntries.member.{n}."
        if f"{entry}ContextKeyName" not in form:
            return
        values = list(_listed(form, f"{entry}ContextKeyValues"))
        if len(values) != 1:
            raise unsupported("it takes one value for a context key")
        yield form[f"{entry}ContextKeyName"], values[0]


def _result(policies: RolePolicies, request: Request) -> str:
    own = evaluate_identity(policies.identity, request)
    boundary, organization = (
        Decision.ALLOWED if text is None else evaluate_identity([text], request)
        for text in (policies.boundary, policies.organization)
    )
    all_of_them = {own, boundary, organization}
    decision = next(
        it for it in (Decision.DENIED, Decision.NOT_ALLOWED, Decision.ALLOWED) if it in all_of_them
    )
    untold = keys_of(policies.identity) - request.keys().keys()
    missing = "".join(f"<member>{escape(key)}</member>" for key in sorted(untold))
    details = "".join(
        f"<{name}DecisionDetail><AllowedBy{what}>"
        f"{'true' if said is Decision.ALLOWED else 'false'}"
        f"</AllowedBy{what}></{name}DecisionDetail>"
        for name, what, said, text in (
            ("PermissionsBoundary", "PermissionsBoundary", boundary, policies.boundary),
            ("Organizations", "Organizations", organization, policies.organization),
        )
        if text is not None
    )
    return (
        f"<member><EvalActionName>{escape(request.action)}</EvalActionName>"
        f"<EvalResourceName>{escape(request.resource or '*')}</EvalResourceName>"
        f"<EvalDecision>{_WORDS[decision]}</EvalDecision><MatchedStatements/>"
        f"<MissingContextValues>{missing}</MissingContextValues>{details}</member>"
    )
