"""Issuing: short-lived credentials for a proven connection.

Act, record, then answer. Nothing about the role comes from the caller but its tenant and its connection (invariant
1). A session that STS gave is worth nothing until its audit event is on durable storage, in a transaction that
reads key, tenant and connection once more: whatever was revoked, suspended or deleted while AWS was answering wins,
and the session is dropped here, inert to everybody (invariants 8 and 9).
"""

import json
import re
import secrets
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session as DbSession

from app import audit, strict_json
from app.access import Caller, is_live, owned, tenant_of
from app.aws.sts import Misconfigured, Refused, Session, Sts, StsError
from app.config import Config
from app.db import Database, now
from app.errors import (
    AppError,
    AwsUnavailableError,
    ConnectionNotVerifiedError,
    RoleRefusedError,
    UnauthenticatedError,
    ValidationFailedError,
)
from app.ids import Grant
from app.models import ApiKey, Connection, ConnectionStatus, Tenant

DURATION_MIN = 900  # seconds; AWS's minimum
DURATION_DEFAULT = 3600

# AWS's limits for a session policy given inline (AssumeRole, Policy).
_POLICY_MAX = 2048
_POLICY_CHARACTERS = re.compile(r"[\t\n\r -\u00ff]+")

_NOT_VERIFIED = "This connection is not verified; verify it, and see what its verification says."


@dataclass(frozen=True, slots=True)
class Issued:
    """What leaves: the session and the role it is for."""

    session: Session
    role_arn: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """One issuance: the path, checked, and the state of the connection that the session will be made under."""

    tenant_id: UUID
    connection_id: UUID
    version: int
    grant: Grant
    role_unique_id: str | None
    session_name: str
    duration_seconds: int
    policy: str | None
    reason: str | None


class Vending:
    """Issues credentials; the only use case that hands a session of a customer's role to anybody."""

    def __init__(self, db: Database, sts: Sts, config: Config) -> None:
        self._db = db
        self._sts = sts
        self._max_seconds = config.max_session_seconds

    def issue(
        self,
        caller: Caller,
        tenant_id: UUID,
        connection_id: UUID,
        *,
        duration_seconds: int | None = None,
        session_policy: dict[str, Any] | str | None = None,
        reason: str | None = None,
    ) -> Issued:
        """Credentials for a verified connection; durable in the audit log before they are returned.

        `session_policy` only narrows what the role may do. Raises NotFoundError, SuspendedError,
        ConnectionNotVerifiedError, ValidationFailedError, RoleRefusedError, AwsUnavailableError, and
        StoreUnavailableError when the issuance can't be recorded.
        """
        asked = self._authorise(
            caller,
            (tenant_id, connection_id),
            duration_seconds=self._duration(duration_seconds),
            policy=None if session_policy is None else canonical_policy(session_policy),
            reason=reason,
        )
        session = self._assume(asked)
        if (
            session.role_unique_id != asked.role_unique_id
            or session.account_id != asked.grant.role_arn.account_id
        ):
            self._drop_recreated(caller, asked)
        self._record(caller, asked, session)
        return Issued(session, asked.grant.role_arn.text)

    def _duration(self, wanted: int | None) -> int:
        if wanted is None:
            return min(DURATION_DEFAULT, self._max_seconds)
        if not DURATION_MIN <= wanted <= self._max_seconds:
            message = f"Must be between {DURATION_MIN} and {self._max_seconds} seconds."
            raise ValidationFailedError({"duration_seconds": [message]})
        return wanted

    def _authorise(
        self,
        caller: Caller,
        path: tuple[UUID, UUID],
        *,
        duration_seconds: int,
        policy: str | None,
        reason: str | None,
    ) -> _Asked:
        with self._db.read() as db:
            connection = _issuable(db, caller, path)
            return _Asked(
                tenant_id=connection.tenant_id,
                connection_id=connection.id,
                version=connection.version,
                grant=connection.grant,
                role_unique_id=connection.role_unique_id,
                session_name=session_name(caller.key_id),
                duration_seconds=duration_seconds,
                policy=policy,
                reason=reason,
            )

    def _assume(self, asked: _Asked) -> Session:
        try:
            return self._sts.assume(
                asked.grant,
                session_name=asked.session_name,
                duration_seconds=asked.duration_seconds,
                policy=asked.policy,
            )
        except StsError as error:
            refusal = _as_app_error(error)
            refusal.tenant_id, refusal.connection_id = asked.tenant_id, asked.connection_id
            if isinstance(refusal, RoleRefusedError):
                self._make_due(asked)
            raise refusal from error

    def _record(self, caller: Caller, asked: _Asked, session: Session) -> None:
        """The audit event, in the transaction that finds everything still as it was authorised.

        Locks are taken for reading, so that issuing runs in parallel and a revoke waits for those under way.
        """
        with self._db.write() as db:
            key = db.scalars(
                select(ApiKey).where(ApiKey.id == caller.key_id).with_for_update(read=True)
            ).one_or_none()
            if key is None or not is_live(key, now()):
                raise UnauthenticatedError("This API key has been revoked or has expired.")
            db.scalars(select(Tenant.id).where(Tenant.id == asked.tenant_id).with_for_update(read=True)).one()
            db.scalars(
                select(Connection.id).where(Connection.id == asked.connection_id).with_for_update(read=True)
            ).one_or_none()
            connection = _issuable(db, caller, (asked.tenant_id, asked.connection_id))
            if connection.version != asked.version:
                raise _about(
                    ConnectionNotVerifiedError("This connection changed just now; try again."), connection
                )
            audit.record(
                db,
                caller.actor,
                "credentials.issued",
                tenant_id=asked.tenant_id,
                connection_id=asked.connection_id,
                details={
                    "access_key_id": session.access_key_id,
                    "expires_at": session.expires_at.isoformat(),
                    "duration_seconds": asked.duration_seconds,
                    "source": "sts",
                    "session_name": asked.session_name,
                    "reason": asked.reason,
                },
            )

    def _drop_recreated(self, caller: Caller, asked: _Asked) -> None:
        """The role is not the one that was proven: drop the session, and let a proof decide again."""
        with self._db.write() as db:
            connection = owned(db, caller, asked.tenant_id, asked.connection_id, lock=True)
            if connection.version == asked.version:
                connection.role_was_recreated()
                audit.record(
                    db,
                    caller.actor,
                    "connection.role_recreated",
                    outcome="refused",
                    tenant_id=connection.tenant_id,
                    connection_id=connection.id,
                )
        raise _about(
            ConnectionNotVerifiedError("The role was deleted and made again since it was proven; verify it."),
            connection,
        )

    def _make_due(self, asked: _Asked) -> None:
        with self._db.write() as db:
            connection = db.get(Connection, asked.connection_id, with_for_update=True)
            if connection is not None and connection.version == asked.version:
                connection.due_at = now()


def session_name(key_id: UUID) -> str:
    """`deputy-<key id>-<issuance>`: the customer's CloudTrail tells which key it was. Exactly AWS's 64 characters."""
    return f"deputy-{key_id.hex}-{secrets.token_hex(12)}"


def canonical_policy(policy: dict[str, Any] | str) -> str:
    """A session policy as compact JSON, within AWS's limits. Raises ValidationFailedError on `session_policy`."""
    if isinstance(policy, str):
        policy = _parsed(policy)
    if not policy.get("Statement"):
        raise _bad_policy("Must be an IAM policy document with a Statement.")
    text = json.dumps(policy, ensure_ascii=False, separators=(",", ":"))
    if len(text) > _POLICY_MAX:
        raise _bad_policy(f"At most {_POLICY_MAX} characters as compact JSON; this has {len(text)}.")
    if not _POLICY_CHARACTERS.fullmatch(text):
        raise _bad_policy(
            "AWS allows only tab, line feed, carriage return and the characters U+0020 to U+00FF."
        )
    return text


def _parsed(text: str) -> dict[str, Any]:
    try:
        policy = strict_json.parse(text)
    except ValueError as error:
        raise _bad_policy(str(error)) from error
    if not isinstance(policy, dict):
        raise _bad_policy("Must be a JSON object.")
    return policy


def _bad_policy(message: str) -> ValidationFailedError:
    return ValidationFailedError({"session_policy": [message]})


def _issuable(db: DbSession, caller: Caller, path: tuple[UUID, UUID]) -> Connection:
    """The connection, if it may issue right now. Raises NotFoundError, SuspendedError, ConnectionNotVerifiedError."""
    connection = owned(db, caller, *path)
    try:
        tenant_of(db, caller, connection.tenant_id).ensure_active()
        connection.ensure_not_suspended()
        if connection.status is not ConnectionStatus.VERIFIED:
            raise ConnectionNotVerifiedError(_NOT_VERIFIED)
    except AppError as error:
        raise _about(error, connection) from None
    return connection


def _about(error: AppError, connection: Connection) -> AppError:
    error.tenant_id, error.connection_id = connection.tenant_id, connection.id
    return error


def _as_app_error(error: StsError) -> AppError:
    if isinstance(error, Refused):
        return RoleRefusedError("The customer's role refuses us now; its connection is due for a new proof.")
    if isinstance(error, Misconfigured):
        if error.field is None:
            return RoleRefusedError(error.detail)
        return ValidationFailedError({error.field: [error.detail]})
    return AwsUnavailableError("AWS did not answer, or asked us to slow down; try again in a moment.")
