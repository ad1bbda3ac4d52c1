"""The IP address of a request's client, and the id that Deputy gives the request.

gunicorn imports this module before it patches the standard library. So the module imports nothing
of the service.
"""

import functools
import secrets
from ipaddress import IPv6Address, ip_address

# Keys in the WSGI environ that no client's header can set: the id of a request that was first read
# as a plain request, and the status of a request that gunicorn can't read
REQUEST_ID = "deputy.request_id"
REFUSED_STATUS = "deputy.refused_status"
# characters: an IPv6 address with brackets, a zone and a port; longer text is not an address
_LONGEST = 64


def new_request_id() -> str:
    """Return an id. A client's own id is never used, because audit events are joined by it."""
    return secrets.token_hex(16)


def client_address(peer: str, forwarded_for: str | None, proxy_hops: int) -> str | None:
    """Return the IP address of the client, or None when it is unknown.

    It is unknown on a Unix socket without X-Forwarded-For. Each proxy appends its own client to
    X-Forwarded-For, so the entry `proxy_hops` from the end is the client. Entries before it are the
    client's own text and are ignored. The header is ignored without proxies, and when it has too
    few entries, because then the request bypassed them. It is split at commas alone: in a parser
    that knows quotes, such as werkzeug's ProxyFix, one quotation mark would hide the client.
    """
    if proxy_hops and forwarded_for is not None:
        places = forwarded_for.rsplit(",", proxy_hops)
        if len(places) >= proxy_hops:
            return address_of(places[-proxy_hops].strip()[:_LONGEST])
    return address_of(peer)


@functools.lru_cache(10_000)  # each issued credential needs it
def address_of(text: str) -> str | None:
    """Return the address in its short form, without the port that some proxies add.

    None if the text is not an address.
    """
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
