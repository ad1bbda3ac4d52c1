"""Why there are no credentials, as one tree of exceptions; each class says who has to act.

The names are those of states, as they read in an `except`: `except deputy_client.NotVerified`.
"""

from collections.abc import Mapping, Sequence

FieldErrors = Mapping[str, Sequence[str]]


class DeputyError(Exception):
    """No credentials. Its text says what to do, and never holds a key or a credential.

    `code` is Deputy's (None if it did not answer), `request_id` is what Deputy's log and audit log
    know the request by, `errors` is what is wrong by field, `retry_after` is how many seconds
    Deputy asked to wait.
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
        """The same refusal for another thread: one exception that is raised in many would
        collect their tracebacks.
        """
        return type(self)(
            self.message,
            code=self.code,
            request_id=self.request_id,
            errors=self.errors,
            retry_after=self.retry_after,
        )


class ConfigurationError(DeputyError):
    """The worker's own set-up: no URL, no key, plain http to another machine, a wrong clock.
    Nothing was issued.
    """


class NotPermitted(DeputyError):
    """The key is not valid, may not issue, or sees no such connection (401, 403, 404)."""


class NotVerified(DeputyError):
    """The connection has no valid proof: the customer's role must be verified first."""


class Suspended(DeputyError):
    """The tenant or the connection is suspended."""


class RoleRefused(DeputyError):
    """The connection was verified, but AWS refuses it now: the customer changed or removed the
    role.
    """


class BadRequest(DeputyError):
    """Deputy can't do what was asked for; `errors` says why, by field."""


class Unreachable(DeputyError):
    """Deputy, or AWS behind it, did not answer, or is busy. The same call may succeed in a
    moment.
    """
