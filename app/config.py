"""The settings: environment variables read once, here and nowhere else, into one frozen object.

Strict: every bad variable is reported, all at once, and the process doesn't start. No setting turns a safeguard
off. Secrets may come from a file: `DEPUTY_SECRET_KEYS_FILE=/run/secrets/keys` instead of `DEPUTY_SECRET_KEYS`.
AWS's own variables (credentials, AWS_ENDPOINT_URL) are boto3's to read; only the region is needed here too.
"""

import os
import re
from dataclasses import dataclass, field, fields
from typing import Any, cast
from urllib.parse import urlsplit

import environs
from marshmallow import ValidationError

from app.ids import AccountId
from app.settings import checks as check
from app.settings.doubts import local_address, unknown_variables, weak_keys
from app.settings.vendor_name import NAME_MAX, ascii_form, stands_for_the_name

_PRINCIPAL = re.compile(
    r"arn:(?P<partition>aws(?:-[a-z0-9]+)*):iam::(?P<account>[0-9]{12}):(?P<kind>role|user)"
    r"/(?P<path>(?:[!-.0-~]+/)*)(?P<name>[\w+=,.@-]{1,64})",
    re.ASCII,
)
ROLE_CHAINING_MAX = 3600  # seconds; AWS's limit for a caller that is itself an assumed role


_LIMITS = (
    "sts_budget",
    "issue_rate",
    "connection_rate",
    "max_connections",
    "link_rate",
    "tenant_keys",
    "tenant_links",
    "tenant_miss_rate",
    "tenant_revokes",
)


class ConfigError(Exception):
    """One or more settings are missing or wrong; the message has a line for each."""


@dataclass(frozen=True, slots=True)
class Broker:
    """The vendor's AWS principal that customers' roles trust: an IAM role (the usual case) or an IAM user."""

    arn: str
    partition: str
    account_id: AccountId
    is_role: bool
    name: str

    @classmethod
    def parse(cls, text: str) -> "Broker":
        found = _PRINCIPAL.fullmatch(text)
        if found is None:
            raise ValidationError("must be the ARN of an IAM role or an IAM user.")
        # Trust policies compare it with ArnEquals, which reads the first two as patterns and ${…} as a variable. IAM
        # takes all three in paths.
        if any(character in text for character in "*?$"):
            raise ValidationError("must not hold *, ? or $: in trust policies they would let in other principals.")
        return cls(
            arn=text,
            partition=found["partition"],
            account_id=AccountId(found["account"]),
            is_role=found["kind"] == "role",
            name=found["name"],
        )


@dataclass(frozen=True, slots=True)
class Config:
    """All settings. Times are in seconds. Made by `Config.from_environment`."""

    database_url: str = field(repr=False)  # it may hold a password
    secret_keys: tuple[str, ...] = field(repr=False)  # the first signs, all verify
    broker: Broker
    vendor_account_ids: frozenset[AccountId]
    vendor_name: str
    template_bucket: str
    region: str
    cache_url: str | None = field(default=None, repr=False)  # it may hold a password
    celery_url: str | None = field(default=None, repr=False)  # Celery's; it may hold a password
    public_url: str = "http://localhost:8000"
    vendor_name_ascii: str | None = None
    vendor_url: str | None = None
    console_url: str | None = None
    role_prefix: str = "deputy-"
    max_session_seconds: int = ROLE_CHAINING_MAX
    sts_budget: int = 100  # calls a second for proofs in the background, of all tenants together
    issue_rate: int = 200  # requests for credentials, per key and second
    tenant_issue_rate: int = 1000  # the same per tenant and second; five times ISSUE_RATE unless set
    tenant_miss_rate: int = 100  # calls to STS for sessions of one tenant, per second; bursts of five seconds' worth
    tenant_revokes: int = (
        5  # changes by its keys that stop issuing, per tenant and second; bursts of four seconds' worth
    )
    connection_rate: int = 120  # connections and verifications over HTTP, per tenant and minute
    max_connections: int = 10_000  # per tenant
    tenant_keys: int = 1_000  # live API keys that are bound to one tenant
    tenant_links: int = 200  # live onboarding links of one tenant
    link_rate: int = 20  # roles entered, and checks asked for, per onboarding link and hour
    body_seconds: int = 10  # from a request's header to the end of its body; and for the header
    registration_topic_arn: str | None = None  # with the queue or not at all
    registration_queue_url: str | None = None
    bootstrap_key: str | None = field(default=None, repr=False)
    proxy_hops: int = 0  # proxies in front, each of which appends whom it sees to X-Forwarded-For
    log_level: str = "INFO"
    doubts: tuple[str, ...] = ()  # what looks like a mistake, a sentence each

    @property
    def public_path(self) -> str:
        """Of the public URL: empty, or with a slash in front and none behind."""
        return urlsplit(self.public_url).path

    @property
    def vendor_in_aws(self) -> str:
        """The vendor's name in templates, and in descriptions and tags of roles."""
        return self.vendor_name_ascii or ascii_form(self.vendor_name)

    @property
    def proofs_a_second(self) -> int:
        """How many proofs the STS budget allows: one makes five calls, and hardly ever a sixth."""
        return max(1, self.sts_budget // 5)

    @property
    def registration_region(self) -> str | None:
        """The one region whose stacks can register by themselves: CloudFormation demands that the topic is there."""
        return self.registration_topic_arn.split(":")[3] if self.registration_topic_arn else None

    @classmethod
    def from_environment(cls) -> "Config":
        """Raises ConfigError that names every bad variable."""
        env, defaults = _Environment(), _defaults(cls)
        with env.prefixed("DEPUTY_"):
            values: dict[str, Any] = {
                "database_url": env.str("DATABASE_URL", validate=check.database_url),
                "cache_url": env.str("CACHE_URL", None, validate=check.cache_url),
                "celery_url": env.str("CELERY_URL", None, validate=check.celery_url),
                "secret_keys": env.list("SECRET_KEYS", validate=check.secret_keys),
                "broker": env.str("BROKER_PRINCIPAL_ARN", validate=Broker.parse),
                "vendor_account_ids": env.list("VENDOR_ACCOUNT_IDS", [], validate=check.account_ids),
                "vendor_name": env.str("VENDOR_NAME", validate=check.vendor_name),
                "vendor_name_ascii": env.str("VENDOR_NAME_ASCII", None, validate=check.ascii_or_nothing),
                "template_bucket": env.str(
                    "TEMPLATE_BUCKET", validate=check.matches(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
                ),
                "public_url": env.str("PUBLIC_URL", "http://localhost:8000", validate=check.public_url),
                "vendor_url": env.str("VENDOR_URL", None, validate=check.http_url_or_nothing),
                "console_url": env.str("CONSOLE_URL", None, validate=check.http_url_or_nothing),
                "role_prefix": env.str("ROLE_PREFIX", "deputy-", validate=check.matches(r"[\w+=,.@-]{0,50}")),
                "bootstrap_key": env.str("BOOTSTRAP_KEY", None),
                "log_level": env.str("LOG_LEVEL", "INFO", validate=check.matches("DEBUG|INFO|WARNING|ERROR")),
            }
            values |= _numbers(env, defaults) | _registrations(env)
        region = env.str("AWS_REGION", None) or env.str("AWS_DEFAULT_REGION", None)
        endpoint = env.str("AWS_ENDPOINT_URL", None)  # boto3's; a sandbox's tells that no customer is near
        problems = env.problems() + env.renamed()
        if not region or not re.fullmatch(check.REGION, region):
            problems.append("AWS_REGION: must name the region whose STS endpoint is used, such as eu-west-1.")
        if _chained_too_long(values["broker"], values["max_session_seconds"]):
            problems.append(_CHAINED_TOO_LONG)
        problems += _registration_problems(values, problems) + _name_problems(values, problems)
        if problems or not region:
            raise ConfigError("\n".join(problems))
        doubts = env.unknown() + weak_keys(values["secret_keys"]) + local_address(values["public_url"], endpoint)
        return cls(**_typed(values), region=region, doubts=tuple(doubts))


def _numbers(env: environs.Env, defaults: dict[str, Any]) -> dict[str, Any]:
    limits = {name: env.int(name.upper(), defaults[name], validate=check.positive) for name in _LIMITS}
    return limits | {
        "tenant_issue_rate": env.int("TENANT_ISSUE_RATE", None, validate=check.positive_or_nothing),
        "max_session_seconds": env.int("MAX_SESSION_SECONDS", ROLE_CHAINING_MAX, validate=check.session_seconds),
        "proxy_hops": env.int("PROXY_HOPS", 0, validate=check.hops),
        "body_seconds": env.int("BODY_SECONDS", defaults["body_seconds"], validate=check.body_seconds),
    }


def _registrations(env: environs.Env) -> dict[str, Any]:
    return {
        "registration_topic_arn": env.str("REGISTRATION_TOPIC_ARN", None, validate=check.topic_or_nothing),
        "registration_queue_url": env.str("REGISTRATION_QUEUE_URL", None, validate=check.http_url_or_nothing),
    }


def _defaults(settings: Any) -> dict[str, Any]:
    return {setting.name: setting.default for setting in fields(settings)}


_RENAMED = {
    "DEPUTY_BROKER_URL": "DEPUTY_CELERY_URL",  # the broker is the AWS principal that customers' roles trust
    "DEPUTY_BROKER_URL_FILE": "DEPUTY_CELERY_URL_FILE",
}


class _Environment(environs.FileAwareEnv):
    """Reads variables and the files that `…_FILE` names, and keeps every problem until it is asked for them."""

    def __init__(self) -> None:
        super().__init__(eager=False, strip_whitespace=True)  # files end with a line feed, secrets don't
        self._unreadable: list[str] = []
        self._known: set[str] = set()

    def _get_value(self, env_key: str, default: Any) -> Any:
        self._known.add(env_key)
        try:
            return super()._get_value(env_key, default)
        except ValueError:
            self._unreadable.append(env_key)
            return default

    def unknown(self) -> list[str]:
        """A sentence for each variable of ours that nobody asked for."""
        return unknown_variables(os.environ, self._known)  # noqa: TID251  this is app/config.py

    def renamed(self) -> list[str]:
        """A line for each variable that is set under its old name."""
        return [f"{old}: this setting is called {new} now." for old, new in _RENAMED.items() if old in os.environ]  # noqa: TID251

    def problems(self) -> list[str]:
        """One line for each bad variable, by name."""
        found = {name: [f"{name}_FILE must name a file that can be read."] for name in self._unreadable}
        try:
            self.seal()
        except environs.EnvValidationError as error:
            found = cast("dict[str, list[str]]", error.error_messages) | found
        return [f"{name}: {' '.join(messages)}" for name, messages in sorted(found.items())]


_CHAINED_TOO_LONG = (
    f"DEPUTY_MAX_SESSION_SECONDS: at most {ROLE_CHAINING_MAX} while DEPUTY_BROKER_PRINCIPAL_ARN is a role: AWS calls"
    " that role chaining and gives such a caller one hour."
)


def _chained_too_long(broker: Any, seconds: Any) -> bool:
    """Whether a broker that is a role wants more than AWS gives it; False while either value is bad by itself."""
    try:
        return Broker.parse(broker).is_role and int(seconds) > ROLE_CHAINING_MAX
    except (TypeError, ValueError):  # marshmallow's ValidationError is a ValueError
        return False


_FOREIGN_TOPIC = (
    "must be in the account of DEPUTY_BROKER_PRINCIPAL_ARN: customers' templates take no other account's topics."
)


def _registration_problems(values: dict[str, Any], known: list[str]) -> list[str]:
    """What is wrong with topic and queue together, or with topic and broker, when each is good by itself."""
    if any(problem.startswith("DEPUTY_REGISTRATION_") for problem in known):
        return []
    topic, queue = values["registration_topic_arn"], values["registration_queue_url"]
    if bool(topic) != bool(queue):
        missing = "DEPUTY_REGISTRATION_QUEUE_URL" if topic else "DEPUTY_REGISTRATION_TOPIC_ARN"
        return [f"{missing}: the topic and the queue belong together; set both or neither."]
    found = check.TOPIC.fullmatch(topic or "")
    broker = _PRINCIPAL.fullmatch(values["broker"] or "")
    if found and broker and broker["partition"] != found["partition"]:
        return ["DEPUTY_REGISTRATION_TOPIC_ARN: must be in the partition of DEPUTY_BROKER_PRINCIPAL_ARN."]
    if found and broker and broker["account"] != found["account"]:
        return [f"DEPUTY_REGISTRATION_TOPIC_ARN: {_FOREIGN_TOPIC}"]
    return []


_NO_ASCII = (
    "must be set, to the name that customers see in their AWS accounts: AWS takes ASCII alone in some places, and there"
    f" a name has 2 letters at least and {NAME_MAX} characters at most."
)


def _name_problems(values: dict[str, Any], known: list[str]) -> list[str]:
    """What is wrong with the name's ASCII form, when the name is good by itself and no other form is given."""
    if values["vendor_name_ascii"] or any(problem.startswith("DEPUTY_VENDOR_NAME") for problem in known):
        return []
    form = ascii_form(values["vendor_name"])
    if stands_for_the_name(form):
        return []
    return [f"DEPUTY_VENDOR_NAME_ASCII: {_NO_ASCII} What is left of DEPUTY_VENDOR_NAME is {form!r}."]


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    """The parsed values in their own types."""
    broker = Broker.parse(values["broker"])
    accounts = {broker.account_id, *values["vendor_account_ids"]}
    return values | {
        "broker": broker,
        "secret_keys": tuple(values["secret_keys"]),
        "vendor_account_ids": frozenset(AccountId(account) for account in accounts),
        "public_url": values["public_url"].rstrip("/"),
        "vendor_name_ascii": values["vendor_name_ascii"] or None,
        "vendor_url": values["vendor_url"] or None,
        "console_url": (values["console_url"] or "").rstrip("/") or None,
        "cache_url": values["cache_url"] or None,
        "tenant_issue_rate": values["tenant_issue_rate"] or 5 * values["issue_rate"],
        "celery_url": values["celery_url"] or None,
        "registration_topic_arn": values["registration_topic_arn"] or None,
        "registration_queue_url": values["registration_queue_url"] or None,
    }
