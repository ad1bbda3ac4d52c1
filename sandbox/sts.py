"""The sandbox's STS: AssumeRole with all of its checks, and GetCallerIdentity.

moto lets every caller assume any role, even one that does not exist. Here the role's trust policy,
the caller's own policies, role chaining and the role's limits are enforced. Every attempt is
recorded for tests.
"""

import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from werkzeug.wrappers import Response

from sandbox.conditions import UnsupportedPolicy
from sandbox.errors import AwsError, access_denied, invalid, unsupported
from sandbox.faults import Attempt, Dropped, Faults
from sandbox.identity import Identities, Session, context_of
from sandbox.organization import organization
from sandbox.policy import Caller, Grant, Kind, Request, check_document, evaluate_resource

ACTION = "sts:AssumeRole"
_PROTOCOL = {"Action", "Version"}
_PARAMETERS = {"RoleArn", "RoleSessionName", "ExternalId", "DurationSeconds", "Policy"}
_IAM_ARN = re.compile(r"arn:aws:iam::[0-9]{12}:(role|user)/[!-~]+")
_LIMITS = {
    "RoleArn": (20, 2048, r"[\t\n\r -\ud7ff\ue000-\ufffd]+"),
    "RoleSessionName": (2, 64, r"[\w+=,.@-]*"),
    "ExternalId": (2, 1224, r"[\w+=,.@:\/-]*"),
    "Policy": (1, 2048, r"[\t\n\r -\xff]+"),
}


@dataclass(frozen=True)
class StsCall:
    """One attempt to assume a role. The outcome is "allowed" or the code of the error."""

    caller_arn: str
    role_arn: str | None
    external_id: str | None
    session_name: str | None
    duration: int
    policy: str | None
    outcome: str


class Sts:
    def __init__(self, identities: Identities, faults: Faults) -> None:
        self._identities = identities
        self._faults = faults
        self.calls: list[StsCall] = []
        self.times: list[float] = []  # when STS was called, in seconds since 1970

    def clear(self) -> None:
        self.calls.clear()
        self.times.clear()

    def handle(self, form: Mapping[str, str], caller: Caller, access_key_id: str) -> Response:
        self.times.append(time.time())
        match form.get("Action"):
            case "AssumeRole":
                return self._recorded(form, caller, access_key_id)
            case "GetCallerIdentity":
                # The call needs no permission, and no policy can deny it. So it identifies even an
                # inert session.
                self._faults.strike(Attempt("GetCallerIdentity", caller.arn, caller.account))
                fields = {"UserId": caller.unique_id, "Account": caller.account, "Arn": caller.arn}
                return _answer("GetCallerIdentity", _tags(fields))
            case action:
                raise unsupported(f"it has no sts:{action}")

    def _recorded(self, form: Mapping[str, str], caller: Caller, access_key_id: str) -> Response:
        outcome = "unexpected"
        try:
            session = self._assume_role(form, caller, access_key_id)
            outcome = "allowed"
        except (AwsError, UnsupportedPolicy, Dropped) as error:
            outcome = error.code
            raise
        finally:
            call = StsCall(
                caller_arn=caller.arn,
                role_arn=form.get("RoleArn"),
                external_id=form.get("ExternalId"),
                session_name=form.get("RoleSessionName"),
                duration=_duration(form),
                policy=form.get("Policy"),
                outcome=outcome,
            )
            self.calls.append(call)
        return _answer("AssumeRole", _session_xml(session))

    def _assume_role(self, form: Mapping[str, str], caller: Caller, access_key_id: str) -> Session:
        _validate(form)
        arn, external_id = form["RoleArn"], form.get("ExternalId")
        role = self._identities.role(arn)
        self._faults.strike(
            Attempt("AssumeRole", caller.arn, caller.account, arn, external_id, role)
        )
        if role is None or not self._may_assume(role, form, caller, access_key_id):
            raise access_denied(caller.arn, ACTION, arn)
        _check_duration(_duration(form), role, caller)
        return self._identities.open_session(
            role, form["RoleSessionName"], _duration(form), form.get("Policy")
        )

    def _may_assume(
        self, role: Any, form: Mapping[str, str], caller: Caller, access_key_id: str
    ) -> bool:
        keys = {
            "sts:ExternalId": form.get("ExternalId"),  # None leaves it out of the context
            "sts:RoleSessionName": form["RoleSessionName"],
            "aws:ResourceAccount": role.account_id,
        }
        request = Request(ACTION, role.arn, context_of(caller, **keys))
        grant = evaluate_resource(role.assume_role_policy_document, caller, request, trust=True)
        guard = organization.policy(role.account_id, "resource_control")
        if guard is not None and evaluate_resource(guard, caller, request) is Grant.DENIED:
            return False
        permissions = self._identities.permissions(caller, access_key_id)
        same_account = caller.account == role.account_id
        return permissions.permit(
            request, grant, same_account=same_account, identity_suffices=False
        )


def _validate(form: Mapping[str, str]) -> None:
    """Check the parameters as AWS does, in its words. boto3 checks neither length nor pattern."""
    surplus = set(form) - _PROTOCOL - _PARAMETERS
    if surplus:
        raise unsupported(f"its AssumeRole takes no {', '.join(sorted(surplus))}")
    complaints: list[str] = []
    for name in _LIMITS:
        complaints += _complaints(name, form.get(name))
    complaints += _duration_complaints(form.get("DurationSeconds"))
    if complaints:
        plural = "" if len(complaints) == 1 else "s"
        raise invalid(
            f"{len(complaints)} validation error{plural} detected: {'; '.join(complaints)}"
        )
    if not form["RoleArn"].startswith("arn:"):
        raise invalid(f"{form['RoleArn']} is invalid")
    if not _IAM_ARN.fullmatch(form["RoleArn"]):
        raise invalid("Request ARN is invalid")
    if "Policy" in form:
        try:
            check_document(form["Policy"])
        except UnsupportedPolicy as error:
            raise AwsError(
                400, "MalformedPolicyDocument", f"Syntax errors in policy: {error}."
            ) from None


def _complaints(name: str, value: str | None) -> list[str]:
    least, most, pattern = _LIMITS[name]
    member = name[0].lower() + name[1:]
    if value is None:
        required = name in {"RoleArn", "RoleSessionName"}
        return [_complaint("null", member, "not be null")] if required else []
    rules = []
    if len(value) < least:
        rules.append(f"have length greater than or equal to {least}")
    if len(value) > most:
        rules.append(f"have length less than or equal to {most}")
    if not re.fullmatch(pattern, value, re.ASCII):
        rules.append(f"satisfy regular expression pattern: {pattern}")
    return [_complaint(f"'{value}'", member, rule) for rule in rules]


def _duration_complaints(text: str | None) -> list[str]:
    if text is None:
        return []
    if not re.fullmatch(r"-?[0-9]+", text, re.ASCII):
        raise invalid(f"'{text}' is not a number")
    rule = None
    if int(text) < 900:
        rule = "have value greater than or equal to 900"
    elif int(text) > 43200:
        rule = "have value less than or equal to 43200"
    return [_complaint(f"'{text}'", "durationSeconds", rule)] if rule else []


def _complaint(value: str, member: str, must: str) -> str:
    return f"Value {value} at '{member}' failed to satisfy constraint: Member must {must}"


def _check_duration(seconds: int, role: Any, caller: Caller) -> None:
    """Check the duration.

    It is checked after the permission: a caller without permission must not learn a role's limits.
    """
    if caller.kind is Kind.SESSION and seconds > 3600:
        raise invalid(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by"
            " role chaining."
        )
    if seconds > int(role.max_session_duration or 3600):
        raise invalid(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        )


def _duration(form: Mapping[str, str]) -> int:
    text = form.get("DurationSeconds", "3600")
    return int(text) if re.fullmatch(r"-?[0-9]+", text, re.ASCII) else 0


def _session_xml(session: Session) -> str:
    credentials = {
        "AccessKeyId": session.access_key_id,
        "SecretAccessKey": session.secret_access_key,
        "SessionToken": session.token,
        "Expiration": session.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    user = {"AssumedRoleId": session.caller.unique_id, "Arn": session.caller.arn}
    packed = ""
    if session.policy is not None:
        packed = _tag("PackedPolicySize", str(len(session.policy) * 100 // 2048))
    return (
        f"<Credentials>{_tags(credentials)}</Credentials>"
        f"<AssumedRoleUser>{_tags(user)}</AssumedRoleUser>{packed}"
    )


def _tags(fields: Mapping[str, str]) -> str:
    return "".join(_tag(name, text) for name, text in fields.items())


def _tag(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"


def _answer(action: str, result: str) -> Response:
    request_id = str(uuid.uuid4())
    body = (
        f"<{action}Response"
        f' xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>{result}'
        f"</{action}Result>"
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>"
        f"</{action}Response>"
    )
    return Response(body, 200, {"x-amzn-RequestId": request_id}, content_type="text/xml")
