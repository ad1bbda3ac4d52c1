"""Settings that look like mistakes, although the process can start with them.

It logs them once, when it starts.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
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


def unknown_variables(environment: Iterable[str], settings: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each DEPUTY_ name in the environment that nothing reads."""
    names = []
    for name in sorted({*settings, *_OTHERS}):
        names += [name, f"{name}_FILE"]
    for name in sorted(environment):
        if name.startswith("DEPUTY_") and name not in names and not _KUBERNETES.fullmatch(name):
            yield f"{name} is not a setting, so nothing reads it. {_suggest(name, names)}"


def _suggest(name: str, names: list[str]) -> str:
    # The prefix would count as similarity
    tails = [other.removeprefix("DEPUTY_") for other in names]
    similar = difflib.get_close_matches(name.removeprefix("DEPUTY_"), tails, n=1, cutoff=0.5)
    if similar:
        return f"Did you mean DEPUTY_{similar[0]}?"
    return "docs/settings.md lists all settings."


def looks_random(key: str) -> bool:
    """Return whether it has as many different characters as random text of that length."""
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
    """Yield a sentence about a public URL that only this machine can open.

    There is none if AWS is on this machine too, as a sandbox is.
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
