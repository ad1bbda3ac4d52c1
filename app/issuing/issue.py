"""Issuing: short-lived credentials for a verified connection.

A request names a tenant and a connection. The role and the External ID come from the connection's
row (invariant 1; docs/architecture.md lists the invariants). The key and the connection may come
from memory, and the session from the cache. So credentials are returned only when their audit event
is durable. The statement that stores the event compares the revocation counter. After a revocation
it stores nothing, and the request reads everything again (invariants 8 and 9). A session that AWS
opened meanwhile is not returned.
"""

import json
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from app import errors, metrics, strict_json
from app.audit import actions
from app.audit.log import AuditLog
from app.aws.session_names import session_name
from app.aws.sts import Misconfigured, Refused, Session, Sts, StsError
from app.clock import now, timestamp
from app.concurrency.group_commit import BufferedHistogram
from app.identity import ApiKeyPrincipal, owned
from app.identity.tenancy import ConnectionKey
from app.issuing.authorization import Authorization, VerifiedConnection, refused_about
from app.issuing.session_cache import CacheKey, SessionCache, Source
from app.limits import limits
from app.limits.counting_in_database import seconds_until_room, take
from app.limits.counting_in_memory import Rates
from app.settings.valid_values import SESSION_MIN
from app.store.database import SYSTEM, Database, Session as DbSession
from app.store.models import Connection, ConnectionStatus, Trigger

DURATION_DEFAULT = 3600  # seconds

# AWS's limits for AssumeRole's parameter Policy
_POLICY_MAX = 2048
_POLICY_CHARACTERS = re.compile(r"[\t\n\r -\u00ff]+")

# AWS SDKs give up on a container credentials endpoint after 2 s.
_ANSWER_SECONDS = 1.8  # time for the whole request
_COMMIT_SECONDS = 0.3  # the part of it that is reserved for storing the audit event

_REPORTS_APART = timedelta(minutes=1)  # reports about one connection that take effect
_INDEXED_MAX = 50_000  # sessions; the session cache keeps as many


ISSUE_SECONDS = {
    source: BufferedHistogram(child) for source, child in metrics.ISSUE_SECONDS.items()
}


class Issued(NamedTuple):
    """A session, and the ARN of its role."""

    session: Session
    role_arn: str


class _Request(NamedTuple):
    """A request for credentials, with its defaults filled in and its policy in canonical form."""

    principal: ApiKeyPrincipal
    connection: VerifiedConnection
    duration_seconds: int
    policy: str | None
    reason: str | None


@dataclass
class CredentialIssuer:
    """Issues credentials: the only use case that returns a session of a customer's role."""

    _db: Database
    _sts: Sts
    _authorization: Authorization
    _sessions: SessionCache
    _rates: Rates
    _log: AuditLog
    _max_seconds: int
    # The access key ids of sessions for which this process has stored an indexed event. A session's
    # first hand-out may be from the cache: a renewal, another process, or a request that timed out
    # may have put it there.
    _indexed: set[str] = field(default_factory=set)

    def issue(
        self,
        principal: ApiKeyPrincipal,
        tenant_id: UUID,
        connection_id: UUID,
        *,
        duration_seconds: int | None = None,
        session_policy: dict[str, Any] | str | None = None,
        reason: str | None = None,
    ) -> Issued:
        """Issue credentials for a verified connection, once their audit event is durable.

        Most requests take one round: the key and the connection are in memory, and the session is
        in the cache. A round ends in one of these ways:

        - Recorded: the event is durable. The session is returned.
        - Refused: the key or the connection does not allow it, or AWS refuses. The refusal is
          raised.
        - Proof renewed: the proof was too old. The next round reads the connection again.
        - Refusal outdated: AWS refused, but the connection has changed since it was read.
        - Race lost: a row was revoked after it was read. The event was not stored.

        The last three begin another round, until _ANSWER_SECONDS have passed.

        `session_policy` can only narrow what the role may do. Raises UnauthenticatedError,
        ForbiddenError, NotFoundError, SuspendedError, ConnectionNotVerifiedError,
        ExternalIdWithdrawnError, ValidationFailedError, RoleRefusedError, AwsUnavailableError,
        ProofExpiredError, RateLimitedError, and StoreUnavailableError when the issuance can't be
        recorded.
        """
        self._rates.acquire_issuance(principal, tenant_id)
        deadline = time.monotonic() + _ANSWER_SECONDS
        duration = self._duration(duration_seconds)
        policy = None if session_policy is None else canonical_policy(session_policy)
        connection_key = tenant_id, connection_id
        fetched = None  # the session that AWS opened for this request, perhaps in an earlier round
        while time.monotonic() < deadline:
            counter, connection = self._authorization.authorize_issuance(principal, connection_key)
            current_time = timestamp()
            patience = deadline - time.monotonic() - _COMMIT_SECONDS
            if current_time >= connection.proven_until:
                self._authorization.renew_proof(connection_key, patience)
                continue  # proof renewed
            request = _Request(principal, connection, duration, policy, reason)
            try:
                session, source = self._session(request, patience, current_time)
            except errors.CustomerSetupError as refusal:
                if time.monotonic() > deadline or self._is_current(request, refusal):
                    raise  # refused
                continue  # refusal outdated
            if source == "sts":
                fetched = session
            principal.ensure_live()
            origin: Source = "sts" if session == fetched else "cache"
            if self._record(request, session, origin, counter, deadline):
                return Issued(session, connection.grant.role_arn.text)
            # race lost
        raise errors.StoreUnavailableError("Too much is changing right now; try again in a moment.")

    def _session(
        self, request: _Request, patience: float, current_time: float
    ) -> tuple[Session, Source]:
        connection, key_id = request.connection, request.principal.key_id
        key = CacheKey.of(connection, key_id, request.duration_seconds, request.policy)
        try:
            return self._sessions.obtain(key, lambda: self._fetch(request), patience, current_time)
        except errors.AppError as error:
            error.tenant_id, error.connection_id = connection.key
            if isinstance(error, errors.CallerFaultError | errors.CustomerSetupError):
                self._authorization.forget(connection)
            self._authorization.catch_up()
            raise

    def _is_current(self, request: _Request, refusal: errors.CustomerSetupError) -> bool:
        """Return whether a refusal still applies to the connection as it is now.

        The connection in memory may have been out of date, because not every change raises the
        revocation counter. If another refusal applies now, this method raises that one.
        """
        try:
            _, connection = self._authorization.authorize_issuance(
                request.principal, request.connection.key
            )
        except type(refusal):
            return True
        return connection == request.connection

    def _record(
        self, request: _Request, session: Session, source: Source, counter: int, deadline: float
    ) -> bool:
        """Store the event of an issuance in a group commit. Return False if it is no longer valid.

        `counter`: a revocation counter at which the key and the connection were valid.
        """
        connection, key_id = request.connection, session.access_key_id
        is_first = key_id not in self._indexed
        event = actions.CREDENTIALS_ISSUED.event(
            request.principal.actor,
            {
                "access_key_id": key_id,
                "expires_at": session.expires_at.isoformat(),
                "duration_seconds": request.duration_seconds,
                "source": source,
                "session_name": session.name,
                "reason": request.reason,
            },
            tenant_id=connection.tenant_id,
            connection_id=connection.connection_id,
            valid_at_counter=counter,
            row_ids=(*request.principal.row_ids, *connection.row_ids),
            access_key_id=key_id if is_first else None,
        )
        patience = max(_COMMIT_SECONDS, deadline - time.monotonic())
        try:
            recorded = self._log.append(event, patience=patience)
        except errors.StoreUnavailableError:
            self._authorization.catch_up()
            raise
        self._authorization.set_history(self._log.batch.history)
        if not recorded:
            return False
        if is_first:
            if len(self._indexed) >= _INDEXED_MAX:
                self._indexed.clear()  # each session's next event is then indexed once more
            self._indexed.add(key_id)
        ISSUE_SECONDS[source].observe(_ANSWER_SECONDS - (deadline - time.monotonic()))
        return True

    def report_refused(
        self, principal: ApiKeyPrincipal, tenant_id: UUID, connection_id: UUID
    ) -> None:
        """Record a client's report that AWS refuses a session of this connection.

        After the report, no process hands out the session again, and a proof is due. A report has
        no effect if it is the connection's second within a minute, or exceeds the tenant's limit.
        Raises NotFoundError, ForbiddenError for a key that lacks a permission set, and
        RateLimitedError like `issue`.
        """
        self._rates.acquire_issuance(principal, tenant_id)
        connection_key = tenant_id, connection_id
        with self._db.read() as db:  # a report without effect must not wait for the write lock
            connection = _usable(db, principal, connection_key)
            if not _takes_reports(connection) or seconds_until_room(db, limits.REPORTS, tenant_id):
                return
        with self._db.write(principal) as db:
            connection = _usable(db, principal, connection_key, lock=True)
            if _takes_reports(connection) and not take(db, limits.REPORTS, tenant_id):
                connection.report_refused(now())
                actions.CONNECTION_REFUSAL_REPORTED.record_about(
                    db, principal.actor, connection, {"status": connection.status}
                )

    def _duration(self, seconds: int | None) -> int:
        if seconds is None:
            return min(DURATION_DEFAULT, self._max_seconds)
        if not SESSION_MIN <= seconds <= self._max_seconds:
            message = f"Must be between {SESSION_MIN} and {self._max_seconds} seconds."
            raise errors.ValidationFailedError(duration_seconds=message)
        return seconds

    def _fetch(self, request: _Request) -> Session:
        """Get a session of the proven role from AWS.

        Requests for the same session share the result or the refusal. If the role was recreated
        since its proof, the session is dropped, and the connection needs a new proof.
        """
        verified, grant = request.connection, request.connection.grant
        self._rates.acquire_session(verified.tenant_id)
        try:
            session = self._sts.assume(
                grant,
                session_name=session_name(request.principal.key_id),
                duration_seconds=request.duration_seconds,
                policy=request.policy,
            )
        except StsError as error:
            refusal = _as_app_error(error)
            if isinstance(refusal, errors.RoleRefusedError):
                self._record_answer(request, recreated=False)
            raise refusal from error
        role = session.role_unique_id, session.account_id
        if role == (verified.role_unique_id, grant.role_arn.account_id):
            return session
        self._record_answer(request, recreated=True)
        raise errors.ConnectionNotVerifiedError(
            "The role was deleted and made again since it was proven; verify it."
        )

    def _record_answer(self, request: _Request, *, recreated: bool) -> None:
        """Record AWS's answer: the role was recreated since its proof (`recreated`), or refuses us.

        The answer is about one version of the connection. If the connection has changed since,
        record nothing.
        """
        with suppress(errors.NotFoundError), self._db.write(SYSTEM) as db:
            connection = owned(db, request.principal, *request.connection.key, lock=True)
            if connection.version != request.connection.version:
                return
            if recreated:
                was = connection.status
                connection.role_was_recreated()
                actions.CONNECTION_ROLE_RECREATED.record_about(
                    db,
                    request.principal.actor,
                    connection,
                    {"was": was, "status": connection.status, "version": connection.version},
                )
            # A role that refused its latest proof is proven again within a minute anyway
            elif connection.refusing_since is None:
                connection.make_due(now(), Trigger.ISSUING)


def _usable(
    db: DbSession, principal: ApiKeyPrincipal, connection_key: ConnectionKey, *, lock: bool = False
) -> Connection:
    """Return the connection.

    Raises NotFoundError, and ForbiddenError for a key that lacks one of its permission sets.
    """
    connection = owned(db, principal, *connection_key, lock=lock)
    with refused_about(connection_key):
        principal.require_sets(connection.permission_sets)
    return connection


def _takes_reports(connection: Connection) -> bool:
    """Return whether a client's report that AWS refuses a session takes effect now.

    At most one report a minute takes effect, and none while the connection is suspended.
    """
    # A report by a clock that was far ahead must not void later ones
    refused_at = connection.refused_at
    lately = refused_at is not None and abs(now() - refused_at) < _REPORTS_APART
    return connection.status is not ConnectionStatus.SUSPENDED and not lately


def canonical_policy(policy: dict[str, Any] | str) -> str:
    """Return a session policy as compact JSON.

    Raises ValidationFailedError, on the field `session_policy`, if it exceeds AWS's limits or is
    not an IAM policy.
    """
    try:
        return _compact_policy(policy)
    except ValueError as error:
        raise errors.ValidationFailedError(session_policy=str(error)) from error


def _compact_policy(policy: dict[str, Any] | str) -> str:
    document = strict_json.parse(policy) if isinstance(policy, str) else policy
    if not isinstance(document, dict):
        raise ValueError("Must be a JSON object.")  # noqa: TRY004  the text is shown, as all others
    if not document.get("Statement"):
        raise ValueError("Must be an IAM policy document with a Statement.")
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    if len(text) > _POLICY_MAX:
        raise ValueError(f"At most {_POLICY_MAX} characters as compact JSON; this has {len(text)}.")
    if not _POLICY_CHARACTERS.fullmatch(text):
        raise ValueError(
            "AWS allows only tab, line feed, carriage return and the characters U+0020 to U+00FF."
        )
    return text


def _as_app_error(error: StsError) -> errors.AppError:
    if isinstance(error, Refused):
        return errors.RoleRefusedError(
            "The customer's role refuses us now; its connection is due for a new proof."
        )
    if isinstance(error, Misconfigured):
        if error.field is None:
            return errors.RoleRefusedError(error.detail)
        return errors.ValidationFailedError(**{error.field: error.detail})
    return errors.AwsUnavailableError(
        "AWS did not answer, or asked us to slow down; try again in a moment."
    )
