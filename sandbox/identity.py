"""The identity that signed a request, and its permissions.

There are three kinds of access keys: 12 digits (the root of that account, with any secret), the
keys of IAM users, and those of sessions from the sandbox's own AssumeRole. Signatures are not
verified. Session tokens are compared.
"""

import base64
import json
import re
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from moto.iam.models import iam_backends
from werkzeug.wrappers import Request as HttpRequest

from sandbox import clock
from sandbox.errors import AwsError, unsupported
from sandbox.organization import organization
from sandbox.policy import (
    ANONYMOUS,
    Caller,
    Decision,
    Grant,
    Kind,
    Request,
    evaluate_identity,
    strictest,
)
from sandbox.roles import managed_policy

_ACCOUNT = re.compile(r"[0-9]{12}")
_SCOPE = re.compile(r"Credential=([^/,\s]+)/[0-9]+/([^/,\s]+)/([^/,\s]+)/aws4_request")
_ROLE_ARN = re.compile(r"arn:aws:iam::([0-9]{12}):role/(?:[!-~]+/)?[\w+=,.@-]{1,64}", re.ASCII)


@dataclass(frozen=True)
class Session:
    """A session that AssumeRole returned, and its terms."""

    caller: Caller
    access_key_id: str
    secret_access_key: str = field(repr=False)
    token: str = field(repr=False)
    expires_at: datetime
    policy: str | None
    role: Any = field(repr=False)


@dataclass(frozen=True)
class Signature:
    """The parts of a SigV4 signature that the sandbox reads: key, token, region and service."""

    access_key_id: str
    token: str | None
    region: str
    service: str


def read_signature(request: HttpRequest) -> Signature | None:
    """Read the Authorization header or a presigned URL's query. Return None if both are absent."""
    query = {name.lower(): value for name, value in request.args.items()}
    token = request.headers.get("X-Amz-Security-Token") or query.get("x-amz-security-token")
    if "awsaccesskeyid" in query:
        # The old format of presigned URLs, which boto3 still uses for us-east-1.
        _check_presigned(_seconds(query.get("expires")))
        return Signature(query["awsaccesskeyid"], token, "us-east-1", "s3")
    presigned = query.get("x-amz-credential")
    text = f"Credential={presigned}" if presigned else request.headers.get("Authorization", "")
    match = _SCOPE.search(text)
    if match is None:
        return None
    if presigned:
        _check_presigned(_moment(query.get("x-amz-date")) + _seconds(query.get("x-amz-expires")))
    return Signature(match[1], token, match[2], match[3])


def _seconds(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


def _moment(text: str | None) -> float:
    try:
        return datetime.strptime(text or "", "%Y%m%dT%H%M%S%z").timestamp()
    except ValueError:
        return 0  # an unreadable time counts as expired


def _check_presigned(expires_at: float) -> None:
    if clock.now().timestamp() >= expires_at:
        raise AwsError(403, "AccessDenied", "Request has expired")


class Identities:
    """The callers by access key.

    Sessions are held by key, because moto would search all of them one by one.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._roles: dict[str, Any] = {}

    def clear(self) -> None:
        self._sessions.clear()
        self._roles.clear()

    def authenticate(self, signature: Signature | None) -> Caller:
        """Return the caller.

        Raises the error with which AWS answers an unknown or expired key.
        """
        if signature is None:
            return ANONYMOUS
        key = signature.access_key_id
        if _ACCOUNT.fullmatch(key):
            arn = f"arn:aws:iam::{key}:root"
            return Caller(Kind.ROOT, key, arn, arn, key)
        session = self._sessions.get(key)
        if session is None:
            return _user(key, signature.service)
        if signature.token is None or not secrets.compare_digest(signature.token, session.token):
            raise _unknown_key(signature.service)
        roles = iam_backends[session.caller.account]["aws"].roles
        if roles.get(session.role.id) is not session.role:
            # A deleted role invalidates its sessions, even if a new role has its name.
            raise _unknown_key(signature.service)
        if clock.now() >= session.expires_at:
            raise AwsError(
                403, "ExpiredToken", "The security token included in the request is expired"
            )
        return session.caller

    def role(self, arn: str) -> Any:
        """Return moto's role with exactly this ARN, or None. Case and path must match.

        The look-up is cached, because accounts may hold thousands of roles.
        """
        match = _ROLE_ARN.fullmatch(arn)
        if match is None:
            return None
        roles = iam_backends[match[1]]["aws"].roles
        cached = self._roles.get(arn)
        if cached is not None and roles.get(cached.id) is cached:
            return cached
        for role in list(roles.values()):
            if role.arn == arn:
                self._roles[arn] = role
                return role
        return None

    def open_session(self, role: Any, name: str, seconds: int, policy: str | None) -> Session:
        """Open a session of the role.

        The session carries the role's own unique id, so that a recreated role can be detected.
        """
        # AWS truncates the expiry to whole seconds in its answer. The sandbox enforces the
        # truncated time.
        issued_at = clock.now().replace(microsecond=0)
        expires_at = issued_at + timedelta(seconds=seconds)
        caller = Caller(
            Kind.SESSION,
            role.account_id,
            f"arn:aws:sts::{role.account_id}:assumed-role/{role.name}/{name}",
            role.arn,
            f"{role.id}:{name}",
            issued_at,
        )
        key = f"ASIA{base64.b32encode(secrets.token_bytes(10)).decode()}"
        session = Session(
            caller,
            key,
            secrets.token_urlsafe(30),
            secrets.token_urlsafe(240),
            expires_at,
            policy,
            role,
        )
        self._sessions[key] = session
        return session

    def permissions(self, caller: Caller, access_key_id: str) -> "Permissions":
        if caller.kind is Kind.USER:
            return _user_permissions(caller)
        session = self._sessions.get(access_key_id)
        if session is None:
            return root_permissions(caller.account) if caller.kind is Kind.ROOT else Permissions()
        role = role_policies(session.role)
        return replace(role, ceilings=_present({"session policy": session.policy}) | role.ceilings)


def role_arn(account: str, name: str) -> str:
    """Return the ARN of the account's role with this name and its path.

    Without such a role the ARN has no path.
    """
    for role in list(iam_backends[account]["aws"].roles.values()):
        if role.name == name:
            return str(role.arn)
    return f"arn:aws:iam::{account}:role/{name}"


def _user(key: str, service: str) -> Caller:
    for account in list(iam_backends):
        for user in list(iam_backends[account]["aws"].users.values()):
            for owned in user.access_keys:
                if owned.access_key_id == key and owned.status == "Active":
                    return Caller(Kind.USER, account, user.arn, user.arn, user.id)
    raise _unknown_key(service)


def _unknown_key(service: str) -> AwsError:
    if service == "s3":
        message = "The AWS Access Key Id you provided does not exist in our records."
        return AwsError(403, "InvalidAccessKeyId", message)
    return AwsError(
        403, "InvalidClientTokenId", "The security token included in the request is invalid."
    )


BOUNDARY, SCP = "permissions boundary", "service control policy"
_EVERYTHING = (
    '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}'
)
_acting = threading.local()  # the caller for whom this thread works


@dataclass(frozen=True)
class Permissions:
    """An identity's own policies, and its ceilings by kind. All must allow a request."""

    identity: Sequence[str] = ()
    ceilings: dict[str, str] = field(default_factory=dict)
    unlimited: bool = False

    def decide(self, request: Request) -> Decision:
        return self._combine([self.identity, *self._limits()], request)

    def why_not(self, request: Request) -> str | None:
        """Return the reason for a refusal in AWS's words, or None if the request is allowed."""
        if self.unlimited:
            return None
        kinds = ("identity-based policy", *self.ceilings)
        why = None
        for kind, group in zip(kinds, (self.identity, *self._limits()), strict=True):
            decision = evaluate_identity(group, request)
            if decision is Decision.DENIED:
                return f"with an explicit deny in a{'n' if kind[0] == 'i' else ''} {kind}"
            if decision is Decision.NOT_ALLOWED and why is None:
                why = f"because no {kind} allows the {request.action} action"
        return why

    def _limits(self) -> list[list[str]]:
        return [[text] for text in self.ceilings.values()]

    def permit(
        self, request: Request, grant: Grant, *, same_account: bool, identity_suffices: bool
    ) -> bool:
        """Combine the caller's permissions with the resource's policy.

        Across accounts both must allow the request. Within one account it suffices that a resource
        policy names the caller and the ceilings allow the request. For resources other than roles
        (`identity_suffices`), the caller's own policies suffice as well.
        """
        decision = self.decide(request)
        if grant is Grant.DENIED or decision is Decision.DENIED:
            return False
        if grant is Grant.NONE and not (same_account and identity_suffices):
            return False
        if decision is Decision.ALLOWED or (same_account and grant is Grant.SESSION):
            return True
        named = same_account and grant is Grant.PRINCIPAL
        return named and self._combine(self._limits(), request) is Decision.ALLOWED

    def _combine(self, groups: Sequence[Sequence[str]], request: Request) -> Decision:
        if self.unlimited:
            return Decision.ALLOWED
        return strictest(evaluate_identity(group, request) for group in groups)


def root_permissions(account: str) -> Permissions:
    """Return permission for everything in the account that its organisation's policy allows."""
    scp = organization.policy(account, "service_control")
    return Permissions(unlimited=True) if scp is None else Permissions([_EVERYTHING], {SCP: scp})


def act_for(caller: Caller, permissions: Permissions) -> None:
    """Create resources with the caller's permissions while this thread answers the request."""
    _acting.who = caller, permissions


def acting_in(account: str) -> tuple[Caller, Permissions]:
    """Return the principal that creates resources in the account, and its permissions.

    It is this thread's caller, or AWS itself, for example for a StackSet.
    """
    caller, permissions = getattr(_acting, "who", (ANONYMOUS, Permissions()))
    if caller.account == account:
        return caller, permissions
    root = f"arn:aws:iam::{account}:root"
    return Caller(Kind.ROOT, account, root, root, account), root_permissions(account)


def _user_permissions(caller: Caller) -> Permissions:
    backend = iam_backends[caller.account]["aws"]
    user = backend.get_user(caller.arn.rpartition("/")[2])
    documents = _documents(user)
    for group in backend.get_groups_for_user(user.name):
        documents += _documents(group)
    return Permissions(documents)


def role_policies(role: Any) -> Permissions:
    """Return a role's own policies, with its boundary and its organisation's policy as ceilings."""
    arn, text = role.permissions_boundary_arn, None
    if arn:
        boundary = managed_policy(role.account_id, arn)
        if boundary is None:
            raise unsupported(f"the permissions boundary {arn} is not in the sandbox")
        text = _default_version(boundary)
    scp = organization.policy(role.account_id, "service_control")
    return Permissions(_documents(role), _present({BOUNDARY: text, SCP: scp}))


def _documents(owner: Any) -> list[str]:
    """Return the inline and managed policies of a user, a group or a role, as JSON texts."""
    documents = []
    for document in owner.policies.values():
        text = document if isinstance(document, str) else json.dumps(document, default=str)
        documents.append(text)
    return [*documents, *map(_default_version, owner.managed_policies.values())]


def _default_version(policy: Any) -> str:
    return next(str(version.document) for version in policy.versions if version.is_default)


def context_of(caller: Caller, **extra: str | None) -> Mapping[str, str]:
    """Return the condition keys that every request has, and those of `extra` that are not None."""
    now = clock.now()
    keys = {
        "aws:SourceIp": "127.0.0.1",
        "aws:CurrentTime": now.isoformat(),
        "aws:EpochTime": str(int(now.timestamp())),
        # Bucket policies often demand TLS, and the sandbox speaks plain HTTP only
        "aws:SecureTransport": "true",
    }
    if caller.kind is not Kind.ANONYMOUS:
        keys["aws:PrincipalArn"] = caller.principal_arn
        keys["aws:PrincipalAccount"] = caller.account
        keys["aws:userid"] = caller.unique_id
    if caller.issued_at is not None:
        keys["aws:TokenIssueTime"] = caller.issued_at.isoformat()
    if caller.kind is Kind.USER:
        keys["aws:username"] = caller.arn.rpartition("/")[2]
    return keys | _present(extra)


def _present(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}
