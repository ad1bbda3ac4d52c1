"""Settings that look like mistakes, although the process can start with them.

It logs them once, when it starts.
"""

import difflib
import re
from collections.abc import Iterable, Sequence, Set as AbstractSet
from ipaddress import ip_address
from urllib.parse import urlsplit

# 64 random hexadecimal digits have fewer than 12 different ones once in millions of keys.
DISTINCT = 12
MAKE_ONE = "Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
# Names that `make run` and deputy-client read from the same environment.
_OTHERS = {
    "DEPUTY_DATA_DIR",
    "DEPUTY_URL",
    "DEPUTY_API_KEY",
    "DEPUTY_CA_BUNDLE",
    "DEPUTY_FAIL_CLOSED",
}
# Variables that Kubernetes sets in each container when a Service is called deputy.
_KUBERNETES = re.compile(
    r"DEPUTY_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def unknown_variables(given: Iterable[str], known: AbstractSet[str]) -> list[str]:
    """Return a sentence for each DEPUTY_ name in `given` that nothing reads.

    `known`: the names of the settings.
    """
    names = {
        name + end
        for name in known | _OTHERS
        if name.startswith("DEPUTY_")
        for end in ("", "_FILE")
    }
    return [
        f"{name} is not a setting, so nothing reads it. {_nearest(name, names)}"
        for name in sorted(given)
        if name.startswith("DEPUTY_") and name not in names and not _KUBERNETES.fullmatch(name)
    ]


def _nearest(name: str, names: AbstractSet[str]) -> str:
    # The prefix would count as similarity
    tails = sorted(one.removeprefix("DEPUTY_") for one in names)
    found = difflib.get_close_matches(name.removeprefix("DEPUTY_"), tails, n=1, cutoff=0.5)
    return f"Did you mean DEPUTY_{found[0]}?" if found else "docs/settings.md lists all settings."


def looks_random(key: str) -> bool:
    """Return whether it has as many different characters as random text of that length."""
    return len(set(key)) >= DISTINCT


def weak_keys(keys: Sequence[str]) -> list[str]:
    """Return a sentence for each secret key that is not random."""
    return [
        f"DEPUTY_SECRET_KEYS: key {place} is not random. Somebody who guesses it can forge"
        " registration tokens and cursors; remove it once no stack can hold a token that it"
        " signed."
        for place, key in enumerate(keys, start=1)
        if not looks_random(key)
    ]


def local_address(public_url: str, aws: str | None) -> list[str]:
    """Return a sentence about a public URL that only this machine can open.

    There is none if AWS is on this machine too, as a sandbox is.
    """
    if not _is_local(public_url) or (aws and _is_local(aws)):
        return []
    return [f"DEPUTY_PUBLIC_URL is {public_url}. {_LOCAL}"]


_LOCAL = (
    "Onboarding links begin with it, and browsers on other machines can't open them. Set it to the"
    " address at which customers reach this service."
)


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return host.removesuffix(".").endswith("localhost")
    return address.is_loopback or address.is_unspecified
