"""Settings that are valid, but look like a mistake. Each process logs them when it starts."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from app.settings.valid_values import looks_random

# Variables that commands, `make run` or deputy-client read. They may be in the same environment.
_OTHERS = {
    "DEPUTY_DATA_DIR",
    "DEPUTY_URL",
    "DEPUTY_API_KEY",
    "DEPUTY_CA_BUNDLE",
    "DEPUTY_FAIL_CLOSED",
    "DEPUTY_OPERATOR",
}
# Variables that Kubernetes sets in every container if a Service is named "deputy".
_KUBERNETES = re.compile(
    r"DEPUTY_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
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
    # A proof comes at most a third of the interval late (app/proofs/schedule.py)
    if values["reprove_every"] * 4 / 3 > values["proof_max_age"]:
        yield (
            f"DEPUTY_REPROVE_EVERY is {values['reprove_every']}, and DEPUTY_PROOF_MAX_AGE is"
            f" {values['proof_max_age']}: proofs are over before they are repeated, so requests for"
            " credentials wait for new ones. Repeat them more often."
        )
    if values["stranger_role_arn"] and not values["canary_role_arn"]:
        yield (
            "DEPUTY_STRANGER_ROLE_ARN is set and DEPUTY_CANARY_ROLE_ARN is not, so each proof skips"
            " the stranger. Set it to the output CanaryRoleArn of the same stack."
        )
    stranger = f"{values['role_prefix']}stranger"
    if values["stranger_role_arn"] and values["stranger_role_arn"].name != stranger:
        yield (
            f"DEPUTY_STRANGER_ROLE_ARN: the role is not called {stranger}, so each proof of a new"
            " role skips the stranger. Update the stack of cloudformation/canary.yaml with the"
            " RolePrefix that DEPUTY_ROLE_PREFIX has."
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
