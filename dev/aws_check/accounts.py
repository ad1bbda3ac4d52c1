"""The operator's AWS accounts, and what is checked before anything is created in them."""

from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

_PATIENT = Config(
    connect_timeout=10, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 5}
)


class CheckError(Exception):
    """The check can't continue. The message tells the operator why."""


class Account:
    """One account, and the operator's identity in it.

    `part` is the account's purpose: VENDOR, CUSTOMER or CANARY.
    """

    def __init__(self, part: str, session: Any) -> None:
        self.part, self.session = part, session
        self._clients: dict[str, Any] = {}
        try:
            identity = self.client("sts").get_caller_identity()
        except (BotoCoreError, ClientError) as error:
            self.close()
            raise CheckError(f"{part}: AWS does not know us: {error}") from error
        self.id, self.arn, self.user_id = identity["Account"], identity["Arn"], identity["UserId"]

    @classmethod
    def of_profile(cls, part: str, profile: str, region: str | None) -> "Account":
        try:
            session = boto3.session.Session(profile_name=profile, region_name=region)
        except BotoCoreError as error:  # no such profile
            raise CheckError(f"{part}={profile}: {error}") from error
        if session.region_name is None:
            raise CheckError(
                f'{part}={profile}: the profile has no region. Choose one: ARGS="--region'
                ' eu-west-1"'
            )
        return cls(part, session)

    @property
    def partition(self) -> str:
        return str(self.arn.split(":")[1])

    @property
    def region(self) -> str:
        return str(self.session.region_name)

    def client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self.session.client(service, config=_PATIENT)
        return self._clients[service]

    def environment(self) -> dict[str, str]:
        """Return the account's current credentials for another process."""
        keys = self.session.get_credentials().get_frozen_credentials()
        return {
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            "AWS_SESSION_TOKEN": keys.token or "",
        }

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()


def session_of(credentials: Mapping[str, str], region: str) -> boto3.session.Session:
    """Build a session from an answer of AssumeRole or Deputy's API."""
    return boto3.session.Session(
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
        region_name=region,
    )


def ensure_fit(accounts: list[Account]) -> None:
    """Check that the accounts fit the check.

    Raises CheckError if they do not.
    """
    if len({account.id for account in accounts}) < len(accounts):
        same = ", ".join(f"{account.part} is {account.id}" for account in accounts)
        raise CheckError(f"Each profile must be of an account of its own: {same}.")
    if len({account.partition for account in accounts}) > 1:
        raise CheckError(
            "The profiles must be of one partition: no role of another one can be assumed."
        )
    if accounts[0].arn.endswith(":root"):
        raise CheckError(
            "VENDOR: AWS lets no root user assume a role. Use an IAM user or a role that may"
            " administer."
        )


_BLOCKED = (
    "VENDOR: S3's Block Public Access of the whole account ({}) refuses a bucket whose templates"
    " customers can read. broker.yaml fails in this account: use another one, or change that"
    " setting (S3, Block Public Access settings for this account)."
)


def ensure_public_templates(vendor: Account) -> str | None:
    """Check that the account allows public buckets. Return the reason if that is unknown.

    Raises CheckError if the account blocks them.
    """
    try:
        answer = vendor.client("s3control").get_public_access_block(AccountId=vendor.id)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        return None if code == "NoSuchPublicAccessBlockConfiguration" else f"AWS answers {code}"
    except BotoCoreError as error:
        return type(error).__name__
    for name in ("BlockPublicPolicy", "RestrictPublicBuckets"):
        if answer["PublicAccessBlockConfiguration"].get(name):
            raise CheckError(_BLOCKED.format(name))
    return None
