"""Everything that Deputy refuses, as one tree of exceptions.

Four families tell whose turn it is: the caller's, the customer's (their AWS set-up), nobody's (wait and try
again), and ours (anything not in this tree: a blank 500 and a full log). Domain code raises these and knows no
HTTP status; `app/http/problems.py` maps each class once, and a test checks that none is missing there.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar
from uuid import UUID

FULL_RETRY_SECONDS = 3600  # only taking something away makes room, so there is no hurry to try again

FieldErrors = Mapping[str, Sequence[str]]


class AppError(Exception):
    """A refusal with a stable `code` and a `detail` in our own words.

    `detail` is shown to callers, so it never repeats an id that they sent, AWS's text (which names the broker)
    or a secret. `errors` maps a field of the request to what is wrong with it.
    """

    code: ClassVar[str]

    def __init__(self, detail: str, *, errors: FieldErrors | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = dict(errors or {})
        # Which of the caller's own things was refused; the audit log wants to know. Stays None when it is not theirs.
        self.tenant_id: UUID | None = None
        self.connection_id: UUID | None = None


class CallerFaultError(AppError):
    """The request itself is wrong; sending it again changes nothing."""


class MalformedRequestError(CallerFaultError):
    code = "malformed_request"


class UnauthenticatedError(CallerFaultError):
    code = "unauthenticated"


class ForbiddenError(CallerFaultError):
    code = "forbidden"


class NotFoundError(CallerFaultError):
    """Absent, deleted or somebody else's: one answer for all three (invariant 11)."""

    code = "not_found"

    def __init__(self) -> None:
        super().__init__("There is nothing here that this API key can see.")


class ConflictError(CallerFaultError):
    code = "conflict"


class ValidationFailedError(CallerFaultError):
    code = "validation_failed"

    def __init__(self, errors: FieldErrors) -> None:
        super().__init__("Some fields are invalid; see errors.", errors=errors)


class RoleNotAllowedError(CallerFaultError):
    """A well-formed role ARN that Deputy will never assume; refused before any call to AWS (invariant 7)."""

    code = "role_not_allowed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, errors={"role_arn": [detail]})


class CustomerSetupError(AppError):
    """Something must change first, in the customer's AWS account or in the state of their tenant."""


class ConnectionNotVerifiedError(CustomerSetupError):
    code = "connection_not_verified"


class SuspendedError(CustomerSetupError):
    code = "suspended"


class RoleRefusedError(CustomerSetupError):
    code = "role_refused"


class TryLaterError(AppError):
    """Nothing is wrong with the request; it may be sent again after a moment."""


class StoreUnavailableError(TryLaterError):
    code = "unavailable"


class AwsUnavailableError(TryLaterError):
    code = "aws_unavailable"


class RateLimitedError(TryLaterError):
    """`retry_after`: seconds until the next attempt may be admitted."""

    code = "rate_limited"

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
