"""Which URLs and which IP addresses a request may go to.

A URL that a client gives could name a service inside the vendor's network, for example EC2's
instance metadata. So each name is resolved here and all of its addresses are checked, when a URL is
saved and again when it is used. The request goes to an address that was checked
(app/outbound/door.py).
"""

import re
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import gevent.monkey

from app.concurrency.gevent import Threads
from app.settings.valid_values import Network

MAX_URL_LENGTH = 2048
HTTPS_PORT = 443
# Somebody else chose these names, and their DNS servers may be slow. Separate threads resolve them,
# so that look-ups of AWS's names are not delayed.
_RESOLVERS = Threads(16)
DNS_SECONDS = 5.0  # timeout for callers of `resolve`
# IANA's registry of special-purpose IPv4 addresses, multicast, and 168.63.129.16. The last looks
# public, but Azure itself answers its virtual machines there.
# https://www.iana.org/assignments/iana-ipv4-special-registry
_REFUSED_V4 = [
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
]
# IANA has assigned only 2000::/3 to hosts of the internet. Private, link-local and multicast
# addresses are outside of it. So are forms with an IPv4 address in them, except 6to4 and Teredo.
# https://www.iana.org/assignments/iana-ipv6-special-registry
_INTERNET_V6 = ip_network("2000::/3")
_REFUSED_V6 = [
    ip_network(text)
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
]
_NAT64 = ip_network("64:ff9b::/96")  # IPv4 addresses, as DNS64 gives them to hosts without IPv4
_TRIED = 4  # addresses of a name that an attempt tries
_URL = re.compile(r"[!-\[\]-~]+")  # printable ASCII without space and backslash
_HOST = re.compile(
    r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?"
)


class AddressError(Exception):
    """The URL may not be requested. The text says why, in words for whoever chose it."""


class Destination(NamedTuple):
    """A URL that may be requested, with the addresses to connect to, in this order.

    `host`: for the Host header. `name`: the name that the server's certificate must have.
    """

    tls: bool
    host: str
    name: str
    addresses: tuple[str, ...]
    port: int
    target: str


def resolve(url: str, networks: Sequence[Network] = ()) -> Destination:
    """Resolve the URL's name, and check all of its addresses.

    `networks`: the vendor's own, in which HTTP and other ports are allowed too. DNS may take long,
    so call this function by `spawn`, with a timeout. Raises AddressError. The error's text is the
    same for a private address and for a name without addresses. Otherwise it would show which names
    exist inside the vendor's network.
    """
    destination = parse(url)
    addresses = _addresses_of(destination)
    outside = [
        address for address in addresses if not any(address in network for network in networks)
    ]
    if not addresses or not all(map(_is_public, outside)):
        raise AddressError("Its host must have public addresses, and no others.")
    if outside and (not destination.tls or destination.port != HTTPS_PORT):
        raise AddressError("It must begin with https:// and use port 443.")
    return destination._replace(addresses=tuple(map(str, addresses[:_TRIED])))


def parse(url: str) -> Destination:
    """Return the destination without its addresses. Raises AddressError for a malformed URL."""
    if len(url) > MAX_URL_LENGTH:
        raise AddressError(f"It must have {MAX_URL_LENGTH} characters at most.")
    if not _URL.fullmatch(url):
        raise AddressError(
            "It must be printable ASCII without spaces and backslashes; write another script's"
            " name as xn--…"
        )
    try:
        parts = urlsplit(url)
        port, name = parts.port, parts.hostname
    except ValueError:
        raise AddressError("It is not a URL.") from None
    if parts.scheme not in {"https", "http"} or not name:
        raise AddressError("It must begin with https:// and have a host.")
    if "@" in parts.netloc or "#" in url:
        raise AddressError("It must have no user name, no password and no fragment.")
    if not _HOST.fullmatch(name) and not _is_literal_v6(name):
        raise AddressError("Its host is not a name.")
    tls = parts.scheme == "https"
    target = parts.path or "/"
    return Destination(
        tls=tls,
        host=parts.netloc,
        name=name.removesuffix("."),
        addresses=(),
        port=port if port is not None else HTTPS_PORT if tls else 80,
        target=f"{target}?{parts.query}" if parts.query else target,
    )


def _is_literal_v6(name: str) -> bool:
    try:
        return isinstance(ip_address(name), IPv6Address) and "%" not in name
    except ValueError:
        return False


def _addresses_of(destination: Destination) -> list[IPv4Address | IPv6Address]:
    try:
        answers = resolve_name(destination.name, destination.port)
        return [ip_address(answer[4][0]) for answer in answers]
    except OSError:
        return []


def resolve_name(name: str, port: int) -> list[Any]:
    """Return what getaddrinfo returns for TCP."""
    blocking: Any = gevent.monkey.get_original("socket", "getaddrinfo")
    return _RESOLVERS.run(
        blocking, name, port, socket.AF_UNSPEC, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    if address in _NAT64:
        return _is_public(IPv4Address(address.packed[-4:]))
    return address in _INTERNET_V6 and not any(address in network for network in _REFUSED_V6)
