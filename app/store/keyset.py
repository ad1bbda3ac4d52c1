"""Keyset pagination: each page begins where the previous one ended."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select, union_all
from sqlalchemy.orm import Session

Row = TypeVar("Row")
_PAGE = 200  # rows per page for `pages` and `every`


class Page(NamedTuple, Generic[Row]):
    """One page of a list. The next page begins after the id `after` (None: this is the last)."""

    items: list[Row]
    after: UUID | None


def with_values(query: Select[Row], **values: object) -> Select[Row]:
    """Restrict the query to rows with these column values; a value of None means any."""
    given = {name: value for name, value in values.items() if value is not None}
    return query.filter_by(**given)


def page(
    db: Session,
    query: Select[Row],
    key: Any,
    *,
    limit: int,
    after: UUID | None,
    either: Sequence[ColumnElement[bool]] = (),
    oldest_first: bool = False,
) -> Page[Row]:
    """Return the next `limit` rows of `query` after the id `after`, newest first.

    `key`: a UUIDv7 column, whose values sort in order of creation. One row more than requested is
    read, to know whether another page follows. A count or OFFSET would cost more with each page.

    `either`: conditions of which at least one must be true. Each needs an index that ends in `key`.
    Such an index yields the rows for one condition in order. So the first rows for each condition
    are read, and the page is taken from them.
    """
    order = key.asc() if oldest_first else key.desc()
    if after is not None:
        query = query.where(key > after if oldest_first else key < after)
    if either:
        bare = query.with_only_columns(key).order_by(order).limit(limit + 1)
        first = [select(bare.where(condition).subquery()) for condition in either]
        query = query.where(key.in_(union_all(*first)))
    rows = list(db.scalars(query.order_by(order).limit(limit + 1)))
    if len(rows) <= limit:
        return Page(rows, None)
    return Page(rows[:limit], getattr(rows[limit - 1], key.key))


def pages(
    fetch: Callable[..., Page[Row]], *criteria: object, after: UUID | None = None
) -> Iterator[list[Row]]:
    """Yield the items of each page of a list, page by page."""
    while True:
        part = fetch(*criteria, limit=_PAGE, after=after)
        yield part.items
        if part.after is None:
            return
        after = part.after


def every(fetch: Callable[..., Page[Row]], *criteria: object) -> Iterator[Row]:
    """Yield all items of a list, page by page."""
    for items in pages(fetch, *criteria):
        yield from items
