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
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError
from botocore.session import get_session

from app.aws.breaker import Breaker
from app.aws.errors import (
    AWS_ERRORS,
    Misconfigured,
    Refused,
    StsError,
    Unavailable,
    classify,
    is_silence,
)
from app.aws.own_role import OwnRole, session_policy
from app.aws.proof_names import ProofNames
from app.aws.query import Budget, QueryApi
from app.aws.role_view import Right, RoleSettings, RoleView
from app.config import Broker
from app.ids import AccountId, ExternalId, Grant, RoleArn, foreign_external_id, new_external_id
from app.permissions.permission_sets import SIMULATION
from app.settings.checks import ROLE_CHAINING_MAX, SESSION_MIN

# A session under this policy can only call GetCallerIdentity, which AWS never denies (invariant 6).
INERT_POLICY = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]},
    separators=(",", ":"),
)
_CONFIRMED_SECONDS = 5.0  # for which AWS's confirmation of the broker's key counts


@dataclass(frozen=True, slots=True)
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


@dataclass(slots=True)
class _ConfirmedKey:
    """The access key that AWS last confirmed as the broker's.

    `until`: monotonic seconds at which the confirmation expires.
    """

    key_id: str | None = None
    until: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Sts:
    """A client of STS in the broker's region, with the broker's credentials.

    A process has only one, because it holds the connections to STS. It can be created without
    credentials. A process without them reports that it is not ready, and recovers by itself.
    """

    def __init__(
        self,
        region: str,
        broker: Broker,
        proof_names: ProofNames,
        canary: RoleArn | None = None,
        stranger: RoleArn | None = None,
    ) -> None:
        self.broker = broker
        self._proof_names = proof_names
        self._canary = canary
        self._stranger = stranger
        boto = get_session()  # shared, because each session reads botocore's data again
        self._api = QueryApi("sts", region, boto)
        self._own_role = OwnRole(region, boto)
        self._breaker = Breaker()
        self._confirmed = _ConfirmedKey()

    def with_budget(self, budget: Budget) -> "Sts":
        """Return a copy of this client whose calls wait until the budget has room for them."""
        limited = copy.copy(self)
        limited._api = self._api.with_budget(budget)  # noqa: SLF001  a copy of ours
        return limited

    @property
    def is_silent(self) -> bool:
        """Return whether the breaker is open.

        If it is, AWS has not answered for a while, and few calls are let through.
        """
        return self._breaker.is_open

    def assume(
        self, grant: Grant, *, session_name: str, duration_seconds: int, policy: str | None
    ) -> Session:
        """Open a session for a proven connection.

        Raises Refused, Misconfigured or Unavailable.
        """
        return self._with_own_id(grant, _terms(session_name, duration_seconds, policy))

    def probe_own(self, grant: Grant) -> OwnProbe:
        """Try the tenant's own External ID, and read the role.

        The session's account according to GetCallerIdentity must equal the account in AssumeRole's
        answer. Raises Refused, Misconfigured or Unavailable.
        """
        session, probe = self._probe_and_read(grant)
        account_id, _ = self._who_is(session.credentials)
        if account_id != session.account_id:
            raise Unavailable
        return probe

    def probe_routinely(self, grant: Grant) -> OwnProbe:
        """Try the tenant's own External ID, and read the role. Does not check the account again.

        Raises the same errors as `probe_own`.
        """
        return self._probe_and_read(grant)[1]

    def probe_again(self, grant: Grant) -> str:
        """Try the tenant's own External ID once more, and return the role's unique id.

        Raises the same errors as `probe_own`.
        """
        return self._probe_session(grant, INERT_POLICY).role_unique_id

    def view(self, grant: Grant, role_unique_id: str, rights: Iterable[Right]) -> RoleView | None:
        """Return what the role reads of itself, and whether it has these rights, for a diagnosis.

        Returns None if another role has this ARN by now. Raises Refused, Misconfigured or
        Unavailable.
        """
        session = self._probe_session(grant, session_policy(grant.role_arn, SIMULATION))
        if session.role_unique_id != role_unique_id:
            return None
        return self._own_role.view(session.credentials, grant, role_unique_id, rights)

    def probe_missing(self, grant: Grant) -> None:
        """Try the role without an External ID.

        Raises Refused if the role is secure. Returns if the role accepted the call.
        """
        self._probe(grant.role_arn, None)

    def probe_foreign(self, grant: Grant) -> None:
        """Try a foreign External ID, which was never issued.

        Raises Refused if the role is secure. Returns if the role accepted the call.
        """
        self._probe(grant.role_arn, foreign_external_id(grant.external_id))

    def probe_as_stranger(self, stranger: Session, grant: Grant) -> None:
        """Try the right External ID as the stranger.

        Raises Refused if the role is secure. Returns if the role accepted the call.
        """
        self._probe(grant.role_arn, grant.external_id, stranger.credentials)

    def open_stranger(self) -> Session:
        """Open a session of the stranger, whose role must be configured.

        Raises the same errors as `probe_canary`.
        """
        stranger = _configured(self._stranger)
        terms = _terms(self._proof_names.make(stranger), ROLE_CHAINING_MAX, None)
        with self._as_broker():
            return self._assume_role(stranger, None, terms)

    def probe_canary(self, *, with_id: bool) -> None:
        """Try the canary, which must be configured, with an External ID or without.

        Returns if the canary accepted the call. Raises Refused, Misconfigured or Unavailable.
        """
        external_id = new_external_id() if with_id else None
        with self._as_broker():
            self._probe(_configured(self._canary), external_id)

    def probe_canary_as_stranger(self, stranger: Session) -> None:
        """Try the canary as the stranger, in the same way as `probe_as_stranger` tries a role."""
        self._probe(_configured(self._canary), new_external_id(), stranger.credentials)

    def is_broker(self) -> bool:
        """Return whether our own credentials are the broker's, which customers' roles trust.

        Raises Unavailable.
        """
        try:
            _, arn = self._who_is(None)
        except Misconfigured as error:
            raise Unavailable from error
        return _is_same_principal(arn, self.broker)

    def own_identity(self) -> bool | None:
        """Return the same as `is_broker`, or None without usable credentials.

        Credentials are not usable if AWS refuses them. Raises Unavailable.
        """
        try:
            self._api.own_key_id()
        except AWS_ERRORS:
            return None
        try:
            return self.is_broker()
        except Unavailable as error:
            if isinstance(error.__cause__, ClientError) and not is_silence(error.__cause__):
                return None
            raise

    def _probe_session(self, grant: Grant, policy: str) -> Session:
        """Open a session for a proof or a diagnosis with the tenant's own External ID."""
        return self._with_own_id(grant, self._probe_terms(grant.role_arn, policy))

    def _with_own_id(self, grant: Grant, terms: dict[str, str]) -> Session:
        with self._as_broker():
            return self._assume_role(grant.role_arn, grant.external_id, terms)

    def _probe_and_read(self, grant: Grant) -> tuple[Session, OwnProbe]:
        """Open a session that may read only its own role, and read that role."""
        session = self._probe_session(grant, session_policy(grant.role_arn))
        settings = self._own_role.settings(session.credentials, grant, session.role_unique_id)
        return session, OwnProbe(session.account_id, session.role_unique_id, settings)

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
        confirmed = self._confirmed
        with confirmed.lock:
            try:
                key_id = self._api.own_key_id()
            except AWS_ERRORS as error:  # the refused call had credentials a moment ago
                raise Unavailable from error
            if key_id == confirmed.key_id and time.monotonic() < confirmed.until:
                return True
            if not self.is_broker():
                return False
            confirmed.key_id, confirmed.until = key_id, time.monotonic() + _CONFIRMED_SECONDS
            return True

    def _probe(
        self,
        role_arn: RoleArn,
        external_id: ExternalId | None,
        credentials: ReadOnlyCredentials | None = None,
    ) -> None:
        """Call AssumeRole only to see whether the role accepts the call.

        The session of a role that accepts it has no rights, and is discarded here.
        """
        terms = self._probe_terms(role_arn, INERT_POLICY)
        self._assume_role(role_arn, external_id, terms, credentials)

    def _probe_terms(self, role_arn: RoleArn, policy: str) -> dict[str, str]:
        return _terms(self._proof_names.make(role_arn), SESSION_MIN, policy)

    def _who_is(self, credentials: ReadOnlyCredentials | None) -> tuple[AccountId, list[str]]:
        """Return the account of these credentials (None: our own), and the six parts of their ARN.

        Raises Misconfigured or Unavailable.
        """
        try:
            with self._breaker.call(self.broker.account_id):
                answer = self._api.call("GetCallerIdentity", {}, credentials)
                _, _, _, _, _, _ = arn = answer["Arn"].split(":", 5)
                return AccountId(answer["Account"]), arn
        except AWS_ERRORS as error:
            failure = classify(error)
            if isinstance(failure, Refused):  # AWS never denies this call, so this is a fault
                failure = Unavailable()
            raise failure from error

    def _assume_role(
        self,
        role_arn: RoleArn,
        external_id: ExternalId | None,
        terms: dict[str, str],
        credentials: ReadOnlyCredentials | None = None,
    ) -> Session:
        form = {"RoleArn": role_arn.text} | terms
        if external_id is not None:
            form["ExternalId"] = external_id
        try:
            with self._breaker.call(_tenant(role_arn, external_id)):
                return _session(self._api.call("AssumeRole", form, credentials))
        except AWS_ERRORS as error:
            raise classify(error) from error


def _terms(session_name: str, seconds: int, policy: str | None) -> dict[str, str]:
    """Return a session's name, duration and session policy as a form."""
    terms = {"RoleSessionName": session_name, "DurationSeconds": str(seconds)}
    return terms | {"Policy": policy} if policy else terms


def _tenant(role_arn: RoleArn, external_id: ExternalId | None) -> str:
    """Return a key by which the breaker distinguishes tenants.

    It is the prefix that an External ID shares with the foreign External IDs for it. Without an
    External ID, it is the account id.
    """
    return external_id[:20] if external_id else role_arn.account_id


def _is_same_principal(arn: list[str], broker: Broker) -> bool:
    """Return whether GetCallerIdentity's ARN is the broker's.

    Paths are ignored, because a session's ARN lacks its role's path.
    """
    _, partition, service, _, account, resource = arn
    kind, _, rest = resource.partition("/")
    if (partition, account) != (broker.partition, broker.account_id):
        return False
    if broker.is_role:
        return service == "sts" and kind == "assumed-role" and rest.split("/")[0] == broker.name
    return service == "iam" and kind == "user" and rest.rpartition("/")[2] == broker.name


def _configured(role: RoleArn | None) -> RoleArn:
    if role is None:
        raise RuntimeError("this role is not configured")
    return role


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
