"""The only module that reaches a customer's account (invariant 2 in docs/architecture.md).

`assume` opens a session for a `Grant`, which only a stored connection can make. A proof uses the
`probe` methods to see whether the role accepts a call. Their sessions have no rights, but one of
them may read its own role. They are discarded. `view` reads a role for a diagnosis. Its session may
read only its own role, and never leaves this module. The module also reaches two roles of the
vendor, the canary and the stranger, which the settings name. All these methods use `_assume_role`,
the only call of AssumeRole in the code (an AST test counts them).

Callers must check session policies, session names and durations first. botocore checks no patterns
and no maxima, and AWS's error would describe Deputy's request instead of the client's.
"""

import copy
import json
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import urllib3
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError
from botocore.session import get_session
from cachetools import TTLCache

from app.aws.errors import AWS_ERRORS, Misconfigured, Refused, StsError, Unavailable, is_silence
from app.aws.query_api import Budget, QueryApi
from app.aws.role_reader import RoleSession, session_policy
from app.aws.role_view import Right, RoleSettings, RoleView
from app.aws.session_names import ProofNames
from app.ids import (
    AccountId,
    Broker,
    ExternalId,
    Grant,
    RoleArn,
    foreign_external_id,
    new_external_id,
)
from app.permissions.permission_sets import SIMULATION
from app.settings.valid_values import ROLE_CHAINING_MAX, SESSION_MIN

# A session under this policy can only call GetCallerIdentity, which AWS never denies (invariant 6).
INERT_POLICY = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]},
    separators=(",", ":"),
)
_CONFIRMED_SECONDS = 5.0  # for which AWS's confirmation of the broker's key is cached
# Seconds; short, because the client waits for the answer
_STS_TIMEOUT = urllib3.Timeout(connect=1, read=2)
_IAM_TIMEOUT = urllib3.Timeout(total=2)  # seconds; a slow IAM must not delay a proof for long


@dataclass(slots=True)  # not frozen, for the reason in app/audit/events.py
class Session:
    """Temporary credentials for a customer's role, and their identity according to AWS.

    Its repr does not show the secrets.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_at: datetime
    account_id: AccountId
    role_unique_id: str  # AROA…; changes when the role is deleted and recreated with the same ARN
    name: str  # the session name in the customer's CloudTrail

    @property
    def credentials(self) -> ReadOnlyCredentials:
        return ReadOnlyCredentials(
            self.access_key_id, self.secret_access_key, self.session_token, None
        )


class OwnProbe(NamedTuple):
    """A role that accepted its own External ID.

    `settings`: the settings that its session read of the role, or the error (Refused or
    Unavailable).
    """

    account_id: AccountId
    role_unique_id: str
    settings: RoleSettings | StsError


@dataclass(eq=False)
class Sts:
    """A client of STS in the broker's region, with the broker's credentials.

    A process has only one, because it holds the connections to STS. It can be created without
    credentials. A process without them reports that it is not ready, and recovers by itself.
    """

    region: str
    broker: Broker
    proof_names: ProofNames
    canary: RoleArn | None = None
    stranger: RoleArn | None = None
    budget: Budget = nullcontext

    def __post_init__(self) -> None:
        boto = get_session()  # shared, because each session reads botocore's data again
        self._api = QueryApi("sts", self.region, boto, _STS_TIMEOUT)
        self._iam = QueryApi("iam", self.region, boto, _IAM_TIMEOUT)
        # The access key that AWS last confirmed as the broker's
        self._confirmed: TTLCache[str | None, bool] = TTLCache(1, _CONFIRMED_SECONDS)
        self._confirming = threading.Lock()

    def with_budget(self, budget: Budget) -> "Sts":
        """Return a copy of this client whose calls wait until the budget has room for them."""
        limited = copy.copy(self)
        limited.budget = budget
        return limited

    @property
    def is_silent(self) -> bool:
        """Return whether the breaker is open.

        If it is, AWS has not answered for a while, and few calls are let through.
        """
        return self._api.breaker.is_open

    def assume(
        self, grant: Grant, *, session_name: str, duration_seconds: int, policy: str | None
    ) -> Session:
        """Open a session for a proven connection.

        Raises Refused, Misconfigured or Unavailable.
        """
        with self._as_broker():
            return self._assume_role(
                grant.role_arn,
                grant.external_id,
                policy,
                tenant_id=grant.tenant_id,
                session_name=session_name,
                seconds=duration_seconds,
            )

    def probe_own(self, grant: Grant, *, is_routine: bool = False) -> OwnProbe:
        """Try the tenant's own External ID, and read the role.

        The session's account according to GetCallerIdentity must equal the account in AssumeRole's
        answer. A routine proof does not ask for it. Raises Refused, Misconfigured or Unavailable.
        """
        session, reader = self._open_reader(grant)
        settings = reader.settings()
        if not is_routine:
            account_id, _ = self._who_is(session.credentials)
            if account_id != session.account_id:
                raise Unavailable
        return OwnProbe(session.account_id, session.role_unique_id, settings)

    def probe_again(self, grant: Grant) -> str:
        """Try the tenant's own External ID once more, and return the role's unique id.

        Raises the same errors as `probe_own`.
        """
        return self._probe_session(grant).role_unique_id

    def view(self, grant: Grant, role_unique_id: str, rights: Iterable[Right]) -> RoleView | None:
        """Return what the role reads of itself, and whether it has these rights, for a diagnosis.

        Returns None if another role has this ARN by now. Raises Refused, Misconfigured or
        Unavailable.
        """
        _, reader = self._open_reader(grant, SIMULATION)
        return reader.view(rights) if reader.role_unique_id == role_unique_id else None

    def probe_missing(self, grant: Grant) -> None:
        """Try the role without an External ID.

        Raises Refused if the role is secure. Returns if the role accepted the call.
        """
        self._assume_role(grant.role_arn, None, tenant_id=grant.tenant_id)

    def probe_foreign(self, grant: Grant) -> None:
        """Try a foreign External ID, which was never issued.

        Raises Refused if the role is secure. Returns if the role accepted the call.
        """
        foreign = foreign_external_id(grant.external_id)
        self._assume_role(grant.role_arn, foreign, tenant_id=grant.tenant_id)

    def probe_as_stranger(self, stranger: Session, grant: Grant) -> None:
        """Try the right External ID as the stranger.

        Raises Refused if the role is secure. Returns if the role accepted the call.
        """
        self._assume_role(
            grant.role_arn,
            grant.external_id,
            tenant_id=grant.tenant_id,
            credentials=stranger.credentials,
        )

    def open_stranger(self) -> Session:
        """Open a session of the stranger, whose role must be configured.

        Raises the same errors as `probe_canary`.
        """
        with self._as_broker():
            return self._assume_role(self.stranger, None, policy=None, seconds=ROLE_CHAINING_MAX)

    def probe_canary(self, *, with_id: bool) -> None:
        """Try the canary, which must be configured, with an External ID or without.

        Returns if the canary accepted the call. Raises Refused, Misconfigured or Unavailable.
        """
        external_id = new_external_id() if with_id else None
        with self._as_broker():
            self._assume_role(self.canary, external_id)

    def probe_canary_as_stranger(self, stranger: Session) -> None:
        """Try the canary as the stranger, in the same way as `probe_as_stranger` tries a role."""
        self._assume_role(self.canary, new_external_id(), credentials=stranger.credentials)

    def is_broker(self) -> bool:
        """Return whether our own credentials are the broker's, which customers' roles trust.

        Raises Unavailable.
        """
        try:
            _, arn = self._who_is(None)
        except Misconfigured as error:
            raise Unavailable from error
        # Paths are ignored, because a session's ARN lacks its role's path
        broker, name = self.broker, re.escape(self.broker.name)
        service, resource = "iam", f"user/(.*/)?{name}"
        if broker.is_role:
            service, resource = "sts", f"assumed-role/{name}/.*"
        own = f"arn:{broker.partition}:{service}::{broker.account_id}:{resource}"
        return re.fullmatch(own, arn) is not None

    def own_identity(self) -> bool | None:
        """Return the same as `is_broker`, or None without usable credentials.

        Credentials are not usable if AWS refuses them. Raises Unavailable.
        """
        try:
            self._api.own_credentials()
        except AWS_ERRORS:
            return None
        try:
            return self.is_broker()
        except Unavailable as error:
            if isinstance(error.__cause__, ClientError) and not is_silence(error.__cause__):
                return None
            raise

    def _probe_session(self, grant: Grant, policy: str = INERT_POLICY) -> Session:
        """Open a session for a proof or a diagnosis with the tenant's own External ID."""
        with self._as_broker():
            return self._assume_role(
                grant.role_arn, grant.external_id, policy, tenant_id=grant.tenant_id
            )

    def _open_reader(self, grant: Grant, *more: str) -> tuple[Session, RoleSession]:
        """Open a session that may read its own role, and call `more`, and nothing else."""
        session = self._probe_session(grant, session_policy(grant.role_arn, *more))
        return session, RoleSession(self._iam, session.credentials, grant, session.role_unique_id)

    @contextmanager
    def _as_broker(self) -> Iterator[None]:
        """Surround a call that should succeed, and check each refusal of it.

        Raises Unavailable instead of Refused if our credentials are not the broker's.
        """
        try:
            yield
        except Refused:
            if self._is_confirmed_broker():
                raise
            raise Unavailable from None

    def _is_confirmed_broker(self) -> bool:
        """Return the same as `is_broker`, and cache a positive answer for 5 seconds.

        The answer is cached for the current credentials only. A thousand roles may refuse at once.
        Then one thread calls AWS, and the others wait for its answer.
        """
        with self._confirming:
            try:
                key_id = self._api.own_credentials().access_key
            except AWS_ERRORS as error:  # the refused call had credentials a moment ago
                raise Unavailable from error
            if key_id in self._confirmed:
                return True
            is_broker = self.is_broker()
            if is_broker:
                self._confirmed[key_id] = True
            return is_broker

    def _who_is(self, credentials: ReadOnlyCredentials | None) -> tuple[AccountId, str]:
        """Return the account of these credentials (None: our own), and their ARN.

        Raises Misconfigured or Unavailable.
        """
        try:
            with self._api.breaker.call(self.broker.account_id):
                answer = self._api.call("GetCallerIdentity", {}, credentials, self.budget)
                arn: str = answer["Arn"]
                _, _, _, _, _, _ = arn.split(":", 5)
                return AccountId(answer["Account"]), arn
        except Refused as error:  # AWS never denies this call, so this is a fault
            raise Unavailable from error.__cause__

    def _assume_role(
        self,
        role_arn: RoleArn | None,
        external_id: ExternalId | None,
        policy: str | None = INERT_POLICY,
        *,
        tenant_id: UUID | None = None,
        session_name: str | None = None,
        seconds: int = SESSION_MIN,
        credentials: ReadOnlyCredentials | None = None,
    ) -> Session:
        """Open a session as the broker, or with other `credentials`.

        By default it is a proof's session: it has no rights, and a name from `proof_names`.
        `role_arn`: None for a canary or a stranger that is not configured. `tenant_id`: the tenant
        whose role it is, for the breaker; None for a role of the vendor.
        """
        if role_arn is None:
            raise RuntimeError("this role is not configured")
        parameters = {
            "RoleArn": role_arn.text,
            "RoleSessionName": session_name or self.proof_names.make(role_arn),
            "DurationSeconds": seconds,
        }
        if policy:
            parameters["Policy"] = policy
        if external_id is not None:
            parameters["ExternalId"] = external_id
        with self._api.breaker.call(str(tenant_id or role_arn.account_id)):
            answer = self._api.call("AssumeRole", parameters, credentials, self.budget)
            return _session(answer)


def _session(answer: dict[str, Any]) -> Session:
    """Return the session in an answer of STS.

    Raises one of AWS_ERRORS if the answer does not have the form that STS documents.
    """
    credentials, user = answer["Credentials"], answer["AssumedRoleUser"]
    role_unique_id, _, session_name = user["AssumedRoleId"].partition(":")
    if not role_unique_id or not session_name:
        raise ValueError("AssumedRoleId is not <role id>:<session name>")
    return Session(
        access_key_id=credentials["AccessKeyId"],
        secret_access_key=credentials["SecretAccessKey"],
        session_token=credentials["SessionToken"],
        expires_at=credentials["Expiration"],
        # arn:aws:sts::<account>:assumed-role/<role>/<session>
        account_id=AccountId(user["Arn"].split(":")[4]),
        role_unique_id=role_unique_id,
        name=session_name,
    )
