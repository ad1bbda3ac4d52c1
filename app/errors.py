"""The exceptions for everything that Deputy refuses.

Three base classes show who must act: the caller, the customer (in their AWS account), or nobody
(the caller tries again later). Any other exception is a bug: the caller gets an empty 500, and the
log gets the traceback. Domain code raises these classes without an HTTP status.
`app/http/error_statuses.py` gives each class its status, and a test checks that none is missing.
docs/architecture.md lists the invariants by number.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar
from uuid import UUID

FieldErrors = Mapping[str, Sequence[str]]


class AppError(Exception):
    """A refusal with a stable `code` and a `detail` in Deputy's own words.

    Callers see `detail`. It must contain no id from the request, no secret, and no text from AWS,
    because such a text names the broker. `errors` maps a field of the request to its errors.
    """

    code: ClassVar[str]
    retry_after: int | None = None  # seconds until the request may succeed

    def __init__(self, detail: str, *, errors: FieldErrors | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = dict(errors or {})
        # For the audit log: the tenant and the connection that the request was about. They are None
        # if the caller can't see them.
        self.tenant_id: UUID | None = None
        self.connection_id: UUID | None = None


class CallerFaultError(AppError):
    """The request itself is wrong. A retry does not help."""


class MalformedRequestError(CallerFaultError):
    code = "malformed_request"


class UnauthenticatedError(CallerFaultError):
    code = "unauthenticated"


class ForbiddenError(CallerFaultError):
    code = "forbidden"


class NotFoundError(CallerFaultError):
    """The resource is absent, deleted, or another tenant's.

    The answer is the same in all three cases (invariant 11).
    """

    code = "not_found"

    def __init__(self) -> None:
        super().__init__("Not found, or not visible to this API key.")


class ConflictError(CallerFaultError):
    code = "conflict"


class IdempotencyKeyInUseError(ConflictError):
    """Another request with this Idempotency-Key is running."""

    code = "idempotency_key_in_use"
    retry_after = 1

    def __init__(self) -> None:
        super().__init__("Another request with this Idempotency-Key is running; try again.")


class IdempotencyKeyReusedError(CallerFaultError):
    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__("Another request had this Idempotency-Key, with another body.")


class AccountClosedError(ConflictError):
    """The vendor suspended or deleted a connection in this AWS account.

    That closes the account to everybody but the vendor.
    """

    def __init__(self, done: str, first: str) -> None:
        """Say what the vendor did to the connection, and what it has to do first."""
        super().__init__(
            f"The vendor {done} a connection in this AWS account, and has to {first} first."
        )


class ValidationFailedError(CallerFaultError):
    code = "validation_failed"

    def __init__(self, **messages: str) -> None:
        """Describe what is wrong with each field."""
        errors = {field: [message] for field, message in messages.items()}
        super().__init__("Some fields are invalid; see errors.", errors=errors)


class RoleNotAllowedError(CallerFaultError):
    """The role ARN is well-formed, but Deputy never assumes such a role.

    The request is refused before any call to AWS (invariant 7).
    """

    code = "role_not_allowed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, errors={"role_arn": [detail]})


class CustomerSetupError(AppError):
    """The customer's AWS account, or the state of the tenant or connection, must change first."""


class ConnectionNotVerifiedError(CustomerSetupError):
    code = "connection_not_verified"


class SuspendedError(CustomerSetupError):
    code = "suspended"


class ExternalIdWithdrawnError(CustomerSetupError):
    """The External ID was withdrawn in an emergency, because it was abused.

    The role does not accept the next External ID yet.
    """

    code = "external_id_withdrawn"


class RoleRefusedError(CustomerSetupError):
    code = "role_refused"


class TryLaterError(AppError):
    """The request is valid. Send it again later."""

    retry_after: int = 2


class StoreUnavailableError(TryLaterError):
    code = "unavailable"

    @property
    def words_of_driver(self) -> str | None:
        """Return the first line of the database driver's message; None without a driver's error.

        It is for operators, because it may name the host.
        """
        cause = getattr(self.__cause__, "orig", None)
        return None if cause is None else str(cause).partition("\n")[0]


class AwsUnavailableError(TryLaterError):
    code = "aws_unavailable"


class ProofExpiredError(TryLaterError):
    """The role's latest proof is too old, so Deputy issues no credentials.

    A fresh proof was not possible in time (invariant 13).
    """

    code = "proof_expired"


class RateLimitedError(TryLaterError):
    """A rate limit was exceeded."""

    code = "rate_limited"

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class ConnectionClosedError(RateLimitedError):
    """The connection is closed: by its client, or because the process has too many."""
