"""A boto3 session whose credentials come from Deputy, and are renewed before they expire.

botocore's own RefreshableCredentials renew and lock. This module adds three things: refresh windows
that suit short sessions, the use of a session to its end while Deputy is unreachable, and a memory
of failures. With it, not every call of every thread requests credentials while Deputy is down.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import UUID

from botocore.credentials import CredentialProvider, CredentialResolver, RefreshableCredentials

from deputy_client.errors import ConfigurationError, DeputyError, Unreachable
from deputy_client.refusals import Gate, watch
from deputy_client.service import ATTEMPTS, Issued, Question, Service

if TYPE_CHECKING:
    import boto3.session

# Refresh windows before the end of a session. In the advisory one, one thread requests credentials
# and the others use the current ones. In the mandatory one all wait, and a refusal is raised. It is
# as long as the clock skew that AWS tolerates, so credentials that are valid here are valid at AWS.
# While Deputy can't be reached, calls use the session to its end in both. So a busy program
# outlasts ten minutes without Deputy at any time.
ADVISORY_SECONDS = 15 * 60
MANDATORY_SECONDS = 5 * 60
# If a session began with less life than this, both windows shrink in proportion. Otherwise it would
# be renewed at once. Deputy issues sessions of an hour with 25 minutes at least
# (app/issuing/session_cache.py): the advisory window of those is 12.5 minutes.
_LONG_ENOUGH = 2 * ADVISORY_SECONDS

# How long a failure counts: while credentials are still good, and for threads that queued behind
# the one that failed.
_REST_SECONDS = 30
_QUEUE_SECONDS = 1

_reports = Gate()
_log = logging.getLogger("deputy_client")


def session(  # noqa: PLR0913  all but the two are options
    tenant_id: UUID | str,
    connection_id: UUID | str,
    *,
    url: str | None = None,
    key: str | None = None,
    duration_seconds: int | None = None,
    session_policy: Mapping[str, Any] | str | None = None,
    reason: str | None = None,
    region_name: str | None = None,
) -> boto3.session.Session:
    """Return a boto3 session in the customer's account, whose credentials renew themselves.

    Deputy is called at once, so a problem is raised here: NotVerified, Suspended, RoleRefused,
    NotPermitted, BadRequest, Unreachable or ConfigurationError, all of them a DeputyError. After a
    later problem, calls continue until the credentials are about to expire, and then raise the same
    errors. While Deputy can't be reached, they continue until the credentials expire.

    `url` and `key` are those of Deputy. Their defaults are DEPUTY_URL, and DEPUTY_API_KEY_FILE or
    DEPUTY_API_KEY, read again at each refresh. `session_policy` only narrows what the role may do.
    `reason` goes to Deputy's audit log.

    Credentials are safe to share among threads. As with any boto3 session, make clients in one
    thread, or one session for each thread.
    """
    # Imported lazily: it takes a third of the start-up time, and deputy-credential-process does not
    # need it.
    import boto3.session  # noqa: PLC0415
    import botocore.session  # noqa: PLC0415

    question = Question.of(
        tenant_id,
        connection_id,
        duration_seconds=duration_seconds,
        session_policy=(
            dict(session_policy) if isinstance(session_policy, Mapping) else session_policy
        ),
        reason=reason,
    )
    credentials = DeputyCredentials(Service(url, key), question)
    inner = botocore.session.Session()
    inner.register_component("credential_provider", CredentialResolver([_Provider(credentials)]))
    watch(inner, credentials.rejected)
    return boto3.session.Session(botocore_session=inner, region_name=region_name)


def report_refused(session: boto3.session.Session) -> bool:
    """Report to Deputy that AWS refuses a session of `deputy_client.session`. Return True if sent.

    The client reports by itself when AWS answers that the session does not exist, or that it
    expired before its time. This function is for programs that detect other refusals. Deputy stops
    issuing the session, and proves the role again. The session's next call requests new
    credentials.

    A connection is reported at most once a minute: False means that it was reported already. Raises
    DeputyError, and ConfigurationError if the session is not one of `deputy_client`.
    """
    credentials = session.get_credentials()
    if not isinstance(credentials, DeputyCredentials):
        raise ConfigurationError("Only a session that deputy_client.session made can be reported.")
    return credentials.report()


class DeputyCredentials(RefreshableCredentials):
    """Credentials of one connection."""

    def __init__(self, service: Service, question: Question) -> None:
        self._service = service
        self._question = question
        self._failure: tuple[float, DeputyError] | None = None
        self._refused = False  # AWS is known to refuse the session
        self._ask(ATTEMPTS)
        super().__init__(
            access_key=self._issued.access_key_id,
            secret_key=self._issued.secret_access_key,
            token=self._issued.session_token,
            expiry_time=_moment(self._issued.expiration),
            refresh_using=self._renew,
            method=_Provider.METHOD,
            advisory_timeout=ADVISORY_SECONDS,
            mandatory_timeout=MANDATORY_SECONDS,
            account_id=self._issued.account_id,
        )

    def refresh_needed(self, refresh_in: float | None = None) -> bool:
        """Return True if less than `refresh_in` seconds are left, in proportion for short sessions.

        A session that AWS refused is renewed like one that ends soon.
        """
        window = ADVISORY_SECONDS if refresh_in is None else refresh_in
        if failure := self._failure_within(_REST_SECONDS):
            window = min(window, 0 if isinstance(failure, Unreachable) else MANDATORY_SECONDS)
        if self._refused and window > MANDATORY_SECONDS:
            return True
        return super().refresh_needed(window * min(1, self._lifetime / _LONG_ENOUGH))  # type: ignore[arg-type]

    def rejected(self, key_id: str, as_expired: bool) -> None:  # noqa: FBT001  a callback's
        """Report to Deputy that AWS refused this key, if it is the current session's."""
        current = self._issued
        if key_id != current.access_key_id or (
            as_expired and _moment(current.expiration) <= datetime.now(UTC)
        ):
            return
        try:
            self.report()
        except DeputyError as error:  # the program gets AWS's own error
            _log.warning("AWS refuses a session, and Deputy could not be told: %s", error)

    def report(self) -> bool:
        """Report a refusal to Deputy, unless one was reported within the last minute.

        Return True if it was reported. Raises DeputyError.
        """
        if not _reports.passes(self._question.connection):
            return False
        self._refused = True
        self._service.report_refused(self._question)
        return True

    def _renew(self) -> dict[str, str | None]:
        """Renew the credentials. botocore calls it with its lock held.

        While Deputy is unreachable, return the current ones until they expire.
        """
        if failure := self._failure_within(_QUEUE_SECONDS):
            raise failure.again()
        try:
            renewed = self._ask(ATTEMPTS if self.refresh_needed(0) else 1)
        except DeputyError as error:
            self._failure = monotonic(), error.again()
            if not isinstance(error, Unreachable) or self.refresh_needed(0):
                raise
            _log.warning(
                "Calls go on with the session that ends at %s: %s", self._issued.expiration, error
            )
            return _as_botocore_has_them(self._issued)
        self._failure = None
        return renewed

    def _ask(self, attempts: int) -> dict[str, str | None]:
        issued = self._service.issue(self._question, attempts=attempts)
        self._lifetime = _seconds_left(issued)
        self._issued = issued
        self._refused = False
        return _as_botocore_has_them(issued)

    def _failure_within(self, seconds: float) -> DeputyError | None:
        """Return the last failure if it is less than `seconds` old."""
        failure = self._failure
        return failure[1] if failure is not None and monotonic() - failure[0] < seconds else None


class _Provider(CredentialProvider):
    """The session's only source of credentials. Environment variables and profiles are ignored."""

    METHOD = "deputy"
    CANONICAL_NAME = "deputy"

    def __init__(self, credentials: DeputyCredentials) -> None:
        super().__init__()
        self._credentials = credentials

    def load(self) -> DeputyCredentials:
        return self._credentials


def _as_botocore_has_them(issued: Issued) -> dict[str, str | None]:
    return {
        "access_key": issued.access_key_id,
        "secret_key": issued.secret_access_key,
        "token": issued.session_token,
        "expiry_time": issued.expiration,
        "account_id": issued.account_id,
    }


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _seconds_left(issued: Issued) -> float:
    try:
        left = (_moment(issued.expiration) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        raise ConfigurationError(
            "What answers is not Deputy: its Expiration is not a time. Check DEPUTY_URL."
        ) from None
    if left <= 0:
        raise ConfigurationError(
            "By this machine's clock the credentials had expired before they came. Set the clock"
            " (NTP)."
        )
    return left
