"""Exceptions for requests that get no credentials. Each class says who has to act.

The classes are named after states, because they are used as in `except deputy_client.NotVerified`.
"""

from collections.abc import Mapping, Sequence

FieldErrors = Mapping[str, Sequence[str]]


class DeputyError(Exception):
    """Deputy issued no credentials. The text says what to do, and never contains a secret.

    `code` is the code in Deputy's answer; None if Deputy did not answer. `request_id` identifies
    the request in Deputy's log and audit log. `errors` lists the errors of each field.
    `retry_after` is the number of seconds that Deputy asked to wait.
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
        """Copy the error, so that another thread can raise it.

        If many threads raised the same exception, it would collect all their tracebacks.
        """
        return type(self)(
            self.message,
            code=self.code,
            request_id=self.request_id,
            errors=self.errors,
            retry_after=self.retry_after,
        )


class ConfigurationError(DeputyError):
    """The worker itself is configured wrongly.

    Examples: there is no URL or no key, the URL is plain http to another machine, or the clock is
    wrong.
    """


class NotPermitted(DeputyError):
    """The key is invalid (401), may not issue (403), or sees no such connection (404)."""


class NotVerified(DeputyError):
    """The connection is not verified: the customer's role must pass a proof first."""


class Suspended(DeputyError):
    """The tenant or the connection is suspended."""


class RoleRefused(DeputyError):
    """AWS refuses the role of a verified connection: the customer changed or deleted the role."""


class BadRequest(DeputyError):
    """The request is invalid. `errors` lists the reasons by field."""


class Unreachable(DeputyError):
    """Deputy or AWS did not answer, or is busy. A later call may succeed."""
