"""Where a request comes from, as far as that can be trusted."""

import functools
from ipaddress import IPv6Address, ip_address
from typing import Any

_LONGEST = 64  # characters: an IPv6 address with brackets, its zone and a port; what is longer is cut, and is none


def client_address(environ: dict[str, Any], proxy_hops: int) -> str | None:
    """The IP address of the client; None where none is known, as behind a Unix socket without a proxy's word.

    Each proxy appends whom it sees to X-Forwarded-For, so behind `proxy_hops` of them the client is that many places
    from the end. What comes before it is the client's own text and is never read. The header counts for nothing without
    proxies, and where it has too few places: such a request came past them. It is cut at its commas and read no further:
    a parser that knows quotes, as werkzeug's ProxyFix does, lets a client hide behind one quotation mark.
    """
    if proxy_hops and "HTTP_X_FORWARDED_FOR" in environ:
        places = environ["HTTP_X_FORWARDED_FOR"].rsplit(",", proxy_hops)
        if len(places) >= proxy_hops:
            return _address(places[-proxy_hops].strip()[:_LONGEST])
    return _address(environ.get("REMOTE_ADDR", ""))


@functools.lru_cache(10_000)  # on the way to every issued credential
def _address(text: str) -> str | None:
    """As it is written in short, without the port that some proxies add; None for what is no address."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return str(address)
