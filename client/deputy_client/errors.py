"""The reasons why there are no credentials, as one tree of exceptions by who must act.

Their names are those of states, as they read in `except deputy_client.NotVerified`.
"""

from collections.abc import Mapping, Sequence

FieldErrors = Mapping[str, Sequence[str]]


class DeputyError(Exception):
    """No credentials. Its text says what to do, and never contains a key or a credential.

    `code` is Deputy's, or None if it did not answer. `request_id` identifies the request in
    Deputy's log and audit log. `errors` lists the errors by field. `retry_after` is the time in
    seconds that Deputy asked to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        request_id: str | None = None,
        errors: FieldErrors | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.request_id = request_id
        self.errors = dict(errors or {})
        self.retry_after = retry_after

    def __str__(self) -> str:
        fields = "".join(f" {field}: {' '.join(texts)}" for field, texts in self.errors.items())
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.message}{fields}{request}"

    def again(self) -> "DeputyError":
        """Copy the error for another thread.

        An exception that many threads raise would collect their tracebacks.
        """
        return type(self)(
            self.message,
            code=self.code,
            request_id=self.request_id,
            errors=self.errors,
            retry_after=self.retry_after,
        )


class ConfigurationError(DeputyError):
    """An error in the worker's own set-up. Nothing was issued.

    Examples: no URL, no key, plain http to another machine, a wrong clock.
    """


class NotPermitted(DeputyError):
    """The key is not valid, may not issue, or sees no such connection (401, 403, 404)."""


class NotVerified(DeputyError):
    """The connection has no valid proof: the customer's role must be verified first."""


class Suspended(DeputyError):
    """The tenant or the connection is suspended."""


class RoleRefused(DeputyError):
    """AWS refuses a connection that was verified: the customer changed or removed the role."""


class BadRequest(DeputyError):
    """Deputy can't fulfil the request. `errors` gives the reasons by field."""


class Unreachable(DeputyError):
    """Deputy, or AWS behind it, did not answer or is busy. A later call may succeed."""
