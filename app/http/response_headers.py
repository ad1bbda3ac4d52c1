"""Headers of responses."""

from collections.abc import Callable

from flask import Response

Headers = dict[str, str]

DEFAULTS: Headers = {
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


def adding(headers: Headers) -> Callable[[Response], Response]:
    """Return a function for `after_request` that adds the headers that a response lacks."""

    def add(response: Response) -> Response:
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return response

    return add
