"""Request ids.

Deputy makes each one itself, because the audit log joins on it. A client's own id is never used.
"""

import secrets
from typing import Any

ENVIRON_KEY = "deputy.request_id"  # in the WSGI environ; clients' headers are under other names


def new_request_id() -> str:
    return secrets.token_hex(16)


def request_id(environ: dict[str, Any]) -> str:
    """Return the id of this request.

    It has one already if it was read as a plain request first.
    """
    return environ.get(ENVIRON_KEY) or new_request_id()
