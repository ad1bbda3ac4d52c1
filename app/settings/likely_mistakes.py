"""Checks for settings that are valid but look like mistakes.

A process starts with them anyway, and logs them once at its start.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

# Of millions of random keys of 64 hex digits, about one has fewer than 12 different digits.
DISTINCT = 12
MAKE_ONE = "Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
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


def unknown_variables(environment: Iterable[str], settings: Iterable[str]) -> Iterator[str]:
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


def looks_random(key: str) -> bool:
    """Return whether the key has as many different characters as a random text usually has."""
    return len(set(key)) >= DISTINCT


def weak_keys(keys: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for each secret key that is not random."""
    for place, key in enumerate(keys, start=1):
        if not looks_random(key):
            yield (
                f"DEPUTY_SECRET_KEYS: key {place} is not random. Somebody who guesses it can forge"
                " registration tokens and cursors; remove it once no stack can hold a token that it"
                " signed."
            )


def local_address(public_url: str, aws: str | None) -> Iterator[str]:
    """Yield a sentence if only this machine can open the public URL.

    `aws`: AWS_ENDPOINT_URL. Yield nothing if it is on this machine too, as that of a sandbox is.
    """
    if _is_local(public_url) and not (aws and _is_local(aws)):
        yield (
            f"DEPUTY_PUBLIC_URL is {public_url}. Onboarding links begin with it, and browsers on"
            " other machines can't open them. Set it to the address at which customers reach this"
            " service."
        )


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return host.removesuffix(".").endswith("localhost")
    return address.is_loopback or address.is_unspecified
