"""Request ids. Deputy makes each one itself, because the audit log joins on it; a client's own is never taken."""

import secrets
from typing import Any

_KEY = "deputy.request_id"  # in the WSGI environ; clients' headers are under other names


def request_id(environ: dict[str, Any]) -> str:
    """The id of this request. The first call makes it; the fast lane calls before Flask does."""
    made: str = environ.get(_KEY) or environ.setdefault(_KEY, secrets.token_hex(16))
    return made
