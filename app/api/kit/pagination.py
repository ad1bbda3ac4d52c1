"""Pages of lists, and their signed cursors."""

import json
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from flask import request
from itsdangerous import BadSignature, URLSafeSerializer
from marshmallow import Schema, fields, validate

from app.api.kit.schemas import Answer, Strict, component_of, digits, nullable_string, string
from app.errors import MalformedRequestError
from app.http.current_request import principal, services
from app.limits.request_costs import MS_PER_ROW
from app.store.keyset import Page
from app.strict_json import JsonObject

_ROWS_AT_ONCE = 10
_CURSOR = "IjAxOWMxZjZlLThhMDAtN2MzYi05ZDQxLTVmMGU3YTJiNmMxOCI.aBcD1234"


class PageQuery(Strict):
    limit = digits(50, load_default=50, validate=validate.Range(1, 200))
    cursor = string(_CURSOR, "next_cursor of the page before.", validate=validate.Length(1, 500))


class Rows(fields.List[Any]):
    """The rows of a list. After every few rows the process can serve other requests."""

    def _serialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        rows = []
        for number, row in enumerate(value, start=1):
            rows.append(self.inner._serialize(row, *args, **kwargs))  # noqa: SLF001  as List does
            if number % _ROWS_AT_ONCE == 0:
                time.sleep(0)
        return rows


def page_of(item: type[Schema]) -> type[Schema]:
    """Return the schema of one page of a list."""
    cursor = nullable_string(_CURSOR, "null on the last page.")
    members = {"items": Rows(fields.Nested(item)), "next_cursor": cursor}
    return type(f"{component_of(item)}Page", (Answer,), members)


def filters_of(query: JsonObject) -> JsonObject:
    """Return the filters in a list's query: all fields but those of paging."""
    return {name: query[name] for name in query.keys() - {"limit", "cursor", "after"}}


def paged(query: JsonObject, fetch: Callable[..., Page[Any]], *arguments: Any) -> JsonObject:
    """Return one page of a list, with the cursor of the next page.

    `fetch(*arguments, limit=…, after=…)` reads the page. Without a cursor, the page begins after
    the query's `after`, if it has one. The signature of a cursor covers the path and the filters. A
    forged cursor, or one from another list, is a 400.
    """
    place = dict(query)
    limit, cursor, after = place.pop("limit"), place.pop("cursor", None), query.get("after")
    salt = json.dumps(["deputy cursor", request.path, place], sort_keys=True, default=str)
    # itsdangerous signs with the last key of its list, and Deputy with the first secret key
    keys = list(reversed(services.config.database.secret_keys))
    signer = URLSafeSerializer(keys, salt=salt)
    if cursor is not None:
        try:
            after = UUID(signer.loads(cursor))
        except (BadSignature, ValueError) as error:
            raise MalformedRequestError(
                "This cursor is not from this list. Start without a cursor."
            ) from error
    page = fetch(*arguments, limit=limit, after=after)
    services.tenant_share.charge(principal().tenant_scope, MS_PER_ROW * len(page.items))
    next_cursor = None if page.after is None else signer.dumps(str(page.after))
    return {"items": page.items, "next_cursor": next_cursor}
