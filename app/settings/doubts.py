"""What in the environment looks like a mistake, though the process can start with it: said once, as it starts."""

import difflib
import re
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from ipaddress import ip_address
from urllib.parse import urlsplit

# Of 64 random hexadecimal digits, fewer than 12 different ones are there once in millions of keys.
DISTINCT = 12
MAKE_ONE = "Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
# Names that `make run` and deputy-client read, which may stand in the same environment.
_OTHERS = {"DEPUTY_DATA_DIR", "DEPUTY_URL", "DEPUTY_API_KEY", "DEPUTY_CA_BUNDLE", "DEPUTY_FAIL_CLOSED"}
# What Kubernetes puts into every container beside a Service that is called deputy.
_KUBERNETES = re.compile(r"DEPUTY_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")


def unknown_variables(given: Iterable[str], known: AbstractSet[str]) -> list[str]:
    """A sentence for each DEPUTY_ name among `given` that nothing reads. `known`: the names of the settings."""
    names = {name + end for name in known | _OTHERS if name.startswith("DEPUTY_") for end in ("", "_FILE")}
    return [
        f"{name} is no setting, so nothing reads it. {_nearest(name, names)}"
        for name in sorted(given)
        if name.startswith("DEPUTY_") and name not in names and not _KUBERNETES.fullmatch(name)
    ]


def _nearest(name: str, names: AbstractSet[str]) -> str:
    tails = sorted(one.removeprefix("DEPUTY_") for one in names)  # which all would have in common
    found = difflib.get_close_matches(name.removeprefix("DEPUTY_"), tails, n=1, cutoff=0.5)
    return f"Is DEPUTY_{found[0]} meant?" if found else "The README lists those that there are."


def looks_random(key: str) -> bool:
    """Whether it has as many different characters as random text of that length."""
    return len(set(key)) >= DISTINCT


def weak_keys(keys: Sequence[str]) -> list[str]:
    """A sentence for each secret key that nobody can have drawn at random."""
    return [
        f"DEPUTY_SECRET_KEYS: key {place} is not random. Whoever guesses it can forge registration tokens and cursors;"
        " remove it as soon as no stack may still hold a token that it signed."
        for place, key in enumerate(keys, start=1)
        if not looks_random(key)
    ]


def local_address(public_url: str, aws: str | None) -> list[str]:
    """A sentence about a public URL that only this machine can open. Right beside a sandbox: AWS is on it as well."""
    if not _is_local(public_url) or (aws and _is_local(aws)):
        return []
    return [f"DEPUTY_PUBLIC_URL is {public_url}. {_LOCAL}"]


_LOCAL = (
    "Onboarding links begin with it, and no browser on another machine can open them: set it to this service's address"
    " as customers see it."
)


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return host.removesuffix(".").endswith("localhost")
    return address.is_loopback or address.is_unspecified
