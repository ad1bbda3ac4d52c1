"""The request that is being served: its services, principal, body, and client's IP address."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import cast

from flask import current_app, g
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
from werkzeug.local import LocalProxy

from app.concurrency.places import without_places
from app.errors import RateLimitedError
from app.identity import ApiKeyPrincipal
from app.services import Services

BODY_KIB = 256  # the longest list, ten thousand account ids, has 170 KiB
# characters: an IPv6 address with brackets, a zone and a port; longer text is not an address
_ADDRESS_LENGTH = 64

services = cast("Services", LocalProxy(lambda: current_app.extensions["deputy"]))


def principal() -> ApiKeyPrincipal:
    """Return the principal. Only views behind `requires` have one."""
    return cast("ApiKeyPrincipal", g.principal)


def changing() -> ApiKeyPrincipal:
    """Return the principal for a change that counts against the tenant's quota.

    Call it for changes that create or revive something that can be revoked.
    """
    return services.quotas.limiting_changes(principal())


@contextmanager
def whole_body() -> Iterator[None]:
    """Wrap the reading of a body, and raise BadRequest if that fails.

    It fails when the body is late, cut short, or in malformed chunks.
    """
    try:
        with without_places():
            yield
    except (RateLimitedError, RequestEntityTooLarge):
        raise
    except Exception as error:  # each server raises its own; gunicorn's have no common class
        raise BadRequest(
            "The body did not arrive whole and in time. Send all of it right after the header."
        ) from error


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
            return address_of(places[-proxy_hops].strip()[:_ADDRESS_LENGTH])
    return address_of(peer)


@lru_cache(10_000)  # every request for credentials needs it
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
