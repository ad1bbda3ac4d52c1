r"""The values that authorization depends on: External IDs, role ARNs, and grants of the two.

Strings from outside are parsed once, in this module. Later code relies on a `RoleArn` being valid.
Use `re.ASCII` and `fullmatch` in every pattern: without them, `\d` also matches other scripts'
digits, and `$` allows a trailing newline.
"""

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, NewType
from uuid import UUID

from uuid_utils.compat import uuid7

AccountId = NewType("AccountId", str)  # twelve ASCII digits
ExternalId = NewType("ExternalId", str)  # made by new_external_id, or imported

ACCESS_KEY_ID = re.compile(r"[A-Z0-9]{16,128}", re.ASCII)  # the form of AWS's access key ids
EXTERNAL_ID_PATTERN = r"dpy-[0-9a-f]{64}"
EXTERNAL_ID_PREFIX = "dpy-"  # reserved: no imported External ID begins with it
EXTERNAL_ID_MAX = 1224  # AWS's limit for sts:ExternalId, in characters
# AWS's own pattern for the parameter ExternalId of AssumeRole
IMPORTED_EXTERNAL_ID = re.compile(rf"[\w+=,.@:/-]{{2,{EXTERNAL_ID_MAX}}}", re.ASCII)
_FOREIGN_ENDS = 20  # characters kept at each end of Deputy's own External IDs
_FOREIGN_DIGITS = 16  # random characters between the kept ends of imported External IDs
ACCOUNT_ID = re.compile(r"[0-9]{12}", re.ASCII)
ROLE_NAME_MAX = 64
TENANT_DIGITS = 8  # the digits of a tenant's id in the names of its role and its stack

# IAM's alphabet for role names and paths, and STS's length for RoleArn (20 to 2,048 characters).
_ROLE_ARN = re.compile(
    r"arn:(?P<partition>aws(?:-[a-z0-9]+)*):iam::(?P<account>[0-9]{12}):role"
    r"(?P<path>/(?:[!-.0-~]+/)*)(?P<name>[\w+=,.@-]{1,64})",
    re.ASCII,
)
# Other regex dialects write named groups differently, so this pattern has none.
ROLE_ARN_PATTERN = re.sub(r"\?P<\w+>", "?:", _ROLE_ARN.pattern)
_PRINCIPAL = re.compile(
    r"arn:(?P<partition>aws(?:-[a-z0-9]+)*):iam::(?P<account>[0-9]{12}):(?P<kind>role|user)"
    r"/(?P<path>(?:[!-.0-~]+/)*)(?P<name>[\w+=,.@-]{1,64})",
    re.ASCII,
)
_ROLE_ARN_MAX = 2048
_PATH_MAX = 512


def new_id() -> UUID:
    """Return a new UUIDv7, without a request to the database.

    Ids sort in order of creation. Pagination relies on that.
    """
    return uuid7()


def first_id_at(time: datetime) -> UUID:
    """Return the lowest id that `new_id` can return at this time or later, to the millisecond."""
    return UUID(int=max(0, int(time.timestamp() * 1000)) << 80)


def time_of(uuid: UUID) -> datetime:
    """Return the time when `new_id` made this id, to the millisecond."""
    return datetime.fromtimestamp((uuid.int >> 80) / 1000, UTC)


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

        Raises ValueError, with the reason, for any other text.
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


class Broker(NamedTuple):
    """The vendor's AWS principal that customers' roles trust.

    It is an IAM role or, less often, an IAM user.
    """

    arn: str
    partition: str
    account_id: AccountId
    is_role: bool
    name: str

    @classmethod
    def parse(cls, text: str) -> "Broker":
        """Accept the ARN of a role or a user.

        Raises ValueError for any other text.
        """
        arn = _PRINCIPAL.fullmatch(text)
        if arn is None:
            raise ValueError("must be the ARN of an IAM role or an IAM user.")
        # Trust policies compare the ARN with ArnEquals, which reads * and ? as wildcards and ${…}
        # as a variable. IAM accepts all three in paths.
        if re.search("[*?$]", text):
            raise ValueError(
                "must not hold *, ? or $: in trust policies they would let in other principals."
            )
        account_id = AccountId(arn["account"])
        return cls(text, arn["partition"], account_id, arn["kind"] == "role", arn["name"])


@dataclass(frozen=True, slots=True)
class Grant:
    """The role and the External ID that open a customer's account.

    `app.aws.sts` accepts nothing else. Only `Connection.grant_with` creates grants, from a
    connection's row and an External ID of the same tenant. A caller's string can therefore never
    become a grant. An AST test checks that. `tenant_id`: that tenant's; AWS does not get it.
    """

    role_arn: RoleArn
    external_id: ExternalId
    tenant_id: UUID


def new_external_id() -> ExternalId:
    """Return a new External ID: `dpy-` and 64 hex digits, which are 256 random bits.

    STS accepts its alphabet and its length (2 to 1,224 characters).
    """
    return ExternalId(f"{EXTERNAL_ID_PREFIX}{secrets.token_hex(32)}")


def foreign_external_id(own: ExternalId) -> ExternalId:
    """Return a foreign External ID for a proof. It was never given to anybody.

    If `own` was made by Deputy, the result has the same length, and the same first and last 20
    characters. A trust policy that compares only a prefix, a suffix or a pattern of `?` accepts it.
    So one call detects all three mistakes.

    If `own` was imported, it may be short. The result begins with all but its last character, and
    ends with all but its first character. So one call detects a policy that compares a prefix, a
    suffix or a `*part*`, but not a pattern of `?`.
    """
    is_ours = own.startswith(EXTERNAL_ID_PREFIX)
    kept = _FOREIGN_ENDS if is_ours else min(len(own) - 1, (EXTERNAL_ID_MAX - _FOREIGN_DIGITS) // 2)
    digits = len(own) - 2 * kept if is_ours else _FOREIGN_DIGITS
    while True:
        foreign = f"{own[:kept]}{secrets.token_hex(digits)[:digits]}{own[-kept:]}"
        if foreign != own:
            return ExternalId(foreign)
