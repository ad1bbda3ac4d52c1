"""The settings: environment variables read once, here and nowhere else, into one frozen object.

Every bad variable is reported at once, and the process does not start. No setting turns a safeguard off. Secrets may
come from a file: `DEPUTY_SECRET_KEYS_FILE=/run/secrets/keys` instead of `DEPUTY_SECRET_KEYS`. AWS's own variables
(credentials, AWS_ENDPOINT_URL) are boto3's to read; only the region is needed here too.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self, get_type_hints
from urllib.parse import urlsplit

from app import metrics
from app.ids import AccountId, RoleArn
from app.settings import checks as check
from app.settings.likely_mistakes import local_address, unknown_variables, weak_keys
from app.settings.vendor_name import ASCII_PATTERN, NAME_MAX, ascii_form, identifies_vendor

_PRINCIPAL = re.compile(
    r"arn:(?P<partition>aws(?:-[a-z0-9]+)*):iam::(?P<account>[0-9]{12}):(?P<kind>role|user)"
    r"/(?P<path>(?:[!-.0-~]+/)*)(?P<name>[\w+=,.@-]{1,64})",
    re.ASCII,
)
ROLE_CHAINING_MAX = 3600  # seconds; AWS's limit for a caller that is itself an assumed role


class ConfigError(Exception):
    """One or more settings are missing or wrong; the message has a line for each."""


class Broker(NamedTuple):
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
            raise ValueError("must be the ARN of an IAM role or an IAM user.")
        # Trust policies compare it with ArnEquals, which reads the first two as patterns and ${…} as a variable. IAM
        # takes all three in paths.
        if any(character in text for character in "*?$"):
            raise ValueError("must not hold *, ? or $: in trust policies they would let in other principals.")
        return cls(text, found["partition"], AccountId(found["account"]), found["kind"] == "role", found["name"])


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateConfig:
    """The settings that templates are rendered and published from. `from_environment` makes it.

    A setting is declared with what parses its text. Its variable is the field's name in capitals, after `DEPUTY_`,
    unless it names another. Times are in seconds.
    """

    broker: Annotated[Broker, Broker.parse, "DEPUTY_BROKER_PRINCIPAL_ARN"]
    vendor_name: Annotated[str, check.vendor_name]
    template_bucket: Annotated[str, check.matches(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")]
    region: str  # AWS_REGION, or AWS_DEFAULT_REGION
    vendor_name_ascii: Annotated[str | None, check.matches(ASCII_PATTERN)] = None
    permission_sets: Annotated[Path | None, check.folder] = None  # the vendor's own; None: the examples
    default_permission_set: Annotated[str | None, str] = None
    role_prefix: Annotated[str, check.matches(r"[\w+=,.@-]{0,50}")] = "deputy-"
    max_session_seconds: Annotated[int, check.between(900, check.SESSION_MAX)] = ROLE_CHAINING_MAX

    @property
    def vendor_in_aws(self) -> str:
        """The vendor's name in templates, and in descriptions and tags of roles."""
        return self.vendor_name_ascii or ascii_form(self.vendor_name)

    @classmethod
    def from_environment(cls) -> Self:
        """Read the settings. Raises ConfigError that names every bad variable of this class."""
        return cls(**_values(cls, [_chaining, _ascii_name]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(TemplateConfig):
    """All settings."""

    # Those without a repr may hold a password or a key.
    database_url: Annotated[str, check.database_url] = field(repr=False)
    secret_keys: Annotated[tuple[str, ...], check.secret_keys] = field(repr=False)  # the first signs, all verify
    vendor_account_ids: Annotated[frozenset[AccountId], check.account_ids] = frozenset()  # the broker's is added
    metrics_bind: Annotated[tuple[str, int] | None, metrics.address] = None
    cache_url: Annotated[str | None, check.cache_url] = field(default=None, repr=False)
    celery_url: Annotated[str | None, check.celery_url] = field(default=None, repr=False)
    public_url: Annotated[str, check.public_url] = "http://localhost:8000"
    vendor_url: Annotated[str | None, check.http_url] = None
    console_url: Annotated[str | None, check.console_url] = None
    # Each number has bounds within which what it limits is still a safeguard.
    # Calls a second for proofs in the background, of all tenants together.
    sts_budget: Annotated[int, check.between(1, 10_000)] = 100
    # Seconds for which a proof allows issuing, and between two proofs of a connection.
    proof_max_age: Annotated[int, check.between(5, check.WEEK)] = 86_400
    reprove_every: Annotated[int, check.between(5, check.WEEK)] = 3600
    audit_retention_days: Annotated[int, check.retention_days] = 400  # 0: all are kept
    # Requests for credentials, per key and second.
    issue_rate: Annotated[int, check.between(1, 100_000)] = 200
    tenant_issue_rate: Annotated[int, check.between(1, 500_000)] = 0  # per tenant; five times issue_rate unless set
    # Calls to STS for sessions of one tenant, per second; bursts of five seconds' worth.
    tenant_miss_rate: Annotated[int, check.between(1, 10_000)] = 100
    # Keys and links that a tenant's keys make, and suspensions that they end, per second; bursts of four seconds' worth.
    tenant_revokes: Annotated[int, check.between(1, 100)] = 5
    # Connections and verifications over HTTP, per tenant and minute.
    connection_rate: Annotated[int, check.between(1, 6_000)] = 120
    max_connections: Annotated[int, check.between(1, 1_000_000)] = 10_000  # per tenant
    tenant_keys: Annotated[int, check.between(1, 100_000)] = 1_000  # live API keys that are bound to one tenant
    tenant_links: Annotated[int, check.between(1, 10_000)] = 200  # live onboarding links of one tenant
    # Roles entered, and checks asked for, per onboarding link and hour.
    link_rate: Annotated[int, check.between(1, 1_000)] = 20
    # Time limit for a request's header, and from there to the end of its body.
    body_seconds: Annotated[int, check.between(1, 60)] = 10
    registration_topic_arn: Annotated[str | None, check.topic] = None  # with the queue or not at all
    registration_queue_url: Annotated[str | None, check.http_url] = None
    # The roles of cloudformation/canary.yaml, with which proofs are tested.
    canary_role_arn: Annotated[RoleArn | None, RoleArn.parse] = None
    stranger_role_arn: Annotated[RoleArn | None, RoleArn.parse] = None
    bootstrap_key: Annotated[str | None, str] = field(default=None, repr=False)
    # Proxies in front, each of which appends its client's address to X-Forwarded-For.
    proxy_hops: Annotated[int, check.between(0, 10)] = 0
    log_level: Annotated[str, check.matches("DEBUG|INFO|WARNING|ERROR")] = "INFO"
    likely_mistakes: tuple[str, ...] = ()  # what looks like a mistake, a sentence each

    def __post_init__(self) -> None:
        object.__setattr__(self, "tenant_issue_rate", self.tenant_issue_rate or 5 * self.issue_rate)

    @property
    def public_path(self) -> str:
        """Of the public URL: empty, or with a slash in front and none behind."""
        return urlsplit(self.public_url).path

    @property
    def own_accounts(self) -> frozenset[AccountId]:
        """The accounts in which no role is a customer's."""
        roles = self.canary_role_arn, self.stranger_role_arn
        return self.vendor_account_ids | {role.account_id for role in roles if role}

    @property
    def proofs_a_second(self) -> int:
        """How many proofs the STS budget allows: one makes five calls, six with a stranger, and hardly ever one more."""
        return max(1, self.sts_budget // (6 if self.stranger_role_arn else 5))

    @property
    def routine_proofs_a_second(self) -> float:
        """How many routine proofs half of the STS budget allows: one makes three calls, four with a stranger, and some
        need a full proof.
        """
        return self.sts_budget / 2 / (4.3 if self.stranger_role_arn else 3.3)

    @property
    def registration_region(self) -> str | None:
        """The one region whose stacks can register by themselves: CloudFormation demands that the topic is there."""
        return self.registration_topic_arn.split(":")[3] if self.registration_topic_arn else None

    @classmethod
    def from_environment(cls) -> Self:
        """Raises ConfigError that names every bad variable."""
        environment = os.environ  # noqa: TID251  this is app/config.py
        values = _values(cls, [_chaining, _registration, _ascii_name, _canary])
        mistakes = unknown_variables(environment, {variable for variable, _, _ in _settings(cls).values()})
        mistakes += weak_keys(values["secret_keys"])
        mistakes += local_address(values["public_url"], environment.get("AWS_ENDPOINT_URL"))  # a sandbox's is local too
        mistakes += [_NO_CANARY] if values["stranger_role_arn"] and not values["canary_role_arn"] else []
        values["vendor_account_ids"] |= {values["broker"].account_id}
        return cls(**values, likely_mistakes=tuple(mistakes))


# The broker is the AWS principal that customers' roles trust.
_RENAMED = {"DEPUTY_BROKER_URL": "DEPUTY_CELERY_URL", "DEPUTY_BROKER_URL_FILE": "DEPUTY_CELERY_URL_FILE"}


def _values(config: Any, rules: Iterable[Callable[[Mapping[str, Any]], Iterator[str]]]) -> dict[str, Any]:
    """Return the value of each of that class's settings. `rules` name what is wrong with several together.

    Raises ConfigError that names every bad variable.
    """
    environment = os.environ  # noqa: TID251  this is app/config.py
    values, bad = {}, []
    for name, (variable, parse, default) in _settings(config).items():
        try:
            values[name] = _parsed(environment, variable, parse, default)
        except ValueError as error:
            values[name] = MISSING
            bad.append(f"{variable}: {error}")
    problems = sorted(bad)
    problems += [f"{old}: this setting is called {new} now." for old, new in _RENAMED.items() if old in environment]
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION", "")
    if not re.fullmatch(check.REGION, region):
        problems.append("AWS_REGION: must name the region whose STS endpoint is used, such as eu-west-1.")
    problems += [problem for rule in rules for problem in rule(values)]
    if problems:
        raise ConfigError("\n".join(problems))
    return values | {"region": region}


def _settings(config: Any) -> dict[str, tuple[str, Callable[[str], Any], Any]]:
    """For each setting of that class: its variable, what parses its text, and its default or MISSING."""
    hints = get_type_hints(config, include_extras=True)
    settings = {}
    for declared in fields(config):
        parse, *variable = getattr(hints[declared.name], "__metadata__", (None,))
        if parse is not None:
            settings[declared.name] = ("".join(variable) or f"DEPUTY_{declared.name.upper()}", parse, declared.default)
    return settings


def _parsed(environment: Mapping[str, str], variable: str, parse: Callable[[str], Any], default: Any) -> Any:
    """The setting's value. Empty text means None where None is the default. Raises ValueError if it is bad."""
    text = environment.get(variable)
    if file := environment.get(f"{variable}_FILE"):
        try:
            text = Path(file).read_text(encoding="utf-8").strip()  # files end with a line feed, secrets don't
        except (OSError, ValueError):
            raise ValueError(f"{variable}_FILE must name a file that can be read.") from None
    if text is None and default is MISSING:
        raise ValueError("Environment variable not set.")
    return default if text is None or (not text and default is None) else parse(text)


# What is wrong with two settings together, when each is good by itself. A bad one is MISSING.


def _chaining(values: Mapping[str, Any]) -> Iterator[str]:
    broker, seconds = values["broker"], values["max_session_seconds"]
    if MISSING not in (broker, seconds) and broker.is_role and seconds > ROLE_CHAINING_MAX:
        yield (
            f"DEPUTY_MAX_SESSION_SECONDS: at most {ROLE_CHAINING_MAX} while DEPUTY_BROKER_PRINCIPAL_ARN is a role: AWS"
            " calls that role chaining and gives such a caller one hour."
        )


def _registration(values: Mapping[str, Any]) -> Iterator[str]:
    topic, queue, broker = (values[name] for name in ("registration_topic_arn", "registration_queue_url", "broker"))
    if MISSING in (topic, queue):
        return
    if bool(topic) != bool(queue):
        missing = "QUEUE_URL" if topic else "TOPIC_ARN"
        yield f"DEPUTY_REGISTRATION_{missing}: the topic and the queue belong together; set both or neither."
    elif topic and broker is not MISSING:
        _, partition, _, _, account, _ = topic.split(":")
        if partition != broker.partition:
            yield "DEPUTY_REGISTRATION_TOPIC_ARN: must be in the partition of DEPUTY_BROKER_PRINCIPAL_ARN."
        elif account != broker.account_id:
            yield (
                "DEPUTY_REGISTRATION_TOPIC_ARN: must be in the account of DEPUTY_BROKER_PRINCIPAL_ARN: customers'"
                " templates take no other account's topics."
            )


def _ascii_name(values: Mapping[str, Any]) -> Iterator[str]:
    name, given = values["vendor_name"], values["vendor_name_ascii"]
    if name is MISSING or given is not None or identifies_vendor(form := ascii_form(name)):
        return
    yield (
        "DEPUTY_VENDOR_NAME_ASCII: must be set, to the name that customers see in their AWS accounts: AWS takes ASCII"
        f" alone in some places, and there a name has 2 letters at least and {NAME_MAX} characters at most. What is"
        f" left of DEPUTY_VENDOR_NAME is {form!r}."
    )


_NO_CANARY = (
    "DEPUTY_STRANGER_ROLE_ARN is set and DEPUTY_CANARY_ROLE_ARN is not, so each proof skips the stranger. Set it to the"
    " output CanaryRoleArn of the same stack."
)


def _canary(values: Mapping[str, Any]) -> Iterator[str]:
    broker, accounts, prefix = (values[name] for name in ("broker", "vendor_account_ids", "role_prefix"))
    if MISSING in (broker, accounts, prefix):
        return
    for name in ("Canary", "Stranger"):
        role, variable = values[f"{name.lower()}_role_arn"], f"DEPUTY_{name.upper()}_ROLE_ARN"
        if role in (None, MISSING):
            continue
        if role.partition != broker.partition:
            yield f"{variable}: must be in the partition of DEPUTY_BROKER_PRINCIPAL_ARN."
        elif role.account_id in {broker.account_id, *accounts}:
            yield (
                f"{variable}: must be in an account that is neither the broker's nor one of DEPUTY_VENDOR_ACCOUNT_IDS,"
                " because the broker's policy denies those. Launch cloudformation/canary.yaml in another account of"
                f" yours, and set this to its output {name}RoleArn."
            )
        elif not role.name.startswith(prefix):
            yield (
                f"{variable}: the role's name must begin with DEPUTY_ROLE_PREFIX, which is {prefix}: the broker can"
                " assume no other. Launch cloudformation/canary.yaml with this RolePrefix."
            )
