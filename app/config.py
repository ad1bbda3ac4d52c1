"""The settings: environment variables, read once and only here, as one frozen object.

All invalid variables are reported together, and the process does not start. No setting turns a
safeguard off. Secrets may come from a file: `DEPUTY_SECRET_KEYS_FILE=/run/secrets/keys` instead of
`DEPUTY_SECRET_KEYS`. boto3 reads AWS's own variables (credentials, AWS_ENDPOINT_URL) itself. Of
those, this module reads only the region.
"""

import inspect
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from app import metrics
from app.ids import AccountId, Broker, RoleArn
from app.settings import valid_values as valid
from app.settings.likely_mistakes import likely_mistakes
from app.settings.reading import read_setting
from app.settings.return_urls import ReturnUrl, return_urls
from app.settings.setting_types import collect_settings, groups_of, setting
from app.settings.vendor_look import Logo, accent, logo


class ConfigError(Exception):
    """One or more settings are missing or invalid. The message has one line for each of them."""


@dataclass(frozen=True, kw_only=True)
class VendorConfig:
    """The vendor's name and look, its permission sets, and addresses of its product."""

    vendor_name: str = setting(valid.vendor_name, "Your name, as customers see it.")
    vendor_name_ascii: str | None = setting(
        valid.matches(valid.VENDOR_NAME_ASCII),
        "Your name in customers' AWS accounts, where AWS accepts ASCII alone.",
        None,
        unset="made from the name",
    )
    permission_sets: Path | None = setting(
        valid.folder, "Folder of your own permission sets.", None, unset="the examples"
    )
    default_permission_set: str | None = setting(
        str,
        "Permission set for requests that name none.",
        None,
        unset="`inventory`, or your only set",
    )
    vendor_url: str | None = setting(
        valid.http_url, "Address at which customers sign in to your product.", None
    )
    support_url: str | None = setting(
        valid.http_url, "Address of your support, in the footer of the onboarding page.", None
    )
    privacy_url: str | None = setting(
        valid.http_url, "Address of your privacy policy, in the same footer.", None
    )
    vendor_logo: Logo | None = setting(logo, "Your logo on the onboarding page.", None)
    vendor_color: str | None = setting(
        accent, "Colour of buttons and marks on the onboarding page.", None
    )
    return_urls: tuple[ReturnUrl, ...] = setting(
        return_urls,
        "Addresses to which the onboarding page may lead back, with all that is below them.",
        (),
        unset="none",
    )

    @property
    def vendor_in_aws(self) -> str:
        """The vendor's name in templates, and in descriptions and tags of roles."""
        return self.vendor_name_ascii or valid.ascii_form(self.vendor_name)


@dataclass(frozen=True, kw_only=True)
class AwsConfig:
    """The settings about AWS: region, broker, bucket, topic and queue, and limits for roles."""

    region: str = setting(
        valid.region,
        "Region whose STS is used, and the default region of launch links.",
        variable="AWS_REGION",
    )
    broker: Broker = setting(
        Broker.parse,
        "IAM role or user that Deputy acts as, and that customers' roles trust.",
        variable="DEPUTY_BROKER_PRINCIPAL_ARN",
    )
    template_bucket: str = setting(
        valid.matches(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
        "S3 bucket in `AWS_REGION` to which templates are published.",
    )
    role_prefix: str = setting(
        valid.matches(r"[\w+=,.@-]{0,50}"),
        "Prefix of customers' role names; others are refused.",
        "deputy-",
    )
    imported_role_names: frozenset[str] = setting(
        valid.role_names,
        "Names without that prefix that imported roles may have.",
        frozenset(),
        unset="none",
    )
    max_session_seconds: int = setting(
        valid.between(valid.SESSION_MIN, valid.SESSION_MAX),
        "Longest session, in seconds.",
        valid.ROLE_CHAINING_MAX,
    )
    # from_environment adds the broker's account
    vendor_account_ids: frozenset[AccountId] = setting(
        valid.account_ids,
        "More AWS accounts of yours, in which no role is ever assumed.",
        frozenset(),
    )
    registration_topic_arns: tuple[str, ...] = setting(
        valid.topics,
        "SNS topics through which customers' stacks register their roles, one in each region.",
        (),
        variable="DEPUTY_REGISTRATION_TOPIC_ARN",
        unset="none",
    )
    registration_queue_url: str | None = setting(
        valid.http_url, "SQS queue in which the background worker receives registrations.", None
    )
    console_url: str | None = setting(
        valid.console_url, "AWS console that launch links open.", None, unset="AWS's own"
    )

    @property
    def registration_topics(self) -> dict[str, str]:
        """The topics' ARNs by region. The first region is the default of launch links.

        CloudFormation requires the SNS topic to be in the stack's region. So in other regions no
        stack can register its role itself.
        """
        return {arn.split(":")[3]: arn for arn in self.registration_topic_arns}

    @property
    def registration_queue_region(self) -> str:
        """The region in the queue's URL, or `region` for a URL that is not AWS's own."""
        host = urlsplit(self.registration_queue_url or "").hostname or ""
        regions = (label for label in host.split(".") if re.fullmatch(valid.REGION, label))
        return next(regions, self.region)


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """The settings about this service: its address, its proxies and its log."""

    public_url: str = setting(
        valid.public_url,
        "Address of this service, with which onboarding links begin.",
        "http://localhost:8000",
    )
    proxy_hops: int = setting(
        valid.between(0, 10), "Proxies in front that append to `X-Forwarded-For`.", 0
    )
    body_seconds: int = setting(
        valid.between(1, 60), "Seconds for a request's header, and again for its body.", 10
    )
    bootstrap_key: str | None = setting(
        str, "API key that `keys bootstrap` installs.", None, secret=True
    )
    webhook_allowed_networks: tuple[valid.Network, ...] = setting(
        valid.networks,
        "Networks of your own for your webhook endpoints: private addresses, http and any port.",
        (),
        unset="none",
    )
    metrics_bind: tuple[str, int] | None = setting(
        metrics.address, "Address at which Prometheus reads metrics.", None
    )
    log_level: str = setting(
        valid.matches("DEBUG|INFO|WARNING|ERROR"), "Lowest level of messages in the log.", "INFO"
    )

    @cached_property
    def public_path(self) -> str:
        """The path of the public URL: empty, or with a leading and without a trailing slash."""
        return urlsplit(self.public_url).path


@dataclass(frozen=True, kw_only=True)
class DatabaseConfig:
    """The database, the shared cache, the secret keys, and the retention."""

    database_url: str = setting(valid.database_url, "Database of all processes.", secret=True)
    secret_keys: tuple[str, ...] = setting(
        valid.secret_keys,
        "Keys that sign cursors and tokens, and encrypt cached sessions.",
        secret=True,
    )
    cache_url: str | None = setting(
        valid.cache_url,
        "Redis or Valkey in which all processes share sessions and rate limits.",
        None,
        secret=True,
    )
    audit_retention_days: int = setting(
        valid.retention_days, "Days for which audit events are kept; 0 keeps all.", 400
    )


@dataclass(frozen=True, kw_only=True)
class ProofConfig:
    """How often connections are proven, and which of the vendor's own roles are used for it."""

    reprove_every: int = setting(
        valid.between(5, valid.WEEK), "Seconds between two proofs of a connection.", 3600
    )
    proof_max_age: int = setting(
        valid.between(5, valid.WEEK), "Seconds for which a proof allows issuing.", valid.DAY
    )
    sts_budget: int = setting(
        valid.between(1, 10_000), "Calls to STS for proofs in the background, per second.", 100
    )
    canary_role_arn: RoleArn | None = setting(
        RoleArn.parse, "Role of yours with which Deputy tests its proofs.", None
    )
    stranger_role_arn: RoleArn | None = setting(
        RoleArn.parse, "Role of yours that every customer's role must refuse.", None
    )

    @property
    def own_roles(self) -> tuple[RoleArn | None, RoleArn | None]:
        """The vendor's own roles that proofs use: the canary and the stranger."""
        return self.canary_role_arn, self.stranger_role_arn

    @property
    def routine_calls(self) -> int:
        """The calls to STS that a routine proof makes.

        It makes one more as the stranger, whose refusal counts only beside a canary.
        """
        return 4 if self.stranger_role_arn and self.canary_role_arn else 3


@dataclass(frozen=True, kw_only=True)
class LimitConfig:
    """The settings of rate limits and quotas."""

    issue_rate: int = setting(
        valid.between(1, 100_000), "Requests for credentials, per API key and second.", 200
    )
    tenant_issue_rate: int = setting(
        valid.between(1, 500_000),
        "Requests for credentials, per tenant and second.",
        0,
        unset="5 times `DEPUTY_ISSUE_RATE`",
    )
    tenant_miss_rate: int = setting(
        valid.between(2, 10_000), "Calls to STS for sessions, per tenant and second.", 100
    )
    tenant_revokes: int = setting(
        valid.between(1, 100),
        "Keys and links created, keys replaced and suspensions ended by a tenant's keys, per"
        " second.",
        5,
    )
    connection_rate: int = setting(
        valid.between(1, 6_000), "Roles tried over HTTP, per tenant and minute.", 120
    )
    link_rate: int = setting(
        valid.between(1, 1_000),
        "Roles entered, checks asked for and searches ended, per onboarding link and hour.",
        20,
    )
    max_connections: int = setting(valid.between(1, 50_000), "Connections, per tenant.", 10_000)
    tenant_keys: int = setting(
        valid.between(1, 100_000), "Live API keys that are bound to one tenant.", 1_000
    )
    tenant_links: int = setting(
        valid.between(1, 10_000), "Live onboarding links of one tenant.", 200
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "tenant_issue_rate", self.tenant_issue_rate or 5 * self.issue_rate)


@dataclass(frozen=True, kw_only=True)
class TemplateConfig:
    """The settings for rendering and publishing templates. `from_environment` creates it."""

    vendor: VendorConfig
    aws: AwsConfig

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Create the configuration from these values. The keywords are the settings' names."""
        for group, kind in groups_of(cls).items():
            names = {part.name for part in fields(kind)} & values.keys()
            values[group] = kind(**{name: values.pop(name) for name in names})
        return cls(**values)

    @classmethod
    def from_environment(cls) -> Self:
        """Read the settings of this class. Raises ConfigError that names every invalid variable."""
        return cls.of(**_read_values(cls, valid.role_chaining, valid.ascii_name))


@dataclass(frozen=True, kw_only=True)
class Config(TemplateConfig):
    """All settings. The minimum and maximum of a number keep it effective as a safeguard."""

    service: ServiceConfig
    database: DatabaseConfig
    proofs: ProofConfig
    limits: LimitConfig
    likely_mistakes: tuple[str, ...] = ()  # one sentence for each likely mistake

    @property
    def own_accounts(self) -> frozenset[AccountId]:
        """The vendor's own accounts: no role in them belongs to a customer."""
        roles = filter(None, self.proofs.own_roles)
        return self.aws.vendor_account_ids | {role.account_id for role in roles}

    @classmethod
    def from_environment(cls) -> Self:
        """Read all settings. Raises ConfigError that names every invalid variable."""
        values = _read_values(
            cls, valid.role_chaining, valid.registration, valid.ascii_name, valid.canary
        )
        variables = [declared.variable for declared in collect_settings(cls).values()]
        mistakes = tuple(likely_mistakes(values, variables, os.environ))  # noqa: TID251
        values["vendor_account_ids"] |= {values["broker"].account_id}
        return cls.of(**values, likely_mistakes=mistakes)


def _read_values(config: Any, *rules: Callable[..., Iterator[str]]) -> dict[str, Any]:
    """Read all settings of the class `config`, and return their values by name.

    Each rule reports conflicts between the settings that its parameters name. Raises ConfigError
    that names every invalid variable.
    """
    environment = dict(os.environ)  # noqa: TID251  this is app/config.py
    environment["AWS_REGION"] = environment.get("AWS_REGION") or environment.get(
        "AWS_DEFAULT_REGION", ""
    )
    values, problems = {}, []
    for name, declared in collect_settings(config).items():
        try:
            values[name] = read_setting(environment, declared)
        except ValueError as error:
            problems.append(f"{declared.variable}: {error}")
    problems.sort()
    for rule in rules:
        names = inspect.signature(rule).parameters
        if names.keys() <= values.keys():
            problems += rule(**{name: values[name] for name in names})
    if problems:
        raise ConfigError("\n".join(problems))
    return values
