"""A boto3 session whose credentials come from Deputy, and come again before they expire.

botocore's own RefreshableCredentials do the work and the locking. What is added: windows that suit
short sessions, a session that is used to its end while Deputy is away, and a memory for failures,
so that a Deputy that is down is not asked by every call of every thread.
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

# Before the end of a session. In the first window one thread asks and the others go on with what
# they have. In the second, all wait, and a refusal is raised: it is as long as the clock skew that
# AWS tolerates, so that what we hold for valid is valid at AWS. While Deputy can't be reached,
# calls go on with the session to its end in both. So a program that is in use outlasts a Deputy
# that is away for ten minutes, whenever that begins.
ADVISORY_SECONDS = 15 * 60
MANDATORY_SECONDS = 5 * 60
# Of a session that came with less life than this, both are in proportion, or it would be asked for
# again at once. Deputy hands out sessions of an hour with 25 minutes at least
# (app/issuing/session_cache.py): 12.5 are left of them then.
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
    """A boto3 session in the customer's account. Its credentials refresh themselves for as long as
    it is used.

    Deputy is asked at once, so what is wrong is raised here: NotVerified, Suspended, RoleRefused,
    NotPermitted, BadRequest, Unreachable or ConfigurationError, all of them a DeputyError. Should
    it be wrong later, calls go on until the credentials are about to expire (while Deputy can't be
    reached, until they expire), and then raise the same.

    `url` and `key` are those of Deputy; without them, DEPUTY_URL and DEPUTY_API_KEY_FILE or
    DEPUTY_API_KEY count, read again at each refresh. `session_policy` only narrows what the role
    may do; `reason` goes to Deputy's audit log.

    Credentials are safe to share among threads. As with any boto3 session, make clients in one
    thread, or one session for each thread.
    """
    # a third of a start, which deputy-credential-process need not wait for
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
    """Tell Deputy that AWS refuses a session that `deputy_client.session` made; True when Deputy
    was told.

    For a program that knows better than the client, which does this by itself when AWS says that
    there is no such session, or that it expired before its time. Deputy no longer hands that
    session out, and proves the role again; the next call of the session asks for other credentials.
    A connection is reported once a minute at most: False when that has been done. Raises
    DeputyError; ConfigurationError when the session was not made by `deputy_client`.
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
        self._refused = False  # by AWS, as far as is known
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
        """Whether less than `refresh_in` seconds are left; of a short session, in proportion.

        A session that AWS refused is renewed like one that ends soon.
        """
        window = ADVISORY_SECONDS if refresh_in is None else refresh_in
        if failure := self._failure_within(_REST_SECONDS):
            window = min(window, 0 if isinstance(failure, Unreachable) else MANDATORY_SECONDS)
        if self._refused and window > MANDATORY_SECONDS:
            return True
        return super().refresh_needed(window * min(1, self._lifetime / _LONG_ENOUGH))  # type: ignore[arg-type]

    def rejected(self, key_id: str, as_expired: bool) -> None:  # noqa: FBT001  a callback's
        """AWS refused a request that was signed with this key. Tells Deputy if it is the current
        session's key.
        """
        current = self._issued
        if key_id != current.access_key_id or (
            as_expired and _moment(current.expiration) <= datetime.now(UTC)
        ):
            return
        try:
            self.report()
        except DeputyError as error:  # the program gets AWS's own error; this is beside it
            _log.warning("AWS refuses a session, and Deputy could not be told: %s", error)

    def report(self) -> bool:
        """Tell Deputy, unless it was told within the last minute. Raises DeputyError."""
        if not _reports.passes(self._question.connection):
            return False
        self._refused = True
        self._service.report_refused(self._question)
        return True

    def _renew(self) -> dict[str, str | None]:
        """What botocore calls with its lock held. While Deputy is away, those that there are,
        until they expire.
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
        """The last one, if it was so many seconds ago at most."""
        failure = self._failure
        return failure[1] if failure is not None and monotonic() - failure[0] < seconds else None


class _Provider(CredentialProvider):
    """The only source that the session has: no environment variable or profile gets between it
    and Deputy.
    """

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
