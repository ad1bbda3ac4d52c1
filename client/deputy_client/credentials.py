"""A boto3 session whose credentials come from Deputy, and are renewed before they expire.

botocore's RefreshableCredentials do the renewal and the locking. This module adds three things:

- refresh windows that suit short sessions;
- while Deputy can't be reached, a session is used until it expires;
- a failure is remembered for a while, so that not every call of every thread calls Deputy again.
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

# The two refresh windows before the end of a session. In the advisory window, one thread requests
# new credentials, and the others use the current ones. In the mandatory window, all threads wait
# for new credentials, and a refusal is raised. This window is as long as the clock skew that AWS
# tolerates, so credentials that are valid by this machine's clock are valid at AWS. While Deputy
# can't be reached, calls in both windows use the session until it expires. So a busy program
# survives ten minutes without Deputy at any time.
ADVISORY_SECONDS = 15 * 60
MANDATORY_SECONDS = 5 * 60
# If a session had less time left than this when it was received, both windows are shortened in
# proportion. Otherwise it would be renewed at once. Deputy hands out sessions of an hour with at
# least 25 minutes left (app/issuing/session_cache.py). Their advisory window is then 12.5 minutes.
_LONG_ENOUGH = 2 * ADVISORY_SECONDS

# Time after a failure in which calls use the current credentials without another request
_REST_SECONDS = 30
# Time after a failure in which threads that waited for the failed request raise the same error
_QUEUE_SECONDS = 1

_reports = Gate()
_log = logging.getLogger("deputy_client")


def session(  # noqa: PLR0913  all but the first two are options
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

    This function calls Deputy at once, and raises a DeputyError if there is a problem: NotVerified,
    Suspended, RoleRefused, NotPermitted, BadRequest, Unreachable or ConfigurationError. If a later
    renewal has a problem, AWS calls continue until the credentials are about to expire, and then
    raise the same errors. While Deputy can't be reached, AWS calls continue until the credentials
    expire.

    `url` and `key` are Deputy's address and API key. They default to DEPUTY_URL, and to
    DEPUTY_API_KEY_FILE or DEPUTY_API_KEY, which are read again at each renewal. `session_policy`
    can only narrow what the role may do. `reason` is stored in Deputy's audit log.

    Threads may share the credentials. As with any boto3 session, create clients in one thread, or
    use one session per thread.
    """
    # Imported lazily, because boto3 takes a third of the start-up time, and
    # deputy-credential-process does not need it.
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
    # First, because botocore prefers AWS_BEARER_TOKEN_BEDROCK to credentials. That key in the
    # environment is the program's own.
    inner.get_component("event_emitter").register_first("choose-signer", _sign_for_bedrock)
    watch(inner, credentials.rejected)
    return boto3.session.Session(botocore_session=inner, region_name=region_name)


def report_refused(session: boto3.session.Session) -> bool:
    """Report to Deputy that AWS refuses a session of `deputy_client.session`. Return True if sent.

    The client reports this itself when AWS answers that the session does not exist, or that it has
    expired before its time. Call this function when your program detects another refusal. Deputy
    then no longer issues the session, and proves the role again. The next AWS call requests new
    credentials.

    A connection is reported at most once a minute. False means that this was tried within that
    minute. Raises DeputyError, and ConfigurationError if `deputy_client.session` did not create the
    session.
    """
    credentials = session.get_credentials()
    if not isinstance(credentials, DeputyCredentials):
        raise ConfigurationError("Only a session that deputy_client.session made can be reported.")
    return credentials.report()


class DeputyCredentials(RefreshableCredentials):
    """The credentials of one connection, which Deputy renews."""

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
        """Return True if less than `refresh_in` seconds are left, or if AWS refused the session.

        For short sessions, `refresh_in` is reduced in proportion. After a failure it is limited for
        a while.
        """
        window = ADVISORY_SECONDS if refresh_in is None else refresh_in
        if failure := self._failure_within(_REST_SECONDS):
            window = min(window, 0 if isinstance(failure, Unreachable) else MANDATORY_SECONDS)
        if self._refused and window > MANDATORY_SECONDS:
            return True
        return super().refresh_needed(window * min(1, self._lifetime / _LONG_ENOUGH))  # type: ignore[arg-type]

    def rejected(self, key_id: str, as_expired: bool) -> None:  # noqa: FBT001  a callback's
        """Report to Deputy that AWS refused this access key, if it is the current session's.

        `as_expired`: AWS answered that the session has expired.
        """
        current = self._issued
        if key_id != current.access_key_id or (
            as_expired and _moment(current.expiration) <= datetime.now(UTC)
        ):
            return
        try:
            self.report()
        except DeputyError as error:  # only logged, because the program gets AWS's own error
            _log.warning("AWS refuses a session, and Deputy could not be told: %s", error)

    def report(self) -> bool:
        """Report a refusal by AWS to Deputy, unless that was tried within the last minute.

        Return True if it was reported now. Raises DeputyError.
        """
        connection = self._question.connection
        if not _reports.passes(connection):
            # A session of before the last report is useless too. A later one was refused for
            # another reason, and to ask for more would only issue more.
            self._refused = self._issued_at <= _reports.last(connection)
            return False
        try:
            self._service.report_refused(self._question)
        finally:
            # Only now: until Deputy has the report, it gives other threads the same session again.
            _reports.note(connection)
            self._refused = True
        return True

    def _renew(self) -> dict[str, str | None]:
        """Return new credentials. botocore calls this while it holds its lock.

        While Deputy can't be reached, return the current credentials until they expire.
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
        asked_at = _reports.moment()
        issued = self._service.issue(self._question, attempts=attempts)
        self._lifetime = _seconds_left(issued)
        self._issued, self._issued_at = issued, asked_at
        self._refused = False
        return _as_botocore_has_them(issued)

    def _failure_within(self, seconds: float) -> DeputyError | None:
        """Return the last failure if it is less than `seconds` old."""
        failure = self._failure
        return failure[1] if failure is not None and monotonic() - failure[0] < seconds else None


class _Provider(CredentialProvider):
    """The only source of the session's credentials: environment and profiles are ignored."""

    METHOD = "deputy"
    CANONICAL_NAME = "deputy"

    def __init__(self, credentials: DeputyCredentials) -> None:
        super().__init__()
        self._credentials = credentials

    def load(self) -> DeputyCredentials:
        return self._credentials


def _sign_for_bedrock(signing_name: str, **_event: Any) -> str | None:
    return "v4" if signing_name == "bedrock" else None


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
