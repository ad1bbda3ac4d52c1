"""AWS's answers in three words: refused, misconfigured, unavailable.

Errors are classified by their code; the text decides only for one code that AWS uses for two
things. Only `AccessDenied` is a refusal. Every unknown error is unavailable and proves nothing
(invariant 5; docs/architecture.md has the list). The exceptions have our own words: AWS's text
names the broker and its session, so it never leaves here.
"""

import re
from typing import Literal

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from app.log import logger

# What botocore's parser raises for an answer that is not as AWS documents it, such as a proxy's.
_PARSER_ERRORS = (ResponseParserError, LookupError, AttributeError, TypeError, ValueError)
# Everything that a call to AWS raises. Catch it only around the call and the parsing of its answer.
AWS_ERRORS = (BotoCoreError, ClientError, HTTPError, *_PARSER_ERRORS)

_SLOW_DOWN = {
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "SlowDown",
}

Field = Literal["duration_seconds", "session_policy"]


class StsError(Exception):
    """The base of what `app.aws.sts` raises."""


class Refused(StsError):  # noqa: N818  the design's words: refused, misconfigured, unavailable
    """AccessDenied: a wrong or missing External ID, no such role, or no trust. AWS doesn't tell
    which.
    """


class Misconfigured(StsError):  # noqa: N818
    """AWS refuses the form of the call. `field`: the field of the issue request that caused it."""

    def __init__(self, detail: str, field: Field | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class Unavailable(StsError):  # noqa: N818
    """Throttled, timed out, failed, or an unknown answer; the same call may succeed later."""


_MISCONFIGURED: dict[str, tuple[str, Field | None]] = {
    "MalformedPolicyDocument": ("AWS doesn't accept this as a policy document.", "session_policy"),
    "RegionDisabledException": (
        "The account has switched STS off in the region that Deputy works from.",
        None,
    ),
}


def classify(error: Exception) -> StsError:
    """The StsError for what boto3 raised. The original's code is logged; the caller chains the
    original.
    """
    if not isinstance(error, ClientError):
        # With the traceback for a parser's error, which may be a bug of ours.
        traceback = None if isinstance(error, BotoCoreError | HTTPError) else error
        logger.warning("aws.unreachable", error=type(error).__name__, exc_info=traceback)
        return Unavailable()
    code = error.response.get("Error", {}).get("Code", "")
    if code == "AccessDenied":
        return Refused()
    logger.warning(
        "aws.error",
        code=code,
        aws_request_id=error.response.get("ResponseMetadata", {}).get("RequestId"),
    )
    message = str(error.response.get("Error", {}).get("Message", ""))
    if code == "ValidationError":
        return _validation(message)
    if code == "PackedPolicyTooLarge":
        return _too_large(message)
    if code in _MISCONFIGURED:
        return Misconfigured(*_MISCONFIGURED[code])
    return Unavailable()


def is_silence(error: Exception) -> bool:
    """Whether the error is about AWS as a whole and may pass. An answer about one role or one
    policy is not, or one caller could open the breaker for the others.
    """
    if not isinstance(error, ClientError):
        return True
    return _status(error) >= 500 or is_throttling(error)


def is_throttling(error: Exception) -> bool:
    """Whether AWS throttled the call. It counts by account, so this may be about one tenant."""
    if not isinstance(error, ClientError):
        return False
    return _status(error) == 429 or error.response.get("Error", {}).get("Code") in _SLOW_DOWN


def outcome_of(error: Exception) -> str:
    """Of a call that raised one of AWS_ERRORS: "refused", "throttled", "failed" or
    "unreachable".
    """
    if not isinstance(error, ClientError):
        return "unreachable"
    if is_throttling(error):
        return "throttled"
    return "refused" if error.response.get("Error", {}).get("Code") == "AccessDenied" else "failed"


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)


def _too_large(message: str) -> Misconfigured:
    """AWS packs session policies in its own way, so only AWS knows how much space one takes."""
    percent = re.search(r"([0-9]{1,6})\s?%", message)
    taken = f"{percent[1]} %" if percent else "more than 100 %"
    return Misconfigured(
        f"The session policy takes {taken} of AWS's limit when packed. Shorten it.",
        "session_policy",
    )


def _validation(message: str) -> StsError:
    """ValidationError is AWS's code for both duration limits; only the text tells them apart."""
    if "MaxSessionDuration" in message:
        return Misconfigured(
            "This is more than the role's own maximum session duration.", "duration_seconds"
        )
    if "role chaining" in message:
        return Misconfigured(
            "AWS gives a broker that is an assumed role 3600 seconds at most.", "duration_seconds"
        )
    return Unavailable()
