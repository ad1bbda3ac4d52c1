"""Request ids.

Deputy makes each id itself, because audit events are joined by it. A client's id is never used.
"""

import secrets
from typing import Any

ENVIRON_KEY = "deputy.request_id"  # key in the WSGI environ that no client's header can set


def new_request_id() -> str:
    return secrets.token_hex(16)


def request_id(environ: dict[str, Any]) -> str:
    """Return the id of this request.

    A request that was first read as a plain request has an id already.
    """
    return environ.get(ENVIRON_KEY) or new_request_id()
