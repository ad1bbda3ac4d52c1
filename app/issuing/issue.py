"""Issuing: short-lived credentials for a verified connection.

The caller names a tenant and a connection. Role and External ID come from the row (invariant 1;
docs/architecture.md lists the invariants). The rights of caller and connection come from memory,
and the session may come from the cache. So credentials leave only after their audit event is on
durable storage. The statement that stores it compares the revocation counter. After a revocation it
stores nothing, and everything is read again (invariants 8 and 9). A session that was not handed out
does no harm.
"""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, NoReturn
from uuid import UUID

import orjson

from app import errors, metrics, strict_json
from app.audit import Event, actions
from app.audit.log import AuditLog
from app.aws.sts import Misconfigured, Refused, Session, Sts, StsError
from app.clock import now, timestamp
from app.concurrency.buffered_metric import BufferedHistogram
from app.identity import ApiKeyPrincipal, owned
from app.identity.tenancy import connection_lock_id
from app.ids import session_name
from app.issuing.authorization import Authorization, Path, VerifiedConnection, refused_about
from app.issuing.session_cache import CacheKey, SessionCache, Source
from app.limits import quotas, rates, table
from app.settings.checks import SESSION_MIN
from app.store import locks
from app.store.database import SYSTEM, Database, Session as DbSession
from app.store.locks import Lock
from app.store.models import Connection, Trigger

DURATION_DEFAULT = 3600  # seconds

# AWS's limits for a session policy given inline (AssumeRole, Policy).
_POLICY_MAX = 2048
_POLICY_CHARACTERS = re.compile(r"[\t\n\r -\u00ff]+")

# Seconds. SDKs give up on a container credentials endpoint after 2 s. AWS may take most of that.
# The rest is for the audit log.
_ANSWER_SECONDS = 1.8
_COMMIT_SECONDS = 0.3

_INDEXED_MAX = 50_000  # sessions, as many as a process keeps


ISSUE_SECONDS = {
    source: BufferedHistogram(child) for source, child in metrics.ISSUE_SECONDS.items()
}


class Issued(NamedTuple):
    """A session, and the role that it is for."""

    session: Session
    role_arn: str


class _Asked(NamedTuple):
    """What to issue: the caller, the connection, the duration, and the policy that narrows it."""

    caller: ApiKeyPrincipal
    connection: VerifiedConnection
    duration_seconds: int
    policy: str | None

    def cache_key(self) -> CacheKey:
        """Return a key of everything that the session depends on, and of its API key.

        So no session answers another request.
        """
        connection, grant = self.connection, self.connection.grant
        row = connection.tenant_id.hex, connection.connection_id.hex, connection.version
        role = grant.role_arn.text, grant.external_id, connection.role_unique_id
        wanted = self.caller.key_id.hex, self.duration_seconds, self.policy
        return CacheKey(connection.tenant_id, orjson.dumps([*row, *role, *wanted]))


@dataclass(eq=False)
class CredentialIssuer:
    """Issues credentials: the only use case that returns a session of a customer's role."""

    _db: Database
    _sts: Sts
    _authorization: Authorization
    _sessions: SessionCache
    _rates: rates.Rates
    _log: AuditLog
    _max_seconds: int
    # Access key ids by which the log finds a hand-out of this process. The first hand-out of a
    # session may come from the cache: a renewal, another process or a request that gave up may have
    # stored it.
    _indexed: set[str] = field(default_factory=set)

    def issue(
        self,
        caller: ApiKeyPrincipal,
        tenant_id: UUID,
        connection_id: UUID,
        *,
        duration_seconds: int | None = None,
        session_policy: dict[str, Any] | str | None = None,
        reason: str | None = None,
    ) -> Issued:
        """Issue credentials for a verified connection, once their audit event is durable.

        `session_policy` only narrows what the role may do. Raises UnauthenticatedError,
        ForbiddenError, NotFoundError, SuspendedError, ConnectionNotVerifiedError,
        ValidationFailedError, RoleRefusedError, AwsUnavailableError, ProofExpiredError,
        RateLimitedError, and StoreUnavailableError when the issuance can't be recorded.
        """
        self._rates.acquire_issuance(caller, tenant_id)
        deadline = time.monotonic() + _ANSWER_SECONDS
        duration = self._duration(duration_seconds)
        policy = None if session_policy is None else canonical_policy(session_policy)
        fetched = None  # the session that this request opened, perhaps in an earlier round
        while True:
            counter, connection, at = self._authorize(caller, (tenant_id, connection_id), deadline)
            asked = _Asked(caller, connection, duration, policy)
            try:
                session, source = self._session(
                    asked, at, deadline - time.monotonic() - _COMMIT_SECONDS
                )
            except errors.CustomerSetupError as refusal:
                if time.monotonic() > deadline or self._is_current(asked, refusal):
                    raise
                continue
            if source == "sts":
                fetched = session
            caller.ensure_live()
            origin: Source = "sts" if session == fetched else "cache"
            event = _event(asked, session, origin, reason, valid_at_counter=counter)
            if self._record(event, deadline):
                return Issued(session, connection.grant.role_arn.text)
            if time.monotonic() > deadline:
                break
        raise errors.StoreUnavailableError("Too much is changing right now; try again in a moment.")

    def _authorize(
        self, caller: ApiKeyPrincipal, path: Path, deadline: float
    ) -> tuple[int, VerifiedConnection, float]:
        """Return the revocation counter, a connection with a fresh proof, and the time.

        The proof is within its shelf life at that time, in seconds since 1970.
        """
        while True:
            counter, connection = self._authorization.authorize_issuance(caller, path)
            at = timestamp()
            if self._authorization.ensure_fresh_proof(
                connection, at, deadline - time.monotonic() - _COMMIT_SECONDS
            ):
                return counter, connection, at

    def _record(self, event: Event, deadline: float) -> bool:
        """Store the event together with those of other requests.

        Return False if it is no longer valid.
        """
        access_key_id: str = event.details["access_key_id"]
        is_first = access_key_id not in self._indexed
        if is_first:
            event = replace(event, access_key_id=access_key_id)
        recorded = self._log.append(
            event, patience=max(_COMMIT_SECONDS, deadline - time.monotonic())
        )
        self._authorization.set_history(self._log.history)
        if recorded and is_first:
            if len(self._indexed) >= _INDEXED_MAX:
                self._indexed.clear()  # this costs each session one more entry in the index
            self._indexed.add(access_key_id)
        if recorded:
            ISSUE_SECONDS[event.details["source"]].observe(
                _ANSWER_SECONDS - (deadline - time.monotonic())
            )
        return recorded

    def report_refused(self, caller: ApiKeyPrincipal, tenant_id: UUID, connection_id: UUID) -> None:
        """Record a client's report that AWS refuses its session.

        No process hands that session out again, and a proof is due. Reports beyond one a minute for
        a connection, and beyond the tenant's limit, do nothing. Raises NotFoundError,
        ForbiddenError for a key of other permission sets, and RateLimitedError as `issue` does.
        """
        self._rates.acquire_issuance(caller, tenant_id)
        with self._db.read() as db:
            connection = _usable(db, caller, tenant_id, connection_id)
            if not (
                connection.report_takes_effect(now())
                and quotas.has_room(db, table.REPORTS, tenant_id)
            ):
                return
        with self._db.write(caller) as db:
            connection = _usable(db, caller, tenant_id, connection_id, lock=True)
            if connection.report_takes_effect(now()) and quotas.acquire(
                db, table.REPORTS, tenant_id
            ):
                connection.report_refused(now())
                actions.CONNECTION_REFUSAL_REPORTED.record_about(
                    db, caller.actor, connection, {"status": connection.status}
                )

    def _duration(self, wanted: int | None) -> int:
        if wanted is None:
            return min(DURATION_DEFAULT, self._max_seconds)
        if not SESSION_MIN <= wanted <= self._max_seconds:
            message = f"Must be between {SESSION_MIN} and {self._max_seconds} seconds."
            raise errors.ValidationFailedError({"duration_seconds": [message]})
        return wanted

    def _session(self, asked: _Asked, at: float, patience: float) -> tuple[Session, Source]:
        try:
            return self._sessions.obtain(
                asked.cache_key(), lambda: self._fetch(asked), patience, at
            )
        except errors.AppError as error:
            error.tenant_id, error.connection_id = asked.connection.path
            if isinstance(error, errors.CallerFaultError | errors.CustomerSetupError):
                self._authorization.forget(asked.connection)
            raise

    def _is_current(self, asked: _Asked, refusal: errors.CustomerSetupError) -> bool:
        """Return whether a refusal is about the connection as it is now.

        Memory may be older, because not every change raises the revocation counter. If another
        refusal applies now, that one is raised.
        """
        try:
            _, connection = self._authorization.authorize_issuance(
                asked.caller, asked.connection.path
            )
        except type(refusal):
            return True
        return connection == asked.connection

    def _fetch(self, asked: _Asked) -> Session:
        """Get a session of the proven role from AWS.

        Requests for the same session share it, or its refusal.
        """
        grant = asked.connection.grant
        self._rates.acquire_session(asked.connection.tenant_id)
        try:
            name, seconds = session_name(asked.caller.key_id), asked.duration_seconds
            session = self._sts.assume(
                grant, session_name=name, duration_seconds=seconds, policy=asked.policy
            )
        except StsError as error:
            refusal = _as_app_error(error)
            if isinstance(refusal, errors.RoleRefusedError):
                with self._changing(asked.connection) as (_, connection):
                    # Otherwise it is tried within a minute
                    if connection is not None and connection.refusing_since is None:
                        connection.make_due(now(), Trigger.ISSUING)
            raise refusal from error
        proven = (asked.connection.role_unique_id, grant.role_arn.account_id)
        if (session.role_unique_id, session.account_id) != proven:
            self._drop_recreated(asked)
        return session

    def _drop_recreated(self, asked: _Asked) -> NoReturn:
        """Drop the session of a role that is not the proven one.

        The connection needs a new proof. Raises ConnectionNotVerifiedError.
        """
        with self._changing(asked.connection) as (db, connection):
            if connection is not None:
                was = connection.status
                connection.role_was_recreated()
                actions.CONNECTION_ROLE_RECREATED.record_about(
                    db, asked.caller.actor, connection, {"was": was, "version": connection.version}
                )
        raise errors.ConnectionNotVerifiedError(
            "The role was deleted and made again since it was proven; verify it."
        )

    @contextmanager
    def _changing(self, about: VerifiedConnection) -> Iterator[tuple[DbSession, Connection | None]]:
        """Lock the connection's row and yield it.

        Yield None if it has another version, because AWS's answer is about this version.
        """
        with self._db.write(SYSTEM) as db:
            locks.hold(
                db, Lock.CONNECTION, connection_lock_id(about.tenant_id, about.connection_id)
            )
            options: Any = {"of": Connection, "key_share": True}
            connection = db.get(Connection, about.connection_id, with_for_update=options)
            current = connection is not None and connection.version == about.version
            yield db, connection if current else None


def _usable(
    db: DbSession,
    caller: ApiKeyPrincipal,
    tenant_id: UUID,
    connection_id: UUID,
    *,
    lock: bool = False,
) -> Connection:
    """Return the connection if this caller's key is for its permission set.

    Raises NotFoundError and ForbiddenError.
    """
    connection = owned(db, caller, tenant_id, connection_id, lock=lock)
    with refused_about((tenant_id, connection_id)):
        caller.require_sets(connection.permission_sets)
    return connection


def _event(
    asked: _Asked, session: Session, source: Source, reason: str | None, *, valid_at_counter: int
) -> Event:
    return actions.CREDENTIALS_ISSUED.event(
        asked.caller.actor,
        {
            "access_key_id": session.access_key_id,
            "expires_at": session.expires_at.isoformat(),
            "duration_seconds": asked.duration_seconds,
            "source": source,
            "session_name": session.name,
            "reason": reason,
        },
        tenant_id=asked.connection.tenant_id,
        connection_id=asked.connection.connection_id,
        valid_at_counter=valid_at_counter,
        row_ids=(*asked.caller.row_ids, *asked.connection.row_ids),
    )


def canonical_policy(policy: dict[str, Any] | str) -> str:
    """Return a session policy as compact JSON, within AWS's limits.

    Raises ValidationFailedError on `session_policy`.
    """
    try:
        document = strict_json.parse(policy) if isinstance(policy, str) else policy
    except ValueError as error:
        raise _bad_policy(str(error)) from error
    if not isinstance(document, dict):
        raise _bad_policy("Must be a JSON object.")
    if not document.get("Statement"):
        raise _bad_policy("Must be an IAM policy document with a Statement.")
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    if len(text) > _POLICY_MAX:
        raise _bad_policy(
            f"At most {_POLICY_MAX} characters as compact JSON; this has {len(text)}."
        )
    if not _POLICY_CHARACTERS.fullmatch(text):
        raise _bad_policy(
            "AWS allows only tab, line feed, carriage return and the characters U+0020 to U+00FF."
        )
    return text


def _bad_policy(message: str) -> errors.ValidationFailedError:
    return errors.ValidationFailedError({"session_policy": [message]})


def _as_app_error(error: StsError) -> errors.AppError:
    if isinstance(error, Refused):
        return errors.RoleRefusedError(
            "The customer's role refuses us now; its connection is due for a new proof."
        )
    if isinstance(error, Misconfigured):
        if error.field is None:
            return errors.RoleRefusedError(error.detail)
        return errors.ValidationFailedError({error.field: [error.detail]})
    return errors.AwsUnavailableError(
        "AWS did not answer, or asked us to slow down; try again in a moment."
    )
