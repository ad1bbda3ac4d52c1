"""Headers of responses."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # gunicorn imports this module before it patches the standard library
    from flask import Response

Headers = dict[str, str]

_DEFAULTS: Headers = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
# The two surfaces for browsers send these instead
API_DOCUMENTATION: Headers = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self'"
        " 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
    )
}
ONBOARDING_PAGE: Headers = {
    "X-Robots-Tag": "noindex, nofollow",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
}
_YEAR = 365 * 24 * 60 * 60  # in seconds


def defaults(public_url: str) -> Headers:
    """Return the headers for responses of the service at this address."""
    if not public_url.lower().startswith("https:"):
        return _DEFAULTS
    return {**_DEFAULTS, "Strict-Transport-Security": f"max-age={_YEAR}"}


def adding(headers: Headers) -> "Callable[[Response], Response]":
    """Return a function for `after_request` that adds the headers that a response lacks."""

    def add(response: "Response") -> "Response":
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return response

    return add
