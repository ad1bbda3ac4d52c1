"""Everything that Deputy refuses, as one tree of exceptions.

The family says who has to act: the caller, the customer (in their AWS account), or neither (try
again later). Exceptions outside this tree are bugs: a blank 500 and a full log. Domain code raises
these classes without an HTTP status; `app/http/problems.py` gives each class its status, and a test
checks that none is missing. docs/architecture.md lists the invariants by number.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar
from uuid import UUID

FieldErrors = Mapping[str, Sequence[str]]


class AppError(Exception):
    """A refusal with a stable `code` and a `detail` in our own words.

    Callers see `detail`, so it contains no id that they sent, no text of AWS's (which names the
    broker) and no secret. `errors` maps a field of the request to what is wrong with it.
    """

    code: ClassVar[str]

    def __init__(self, detail: str, *, errors: FieldErrors | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = dict(errors or {})
        # For the audit log: what was refused, if it is the caller's own; otherwise None.
        self.tenant_id: UUID | None = None
        self.connection_id: UUID | None = None


class CallerFaultError(AppError):
    """The request itself is wrong; sending it again does not help."""


class MalformedRequestError(CallerFaultError):
    code = "malformed_request"


class UnauthenticatedError(CallerFaultError):
    code = "unauthenticated"


class ForbiddenError(CallerFaultError):
    code = "forbidden"


class NotFoundError(CallerFaultError):
    """Absent, deleted, or another tenant's: one answer for all three (invariant 11)."""

    code = "not_found"

    def __init__(self) -> None:
        super().__init__("Not found, or not visible to this API key.")


class ConflictError(CallerFaultError):
    code = "conflict"


class AccountClosedError(ConflictError):
    """The vendor's suspension of a connection closes its AWS account to everybody but the
    vendor.
    """

    def __init__(self) -> None:
        super().__init__(
            "The vendor suspended a connection in this AWS account, and has to resume it first."
        )


class ValidationFailedError(CallerFaultError):
    code = "validation_failed"

    def __init__(self, errors: FieldErrors) -> None:
        super().__init__("Some fields are invalid; see errors.", errors=errors)


class RoleNotAllowedError(CallerFaultError):
    """A well-formed role ARN that Deputy never assumes, refused before any call to AWS
    (invariant 7).
    """

    code = "role_not_allowed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, errors={"role_arn": [detail]})


class CustomerSetupError(AppError):
    """Something must change first: in the customer's AWS account, or in the state of the tenant
    or connection.
    """


class ConnectionNotVerifiedError(CustomerSetupError):
    code = "connection_not_verified"


class SuspendedError(CustomerSetupError):
    code = "suspended"


class ExternalIdWithdrawnError(CustomerSetupError):
    """In an emergency: the External ID was abused, and the role does not accept the next one
    yet.
    """

    code = "external_id_withdrawn"


class RoleRefusedError(CustomerSetupError):
    code = "role_refused"


class TryLaterError(AppError):
    """The request is fine; send it again later."""


class StoreUnavailableError(TryLaterError):
    code = "unavailable"


class AwsUnavailableError(TryLaterError):
    code = "aws_unavailable"


class ProofExpiredError(TryLaterError):
    """The latest proof of the role is too old to issue on, and no fresh one could be made in
    time (invariant 13).
    """

    code = "proof_expired"


class RateLimitedError(TryLaterError):
    """`retry_after`: seconds until the next request may be admitted."""

    code = "rate_limited"

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
