"""What the value of one setting may be. Each check raises ValidationError, which says what it must be."""

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from marshmallow import ValidationError
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from app.ids import ACCOUNT_ID_PATTERN
from app.settings.doubts import DISTINCT, MAKE_ONE, looks_random
from app.settings.vendor_name import ASCII_PATTERN, NAME_MAX, is_name

REGION = r"[a-z]{2}(-[a-z]+)+-[0-9]{1,2}"
TOPIC = re.compile(
    rf"arn:(?P<partition>aws(?:-[a-z0-9]+)*):sns:(?P<region>{REGION}):(?P<account>[0-9]{{12}}):[A-Za-z0-9_-]{{1,256}}",
    re.ASCII,
)
_SQS_QUEUE = r"sqs://[A-Za-z0-9.:-]+/[0-9]{12}/[A-Za-z0-9_-]{1,80}"
_REGIONS_OF = {"aws-cn": "cn-", "aws-us-gov": "us-gov-"}  # how their regions begin; no other partition's do
SESSION_MAX = 43_200  # seconds; the most that any role allows


def matches(pattern: str) -> Callable[[str], None]:
    compiled = re.compile(pattern, re.ASCII)

    def check(value: str) -> None:
        if not compiled.fullmatch(value):
            raise ValidationError(f"must match {pattern}")

    return check


def vendor_name(value: str) -> None:
    if not is_name(value):
        raise ValidationError(
            f"must be one line of 1 to {NAME_MAX} printable characters, without white space around it."
        )


def ascii_or_nothing(value: str | None) -> None:
    if value:
        matches(ASCII_PATTERN)(value)


def database_url(value: str) -> None:
    if not value.startswith(("sqlite:///", "postgresql+psycopg://")):
        raise ValidationError("must start with sqlite:/// or postgresql+psycopg://")
    try:
        file = make_url(value).database
    except (ArgumentError, ValueError):
        raise ValidationError("is not a URL that can be read; is its port a number?") from None  # it holds a password
    if value.startswith("sqlite") and file in {None, "", ":memory:"}:
        raise ValidationError("must name a file: each process would have a database of its own.")


def port_or_nothing(value: str | None) -> None:
    try:
        _ = urlsplit(value or "").port
    except ValueError:
        raise ValidationError("has a port that is no number.") from None  # nor is it said: it may be a password's end


def secret_keys(values: list[str]) -> None:
    if not values or any(len(value) < 32 for value in values):
        raise ValidationError("must be one or more keys of at least 32 characters each, separated by commas.")
    if not looks_random(values[0]):  # further back, weaker ones are doubtful: they were in use once
        raise ValidationError(
            f"the first key, which signs and seals, is not random: it has fewer than {DISTINCT} different characters."
            f" {MAKE_ONE}"
        )


def cache_url(value: str | None) -> None:
    if value and not value.startswith(("redis://", "rediss://", "unix://")):
        raise ValidationError("must start with redis://, rediss:// (TLS) or unix://, for Valkey too.")
    port_or_nothing(value)


def celery_url(value: str | None) -> None:
    if value and not value.startswith(("redis://", "rediss://", "sqs://", "amqp://", "amqps://")):
        raise ValidationError("must start with redis://, rediss://, sqs://, amqp:// or amqps://")
    if value and value.startswith("sqs://") and not re.fullmatch(_SQS_QUEUE, value):
        raise ValidationError("must be a queue's URL with sqs:// for https://, and hold no keys.")
    port_or_nothing(value)


def account_ids(values: list[str]) -> None:
    if not all(re.fullmatch(ACCOUNT_ID_PATTERN, value) for value in values):
        raise ValidationError("must be AWS account ids of 12 digits, separated by commas.")


def http_url_or_nothing(value: str | None) -> None:
    if value:
        http_url(value)


def topic_or_nothing(value: str | None) -> None:
    found = TOPIC.fullmatch(value) if value else None
    if value and found is None:
        raise ValidationError("must be the ARN of an SNS topic.")
    if found is not None:
        theirs = next((p for p, start in _REGIONS_OF.items() if found["region"].startswith(start)), "aws")
        if theirs != found["partition"]:
            raise ValidationError(f"names a region that is not in the partition {found['partition']}.")


# A host, in brackets if it is an IPv6 address, and perhaps a port. No user, whose password would be in every link.
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d+)?")


def http_url(value: str) -> None:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError as error:
        raise ValidationError(f"is not a URL: {error}") from error
    plain = _ADDRESS.fullmatch(parts.netloc) and not re.search(r"\s", value)
    if parts.scheme not in {"http", "https"} or not plain or parts.query or parts.fragment:
        raise ValidationError("must be an http:// or https:// URL without user, white space, query or fragment.")


# Of the service itself: a path that begins with one could be meant to lie below the public URL, or to be one.
OWN_PATHS = ("v1", "onboard", "docs", "openapi.json", "healthz", "readyz")
_OWN_PATH = re.compile(rf"/({'|'.join(map(re.escape, OWN_PATHS))})(/.*)?")
_PATH = re.compile(r"(/(?!\.)[A-Za-z0-9._~-]+)*/?")


def public_url(value: str) -> None:
    http_url(value)
    path = urlsplit(value).path
    if not _PATH.fullmatch(path) or _OWN_PATH.fullmatch(path):
        raise ValidationError(
            "may have a path of letters, digits and any of ._~- between its slashes; it can't begin with one of this"
            f" service's own: {', '.join(OWN_PATHS)}."
        )


def positive(value: int) -> None:
    if not 1 <= value <= 1_000_000_000:
        raise ValidationError("must be between 1 and 1000000000.")


def positive_or_nothing(value: int | None) -> None:
    if value is not None:
        positive(value)


def body_seconds(value: int) -> None:
    if not 1 <= value <= 60:
        raise ValidationError("must be between 1 and 60.")


def session_seconds(value: int) -> None:
    if not 900 <= value <= SESSION_MAX:
        raise ValidationError(f"must be between 900 and {SESSION_MAX}.")


def hops(value: int) -> None:
    if not 0 <= value <= 10:
        raise ValidationError("must be between 0 and 10.")
