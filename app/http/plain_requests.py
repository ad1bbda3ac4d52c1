"""Requests before Flask has them: the peer's IP address, the request's id, and plain requests.

A plain request has the one form in which clients ask for credentials. It is parsed without
gunicorn, whose parser and formatter would take half of the CPU time of a cached answer.
`PlainReader` accepts a strict subset of what gunicorn accepts, and reads it alike;
tests/http/test_plain_requests.py compares the two. gunicorn reads all other requests.

gunicorn imports this module before it patches the standard library. So it imports only those
modules of the service that import no others.
"""

import os
import re
import secrets
from email.utils import formatdate
from functools import lru_cache
from typing import Any, NamedTuple

from gunicorn import SERVER
from gunicorn.config import Config

from app import clock
from app.http.response_headers import defaults

# Keys in the WSGI environ that no client's header can set: the id of a request that was first read
# as a plain request, and the status of a request that gunicorn can't read
REQUEST_ID = "deputy.request_id"
REFUSED_STATUS = "deputy.refused_status"

READ_BYTES = 8192  # the size of gunicorn's reads
_LINE_BYTES = 1024  # the longest first line of a plain request
_FIELDS = 100

# gunicorn's limits (0 means no limit), and the smallest values that admit every plain request.
_LIMITS = {
    "limit_request_line": _LINE_BYTES,
    "limit_request_fields": _FIELDS,
    "limit_request_field_size": READ_BYTES,
}
# gunicorn's settings that change how it reads, answers or records a request. If one differs from
# its default, gunicorn must read every request itself.
_HONOURED_BY_GUNICORN = (
    "accesslog",
    "logconfig",
    "logconfig_dict",
    "logconfig_json",
    "logger_class",
    "statsd_host",
    "syslog",
    "ca_certs",
    "certfile",
    "keyfile",
    "ssl_context",
    "http2_cleartext",
    "http_protocols",
    "forwarded_allow_ips",
    "protocol",
    "proxy_protocol",
    "root_path",
    "secure_scheme_headers",
    "post_request",
    "pre_request",
)
_ENVIRONMENT = ("SCRIPT_NAME", "FORWARDED_ALLOW_IPS")  # variables that gunicorn takes as settings

# Possessive quantifiers: matching stops at the first byte that differs.
_FIELD = r"[!#$%&'*+.^`|~0-9A-Za-z-]++:[\t\x20-\x7e]*+\r\n"
_HEADER = r"(GET|POST) {} HTTP/1\.1\r\n((?:{})++)\r\n"

# The fields that are read, and the names that `_fields` gives them. If two fields of a request get
# the same name, gunicorn must read the request.
_READ = {
    "authorization": "authorization",
    "connection": "connection",
    "content-length": "content-length",
    "content-type": "content-type",
    "host": "host",
    "x-forwarded-for": "x-forwarded-for",
    "x-forwarded-proto": "scheme",
    "x-forwarded-protocol": "scheme",
    "x-forwarded-ssl": "scheme",
}
# The fields that change how a message is framed or answered. gunicorn must read such requests.
_UNUSUAL = {
    "expect",
    "http2-settings",
    "idempotency-key",  # Flask refuses it
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


def new_request_id() -> str:
    """Return a new id. Audit events are joined by it, so a client's own id is never used."""
    return secrets.token_hex(16)


def peer_of(address: Any) -> str:
    """Return the peer's IP address, or an empty text for a Unix socket."""
    return address[0] if isinstance(address, tuple) else ""


class PlainRequest(NamedTuple):
    """A plain request, as the module's docstring defines it.

    `target`: the groups that the endpoint's pattern matched in the path.
    """

    method: str
    target: tuple[str, ...]
    authorization: str
    content_type: str | None
    forwarded_for: str | None
    body: bytes


class PlainReader:
    """Reads plain requests for one endpoint. `target`: the pattern of the endpoint's paths."""

    def __init__(self, target: str) -> None:
        self._header = re.compile(_HEADER.format(target, _FIELD), re.ASCII)

    def read(self, data: bytes) -> PlainRequest | None:
        """Return the request if `data` is exactly one plain request, and otherwise None."""
        text = data.decode("latin-1")
        header = self._header.match(text)
        if header is None:
            return None
        groups, body = header.groups(), data[header.end() :]
        fields = _fields(groups[-1])
        if (
            fields is None
            or "host" not in fields
            or "authorization" not in fields
            or fields.get("content-length", "0") != str(len(body))
            or fields.get("connection", "keep-alive").lower() != "keep-alive"
        ):
            return None
        return PlainRequest(
            groups[0],
            groups[1:-1],
            fields["authorization"],
            fields.get("content-type"),
            fields.get("x-forwarded-for"),
            body,
        )


def _fields(header: str) -> dict[str, str] | None:
    """Return the fields that are read, or None if gunicorn must read the request."""
    lines = header.split("\r\n")
    if len(lines) > _FIELDS + 1:  # the last line is empty
        return None
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name = name.lower()
        if name in _UNUSUAL:
            return None
        if name in _READ:
            if _READ[name] in fields:
                return None
            fields[_READ[name]] = value.strip(" \t")
    return fields


def format_answer(request_id: str, body: bytes, public_url: str) -> bytes:
    """Return a whole answer with status 200 and JSON, as gunicorn sends Flask's."""
    header = (
        f"{_first_lines(int(clock.timestamp()))}Content-Length: {len(body)}\r\n"
        f"X-Request-Id: {request_id}\r\n{_last_lines(public_url)}\r\n"
    )
    return header.encode("ascii") + body


@lru_cache(2)
def _first_lines(second: int) -> str:
    fields = (
        f"Server: {SERVER}\r\nDate: {formatdate(second, usegmt=True)}\r\nConnection:"
        " keep-alive\r\nContent-Type: application/json\r\n"
    )
    return f"HTTP/1.1 200 OK\r\n{fields}"


@lru_cache(1)
def _last_lines(public_url: str) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in defaults(public_url).items())


def setting_for_gunicorn(config: Any) -> str | None:
    """Return the name of a setting that only gunicorn honours, or None.

    With such a setting gunicorn must read every request.
    """
    defaults = Config()
    for name in _HONOURED_BY_GUNICORN:
        if config.settings[name].get() != defaults.settings[name].get():
            return name
    for name, smallest in _LIMITS.items():
        if 0 < config.settings[name].get() < smallest:
            return name
    if not config.keepalive:
        return "keepalive"
    # gunicorn takes settings from the environment, too
    return next(filter(os.environ.get, _ENVIRONMENT), None)  # noqa: TID251
