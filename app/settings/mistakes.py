"""Mistakes in settings that are valid by themselves.

With a conflict between settings no process starts. What only looks like a mistake is logged when a
process starts.

The parameters of a function for conflicts are the values of the settings with these names. It is
called only if all of them are valid, and yields a message for each conflict.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from app.settings.checks import (
    ROLE_CHAINING_MAX,
    VENDOR_NAME_MAX,
    ascii_form,
    identifies_vendor,
    looks_random,
)

# Variables that `make run` or deputy-client reads, and that may be in the same environment.
_OTHERS = {
    "DEPUTY_DATA_DIR",
    "DEPUTY_URL",
    "DEPUTY_API_KEY",
    "DEPUTY_CA_BUNDLE",
    "DEPUTY_FAIL_CLOSED",
}
# Variables that Kubernetes sets in every container if a Service is named "deputy".
_KUBERNETES = re.compile(
    r"DEPUTY_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def check_role_chaining(broker: Any, max_session_seconds: int) -> Iterator[str]:
    if broker.is_role and max_session_seconds > ROLE_CHAINING_MAX:
        yield (
            f"DEPUTY_MAX_SESSION_SECONDS: at most {ROLE_CHAINING_MAX} while"
            " DEPUTY_BROKER_PRINCIPAL_ARN is a role: AWS calls that role chaining and gives such a"
            " caller one hour."
        )


def check_registration(
    broker: Any, registration_topic_arn: str | None, registration_queue_url: str | None
) -> Iterator[str]:
    if bool(registration_topic_arn) != bool(registration_queue_url):
        missing = "QUEUE_URL" if registration_topic_arn else "TOPIC_ARN"
        yield (
            f"DEPUTY_REGISTRATION_{missing}: the topic and the queue belong together; set both or"
            " neither."
        )
    elif registration_topic_arn:
        _, partition, _, _, account, _ = registration_topic_arn.split(":")
        if partition != broker.partition:
            yield (
                "DEPUTY_REGISTRATION_TOPIC_ARN: must be in the partition of"
                " DEPUTY_BROKER_PRINCIPAL_ARN."
            )
        elif account != broker.account_id:
            yield (
                "DEPUTY_REGISTRATION_TOPIC_ARN: must be in the account of"
                " DEPUTY_BROKER_PRINCIPAL_ARN: customers' templates take no other account's topics."
            )


def check_ascii_name(vendor_name: str, vendor_name_ascii: str | None) -> Iterator[str]:
    form = ascii_form(vendor_name)
    if vendor_name_ascii is None and not identifies_vendor(form):
        yield (
            "DEPUTY_VENDOR_NAME_ASCII: must be set, to the name that customers see in their AWS"
            " accounts: AWS takes ASCII alone in some places, and there a name has 2 letters at"
            f" least and {VENDOR_NAME_MAX} characters at most. What is left of DEPUTY_VENDOR_NAME"
            f" is {form!r}."
        )


def check_canary(
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


def likely_mistakes(
    values: Mapping[str, Any], variables: Iterable[str], environment: Mapping[str, str]
) -> Iterator[str]:
    """Yield a sentence for each likely mistake in the values of all settings.

    `variables`: the names of the variables that settings are read from.
    """
    yield from _unknown_variables(environment, variables)
    for place, key in enumerate(values["secret_keys"], start=1):
        if not looks_random(key):
            yield (
                f"DEPUTY_SECRET_KEYS: key {place} is not random. Somebody who guesses it can forge"
                " registration tokens and cursors; remove it once no stack can hold a token that it"
                " signed."
            )
    public_url = values["public_url"]
    # A local URL is no mistake when AWS is a local sandbox
    if _is_local(public_url) and not _is_local(environment.get("AWS_ENDPOINT_URL", "")):
        yield (
            f"DEPUTY_PUBLIC_URL is {public_url}. Onboarding links begin with it, and browsers on"
            " other machines can't open them. Set it to the address at which customers reach this"
            " service."
        )
    if values["stranger_role_arn"] and not values["canary_role_arn"]:
        yield (
            "DEPUTY_STRANGER_ROLE_ARN is set and DEPUTY_CANARY_ROLE_ARN is not, so each proof skips"
            " the stranger. Set it to the output CanaryRoleArn of the same stack."
        )


def _unknown_variables(environment: Iterable[str], settings: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each DEPUTY_ variable in the environment that nothing reads."""
    names = []
    for name in sorted({*settings, *_OTHERS}):
        names += [name, f"{name}_FILE"]
    for name in sorted(environment):
        if name.startswith("DEPUTY_") and name not in names and not _KUBERNETES.fullmatch(name):
            yield f"{name} is not a setting, so nothing reads it. {_suggest(name, names)}"


def _suggest(name: str, names: list[str]) -> str:
    # Compare without DEPUTY_, which would make all names similar
    tails = [other.removeprefix("DEPUTY_") for other in names]
    similar = difflib.get_close_matches(name.removeprefix("DEPUTY_"), tails, n=1, cutoff=0.5)
    if similar:
        return f"Did you mean DEPUTY_{similar[0]}?"
    return "docs/settings.md lists all settings."


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return host.removesuffix(".").endswith("localhost")
    return address.is_loopback or address.is_unspecified
