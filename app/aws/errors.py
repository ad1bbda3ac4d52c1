"""AWS's errors, classified as refused, misconfigured or unavailable.

Errors are classified by their code. The text decides only for one code that AWS uses for two
purposes. Only `AccessDenied` is a refusal. Every unknown error is unavailable and proves nothing
(invariant 5; docs/architecture.md has the list). The exceptions have our own texts: AWS's text
names the broker and its session, so it never leaves this module.
"""

import re
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from app.log import logger
from app.settings.valid_values import ROLE_CHAINING_MAX

# All errors of a call to AWS. Catch them only around calls and the parsing of their
# answers, because some of them are also errors of our code.
AWS_ERRORS = (
    BotoCoreError,
    ClientError,
    HTTPError,
    # Raised by botocore's parser for an answer that AWS does not document, such as a proxy's
    ResponseParserError,
    LookupError,
    AttributeError,
    TypeError,
    ValueError,
)

_SLOW_DOWN = {
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "SlowDown",
}

Field = Literal["duration_seconds", "session_policy"]


class StsError(Exception):
    """The base class of the errors of `app.aws.sts`."""


class Refused(StsError):  # noqa: N818  the design's words: refused, misconfigured, unavailable
    """AccessDenied: a wrong or missing External ID, an absent role, or a role without trust.

    AWS does not say which of these it is.
    """


class Misconfigured(StsError):  # noqa: N818
    """AWS rejects a parameter of the call, or a setting of the account prevents it.

    `field`: the field of the issue request that caused it.
    """

    def __init__(self, detail: str, field: Field | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class Unavailable(StsError):  # noqa: N818
    """The call was throttled, timed out, failed or got an unknown answer; a retry may succeed."""


# A code, a part of its text, and our sentence with its field. Only the text distinguishes the two
# duration limits, for which AWS uses one code.
_MISCONFIGURED: tuple[tuple[str, str, str, Field | None], ...] = (
    (
        "ValidationError",
        "MaxSessionDuration",
        "This is more than the role's own maximum session duration.",
        "duration_seconds",
    ),
    (
        "ValidationError",
        "role chaining",
        f"AWS gives a broker that is an assumed role {ROLE_CHAINING_MAX} seconds at most.",
        "duration_seconds",
    ),
    (
        "MalformedPolicyDocument",
        "",
        "AWS doesn't accept this as a policy document.",
        "session_policy",
    ),
    (
        "RegionDisabledException",
        "",
        "The account has switched STS off in the region that Deputy works from.",
        None,
    ),
)


def classify(error: Exception) -> StsError:
    """Return the StsError for an error of boto3, and log the code of that error.

    Callers raise the StsError from the original error.
    """
    if not isinstance(error, ClientError):
        # Log a parser's error with its traceback, because it may be a bug of ours.
        traceback = None if isinstance(error, BotoCoreError | HTTPError) else error
        logger.warning("aws.unreachable", error=type(error).__name__, exc_info=traceback)
        return Unavailable()
    code = code_of(error)
    if code == "AccessDenied":
        return Refused()
    logger.warning(
        "aws.error",
        code=code,
        aws_request_id=error.response.get("ResponseMetadata", {}).get("RequestId"),
    )
    message = str(error.response.get("Error", {}).get("Message", ""))
    if code == "PackedPolicyTooLarge":
        # Only AWS knows how much space a session policy takes when packed
        percent = re.search(r"([0-9]{1,6})\s?%", message)
        size = f"{percent[1]} %" if percent else "more than 100 %"
        return Misconfigured(
            f"The session policy takes {size} of AWS's limit when packed. Shorten it.",
            "session_policy",
        )
    for code_of_fault, part, detail, field in _MISCONFIGURED:
        if code == code_of_fault and part in message:
            return Misconfigured(detail, field)
    return Unavailable()


def is_silence(error: Exception) -> bool:
    """Return whether the error concerns AWS as a whole and may be temporary.

    Errors about a single role or policy do not count. Otherwise one tenant could open the breaker
    for all.
    """
    return outcome_of(error) in {"unreachable", "throttled"} or status_of(error) >= 500


def outcome_of(error: Exception) -> str:
    """Return the outcome of a call that raised one of AWS_ERRORS.

    It is "refused", "throttled", "failed" or "unreachable".
    """
    if not isinstance(error, ClientError):
        return "unreachable"
    if status_of(error) == 429 or code_of(error) in _SLOW_DOWN:
        return "throttled"
    return "refused" if code_of(error) == "AccessDenied" else "failed"


def code_of(error: ClientError) -> str:
    """Return AWS's code of the error; empty if the answer has none."""
    return error.response.get("Error", {}).get("Code", "")


def status_of(error: Any) -> int:
    """Return the HTTP status of AWS's answer."""
    status: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    return status
