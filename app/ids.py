r"""The values that authorization depends on: External IDs, role ARNs and the grant of both.

Strings from outside are parsed once, here. Later code relies on a `RoleArn` being valid. Use
`re.ASCII` and `fullmatch` everywhere: in Python `\d` also matches other scripts' digits, and `$`
allows a trailing newline.
"""

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NewType
from uuid import UUID

from uuid_utils.compat import uuid7

AccountId = NewType("AccountId", str)  # twelve ASCII digits
ExternalId = NewType("ExternalId", str)  # only new_external_id makes one

ACCESS_KEY_ID = re.compile(r"[A-Z0-9]{16,128}", re.ASCII)  # AWS's form
EXTERNAL_ID_PATTERN = r"dpy-[0-9a-f]{64}"
ACCOUNT_ID_PATTERN = r"[0-9]{12}"
ROLE_NAME_MAX = 64
TENANT_DIGITS = 8  # the digits of a tenant's id in the names of its role and its stack

# IAM's alphabet for role names and paths, and STS's length for RoleArn (20 to 2,048 characters).
_ROLE_ARN = re.compile(
    r"arn:(?P<partition>aws(?:-[a-z0-9]+)*):iam::(?P<account>[0-9]{12}):role"
    r"(?P<path>/(?:[!-.0-~]+/)*)(?P<name>[\w+=,.@-]{1,64})",
    re.ASCII,
)
# Without named groups, which other dialects write differently.
ROLE_ARN_PATTERN = re.sub(r"\?P<\w+>", "?:", _ROLE_ARN.pattern)
_ROLE_ARN_MAX = 2048
_PATH_MAX = 512
_SESSION_NAME = re.compile(r"deputy-([0-9a-f]{32})-[0-9a-f]{24}", re.ASCII)


def new_id() -> UUID:
    """Return a new UUIDv7, which is unique without a request to the database.

    Ids are in order of creation, and pages rely on that.
    """
    return uuid7()


def session_name(key_id: UUID, digits: str | None = None) -> str:
    """Return a session's name, `deputy-<key id>-<issuance>`, with exactly AWS's 64 characters.

    It shows the key in the customer's CloudTrail. `digits`: hex digits for the second part, of
    which the first 24 count. Without `digits` they are random.
    """
    return f"deputy-{key_id.hex}-{digits or secrets.token_hex(12):.24}"


def key_id_in(name: str) -> UUID | None:
    """Return the key's id in a session's name.

    Return None for a name that does not have the form of `session_name`.
    """
    match = _SESSION_NAME.fullmatch(name)
    return UUID(match[1]) if match else None


def first_id_at(time: datetime) -> UUID:
    """Return the lower bound of the ids that `new_id` makes from that millisecond on."""
    return UUID(int=max(0, int(time.timestamp() * 1000)) << 80)


def time_of(uuid: UUID) -> datetime:
    """Return the time when `new_id` made this id, to the millisecond."""
    return datetime.fromtimestamp((uuid.int >> 80) / 1000, UTC)


def kit_role_name(prefix: str, tenant_id: UUID, suffix: str = "") -> str:
    """Return the default name of a tenant's role.

    It consists of the prefix, eight hex digits of the tenant's id, and `suffix`
    (PermissionSets.suffix). Two tenants may share an AWS account, so the name contains digits of
    the tenant. They are the last eight, because a UUIDv7 begins with the time, and tenants created
    in the same minute share those digits.
    """
    return f"{prefix}{tenant_id.hex[-TENANT_DIGITS:]}{suffix}"


def stack_name(prefix: str, name: str) -> str:
    """Return a stack's name that begins with the role prefix, as far as CloudFormation allows it.

    A stack's name has letters, digits and hyphens, and begins with a letter. IAM allows more, and
    the prefix may be empty.
    """
    plain = re.sub(r"[^A-Za-z0-9-]", "-", prefix)
    return f"{plain}{name}" if plain[:1].isalpha() else f"deputy-{plain.lstrip('-')}{name}"


def kit_stack_names(prefix: str, tenant_id: UUID, suffix: str) -> tuple[str, str]:
    """Return the default names of a tenant's stack and of its organisation's stack."""
    own = stack_name(prefix, kit_role_name("", tenant_id, suffix))
    return own, f"{own}-organization"


@dataclass(frozen=True, slots=True)
class RoleArn:
    """The parts of an IAM role's ARN."""

    text: str
    partition: str
    account_id: AccountId
    path: str
    name: str

    @classmethod
    def parse(cls, text: str) -> "RoleArn":
        """Accept the ARN of a role.

        Raises ValueError that says what is wrong with other text.
        """
        if len(text) > _ROLE_ARN_MAX:
            raise ValueError(f"A role ARN has at most {_ROLE_ARN_MAX} characters.")
        match = _ROLE_ARN.fullmatch(text)
        if match is None or len(match["path"]) > _PATH_MAX:
            raise ValueError(
                "This is not the ARN of an IAM role (arn:aws:iam::<12 digits>:role/<name>)."
            )
        partition, account, path, name = match.groups()
        return cls(text, partition, AccountId(account), path, name)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Grant:
    """The pair that opens a customer's account. `app.aws.sts` accepts nothing else.

    Both halves are required. Only `Connection.grant` makes one, from one row, whose foreign key
    ties the role to the same tenant's External ID. So a caller's string can never become a grant.
    An AST test checks that.
    """

    role_arn: RoleArn
    external_id: ExternalId


def new_external_id() -> ExternalId:
    """Return `dpy-` and 64 hex digits from 256 random bits.

    This is within STS's alphabet and length (2 to 1,224).
    """
    return ExternalId(f"dpy-{secrets.token_hex(32)}")


def foreign_external_id(own: ExternalId) -> ExternalId:
    """Return a foreign External ID for a proof: `own` with random middle 32 hex digits.

    It was never issued to anybody. It keeps the first and the last 16 digits. So a trust policy
    that compares only a prefix, a suffix or a pattern of `?` accepts it, and this one call detects
    that.
    """
    digits = own.removeprefix("dpy-")
    while True:
        middle = secrets.token_hex(16)
        if middle != digits[16:48]:
            return ExternalId(f"dpy-{digits[:16]}{middle}{digits[48:]}")
