"""Checks of settings: each takes a setting's text and returns its value.

A check raises ValueError, with the reason, for an invalid text. docs/settings.md shows what follows
"Accept" in the first line of the check's docstring.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import make_conninfo
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from app.ids import ACCOUNT_ID, AccountId

Network = IPv4Network | IPv6Network
REGION = r"[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}"
_TOPIC = re.compile(
    rf"arn:(?P<partition>aws(?:-[a-z0-9]+)*):sns:(?P<region>{REGION})"
    r":[0-9]{12}:[A-Za-z0-9_-]{1,256}",
    re.ASCII,
)
TOPICS_MAX = 40  # more than a partition has regions; an SQS policy names at most 50 principals
# How the names of these partitions' regions begin. No other partition has such regions.
_REGIONS_OF = {"aws-cn": "cn-", "aws-us-gov": "us-gov-", "aws-eusc": "eusc-"}
# AWS's limits for the duration of a session, in seconds
SESSION_MIN = 900
SESSION_MAX = 43_200  # the highest maximum that a role can have
ROLE_CHAINING_MAX = 3600  # the maximum if the caller is itself an assumed role
ROLE_MAX_DEFAULT = 3600  # a role's default maximum, which is also the lowest possible one
DAY = 86_400  # seconds
WEEK = 7 * DAY
# About one in millions of random keys of 64 hex digits has fewer than 12 different digits.
_DISTINCT = 12
_UNREADABLE = "is not a URL that can be read; is its port a number, and each parameter known?"
_MAKE_ONE = "Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
VENDOR_NAME_MAX = 64
VENDOR_NAME_ASCII = r"[A-Za-z0-9][A-Za-z0-9 .+-]{0,63}"
ROLE_NAMES_MAX = 20  # broker.yaml names each twice, and AWS limits a role's policies
RETENTION_MIN_DAYS = 30
RETENTION_MAX_DAYS = 36_500


def matches(pattern: str) -> Callable[[str], str]:
    compiled = re.compile(pattern, re.ASCII)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"must match {pattern}")
        return text

    check.__doc__ = f"Accept `{pattern}`."
    return check


def between(least: int, most: int) -> Callable[[str], int]:
    problem = f"must be a whole number between {least} and {most}."

    def check(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(problem) from None
        if not least <= value <= most:
            raise ValueError(problem)
        return value

    check.__doc__ = f"Accept {least} to {most}."
    return check


def region(text: str) -> str:
    """Accept the name of a region."""
    if not re.fullmatch(REGION, text):
        raise ValueError("must name the region whose STS endpoint is used, such as eu-west-1.")
    return text


def retention_days(text: str) -> int:
    days = between(0, RETENTION_MAX_DAYS)(text)
    if 0 < days < RETENTION_MIN_DAYS:
        raise ValueError(f"must be 0, which keeps all, or at least {RETENTION_MIN_DAYS}.")
    return days


retention_days.__doc__ = f"Accept 0, or {RETENTION_MIN_DAYS} to {RETENTION_MAX_DAYS}."


def folder(text: str) -> Path:
    """Accept the path of a folder."""
    if not Path(text).is_dir():
        raise ValueError("must name a folder that is there.")
    return Path(text)


def is_line(text: str) -> bool:
    """Return whether the text is one printable line, and not blank.

    Databases, logs and CloudTrail show such a text unchanged. No character hides a part of the
    text.
    """
    return text.isprintable() and bool(text.strip())


def vendor_name(text: str) -> str:
    if len(text) > VENDOR_NAME_MAX or not is_line(text) or text != text.strip():
        raise ValueError(
            f"must be one line of 1 to {VENDOR_NAME_MAX} printable characters, without white space"
            " around it."
        )
    return text


vendor_name.__doc__ = f"Accept 1 to {VENDOR_NAME_MAX} printable characters."


def ascii_form(name: str) -> str:
    """Return a name without diacritics (NFKD), and without characters that AWS may refuse.

    CloudFormation and IAM each accept only some characters in descriptions and tags. Letters,
    digits, spaces and `.+-` are accepted by both, and have no special meaning in YAML. The result
    may be empty.
    """
    kept = re.sub(r"[^A-Za-z0-9 .+-]", "", unicodedata.normalize("NFKD", name))
    return " ".join(kept.split()).lstrip(" .+-")


def identifies_vendor(form: str) -> bool:
    """Return whether an ASCII form has at least two letters, and is short enough for AWS."""
    return len(form) <= VENDOR_NAME_MAX and len(re.findall("[A-Za-z]", form)) >= 2


def database_url(text: str) -> str:
    """Accept `postgresql+psycopg://…`."""
    if text.startswith("sqlite:"):
        raise ValueError(
            "must name a PostgreSQL: Deputy no longer runs on SQLite. Create a database and a role"
            " as docs/install.md says, and give postgresql+psycopg://role:password@host/database."
        )
    if not text.startswith("postgresql+psycopg://"):
        raise ValueError("must start with postgresql+psycopg://")
    try:
        url = make_url(text)
        make_conninfo(**url.get_dialect()().create_connect_args(url)[1])
    except (ArgumentError, ValueError, ProgrammingError):
        # The error must not show the URL, which contains a password
        raise ValueError(_UNREADABLE) from None
    return text


def looks_random(key: str) -> bool:
    """Return whether the key has as many different characters as a random text usually has."""
    return len(set(key)) >= _DISTINCT


def secret_keys(text: str) -> tuple[str, ...]:
    """Accept keys of 32 characters or more, separated by commas.

    White space is refused: it would be a part of the key after a comma, which is then another key.
    """
    keys = tuple(text.split(","))
    if any(len(key) < 32 or re.search(r"\s", key) for key in keys):
        raise ValueError(
            "must be one or more keys of at least 32 characters each, separated by commas, without"
            " white space."
        )
    if not looks_random(keys[0]):  # weak keys after the first, which are older, are only reported
        raise ValueError(
            f"the first key, which signs and seals, is not random: it has fewer than {_DISTINCT}"
            f" different characters. {_MAKE_ONE}"
        )
    return keys


def cache_url(text: str) -> str:
    """Accept `redis://…`, `rediss://…` or `unix://…`."""
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must start with redis://, rediss:// (TLS) or unix://, for Valkey too.")
    # Imported lazily: most deployments have no cache, and it takes long
    from redis import ConnectionPool, RedisError  # noqa: PLC0415

    try:
        ConnectionPool.from_url(text).make_connection()  # it does not connect yet
    except (RedisError, TypeError, ValueError):
        raise ValueError(_UNREADABLE) from None
    return text


def role_names(text: str) -> frozenset[str]:
    """Accept at most 20 names of roles, separated by commas."""
    names = frozenset(part.strip() for part in text.split(",") if part.strip())
    if len(names) > ROLE_NAMES_MAX:
        raise ValueError(f"must be at most {ROLE_NAMES_MAX} names.")
    for name in sorted(names):
        if not re.fullmatch(r"[\w+=.@-]{1,64}", name, re.ASCII):
            raise ValueError(f"{name} is no role's name: 1 to 64 letters, digits or any of _+=.@-")
    return names


def account_ids(text: str) -> frozenset[AccountId]:
    """Accept account ids, separated by commas."""
    accounts = text.split(",") if text else []
    if not all(map(ACCOUNT_ID.fullmatch, accounts)):
        raise ValueError("must be AWS account ids of 12 digits, separated by commas.")
    return frozenset(map(AccountId, accounts))


def networks(text: str) -> tuple[Network, ...]:
    """Accept networks as CIDRs, separated by commas."""
    try:
        return tuple(map(ip_network, text.split(",") if text else []))
    except ValueError:
        raise ValueError("must be networks like 10.20.0.0/16, separated by commas.") from None


def topics(text: str) -> tuple[str, ...]:
    arns = tuple(text.split(",")) if text else ()
    if len(arns) > TOPICS_MAX:
        raise ValueError(f"must be at most {TOPICS_MAX} ARNs of topics.")
    regions = list(map(_region_of_topic, arns))
    for region_name in regions:
        if regions.count(region_name) > 1:
            raise ValueError(f"has several topics in {region_name}. A region can have one.")
    return arns


topics.__doc__ = f"Accept 1 to {TOPICS_MAX} ARNs of topics, separated by commas."


def _region_of_topic(text: str) -> str:
    """Return the region in a topic's ARN. Raises ValueError for any other text."""
    arn = _TOPIC.fullmatch(text)
    if arn is None:
        raise ValueError("must be the ARN of an SNS topic, or several separated by commas.")
    partition = "aws"
    for name, beginning in _REGIONS_OF.items():
        if arn["region"].startswith(beginning):
            partition = name
    if partition != arn["partition"]:
        raise ValueError(f"names a region that is not in the partition {arn['partition']}.")
    return arn["region"]


# A host (an IPv6 address in brackets), with or without a port. A URL with a user is refused,
# because its password would be in every link.
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d+)?")


def http_url(text: str) -> str:
    """Accept `http://…` or `https://…`."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from error
    plain = _ADDRESS.fullmatch(parts.netloc) and not re.search(r"\s", text)
    if parts.scheme not in {"http", "https"} or not plain or parts.query or parts.fragment:
        raise ValueError(
            "must be an http:// or https:// URL without user, white space, query or fragment."
        )
    return text


def console_url(text: str) -> str:
    """Accept `http://…` or `https://…`."""
    return http_url(text).rstrip("/")


# The first segments of Deputy's own paths. A public URL must not have a path that begins with one:
# it would not be clear whether the segment is a prefix or Deputy's own.
OWN_PATHS = ("v1", "onboard", "docs", "openapi.json", "healthz", "readyz")
_OWN_PATH = re.compile(rf"/({'|'.join(map(re.escape, OWN_PATHS))})(/.*)?")
_PATH = re.compile(r"(/(?!\.)[A-Za-z0-9._~-]+)*/?")


def public_url(text: str) -> str:
    """Accept `http://…` or `https://…`, with or without a path."""
    path = urlsplit(http_url(text)).path
    if not _PATH.fullmatch(path) or _OWN_PATH.fullmatch(path):
        raise ValueError(
            "may have a path of letters, digits and any of ._~- between its slashes; it can't"
            f" begin with one of this service's own: {', '.join(OWN_PATHS)}."
        )
    return text.rstrip("/")


# The functions below find conflicts between settings. The parameters of a function are the settings
# of the same names. The function is called only if their values are all valid.


def role_chaining(broker: Any, max_session_seconds: int) -> Iterator[str]:
    if broker.is_role and max_session_seconds > ROLE_CHAINING_MAX:
        yield (
            f"DEPUTY_MAX_SESSION_SECONDS: at most {ROLE_CHAINING_MAX} while"
            " DEPUTY_BROKER_PRINCIPAL_ARN is a role: AWS calls that role chaining, and ends such"
            " sessions after that time."
        )


def registration(
    broker: Any, registration_topic_arns: tuple[str, ...], registration_queue_url: str | None
) -> Iterator[str]:
    if bool(registration_topic_arns) != bool(registration_queue_url):
        missing = "QUEUE_URL" if registration_topic_arns else "TOPIC_ARN"
        yield (
            f"DEPUTY_REGISTRATION_{missing}: the topics and the queue belong together; set both or"
            " neither."
        )
    for topic in registration_topic_arns:
        _, partition, _, region_name, account, _ = topic.split(":")
        if partition != broker.partition:
            yield (
                f"DEPUTY_REGISTRATION_TOPIC_ARN: the topic in {region_name} must be in the"
                " partition of DEPUTY_BROKER_PRINCIPAL_ARN."
            )
        elif account != broker.account_id:
            yield (
                f"DEPUTY_REGISTRATION_TOPIC_ARN: the topic in {region_name} must be in the account"
                " of DEPUTY_BROKER_PRINCIPAL_ARN: customers' templates take no other account's"
                " topics."
            )


def ascii_name(vendor_name: str, vendor_name_ascii: str | None) -> Iterator[str]:
    form = ascii_form(vendor_name)
    if vendor_name_ascii is None and not identifies_vendor(form):
        yield (
            "DEPUTY_VENDOR_NAME_ASCII: must be set, to the name that customers see in their AWS"
            " accounts: AWS takes ASCII alone in some places, and there a name has 2 letters at"
            f" least and {VENDOR_NAME_MAX} characters at most. What is left of DEPUTY_VENDOR_NAME"
            f" is {form!r}."
        )


def canary(
    broker: Any,
    vendor_account_ids: frozenset[str],
    role_prefix: str,
    canary_role_arn: Any,
    stranger_role_arn: Any,
) -> Iterator[str]:
    for name, role in (("Canary", canary_role_arn), ("Stranger", stranger_role_arn)):
        variable = f"DEPUTY_{name.upper()}_ROLE_ARN"
        if role is None:
            continue
        if role.partition != broker.partition:
            yield f"{variable}: must be in the partition of DEPUTY_BROKER_PRINCIPAL_ARN."
        elif role.account_id in {broker.account_id, *vendor_account_ids}:
            yield (
                f"{variable}: must be in an account that is neither the broker's nor one of"
                " DEPUTY_VENDOR_ACCOUNT_IDS, because the broker's policy denies those. Launch"
                " cloudformation/canary.yaml in another account of yours, and set this to its"
                f" output {name}RoleArn."
            )
        elif not role.name.startswith(role_prefix):
            yield (
                f"{variable}: the role's name must begin with DEPUTY_ROLE_PREFIX, which is"
                f" {role_prefix}: the broker can assume no other. Launch"
                " cloudformation/canary.yaml with this RolePrefix."
            )
