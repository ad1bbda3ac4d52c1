"""Pages of lists, with cursors that are signed together with the route, its ids and its filters.

A forged cursor, or one from another list, is a 400.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from flask import request
from itsdangerous import BadSignature, URLSafeSerializer

from app.errors import MalformedRequestError
from app.http.current import caller, services
from app.limits.tenant_share import MS_PER_ROW
from app.store.pages import Page


def paged(
    query: Mapping[str, Any], fetch: Callable[..., Page[Any]], begin: UUID | None = None
) -> dict[str, Any]:
    """Return one page of a list, with the cursor of the next page.

    `fetch(limit=…, after=…)` reads the page. `begin` is its `after` without a cursor.
    """
    filters = {key: str(value) for key, value in query.items() if key not in {"cursor", "limit"}}
    place = json.dumps([request.path, sorted(filters.items())])
    # itsdangerous signs with the last
    keys = list(reversed(services().config.database.secret_keys))
    signer = URLSafeSerializer(keys, salt=f"deputy cursor {place}")
    after = begin
    if "cursor" in query:
        try:
            after = UUID(signer.loads(query["cursor"]))
        except (BadSignature, ValueError) as error:
            raise MalformedRequestError(
                "This cursor is not from this list. Start without a cursor."
            ) from error
    found = fetch(limit=query["limit"], after=after)
    services().tenant_share.charge(caller().tenant_scope, MS_PER_ROW * len(found.items))
    return {
        "items": found.items,
        "next_cursor": None if found.after is None else signer.dumps(str(found.after)),
    }
