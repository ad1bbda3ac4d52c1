"""Keyset pagination: each page begins where the previous one ended."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select, union_all
from sqlalchemy.orm import Session

Row = TypeVar("Row")
_PAGE = 200  # rows of a page when all pages are read


class Page(NamedTuple, Generic[Row]):
    """One page of a list, and the start of the next one (None after the last)."""

    items: list[Row]
    after: UUID | None


def with_values(query: Select[Row], **values: object) -> Select[Row]:
    """Return the query restricted to rows with these column values; None means any."""
    for name, value in values.items():
        if value is not None:
            query = query.filter_by(**{name: value})
    return query


def page(
    session: Session,
    query: Select[Row],
    key: Any,
    *,
    limit: int,
    after: UUID | None,
    either: Sequence[ColumnElement[bool]] = (),
    oldest_first: bool = False,
) -> Page[Row]:
    """Return the next `limit` rows of `query` after `after`, newest first.

    `key`: a UUIDv7 column, which is in order of creation. The query reads one row more than
    requested, to know whether there are more. The cost of a count and of OFFSET would grow with the
    depth.

    `either`: conditions of which one must be true, each with an index that ends in `key`. An index
    is in order only under one condition. So the first rows under each condition are read, and the
    page is taken from those.
    """
    order = key.asc() if oldest_first else key.desc()
    if after is not None:
        query = query.where(key > after if oldest_first else key < after)
    if either:
        bare = query.with_only_columns(key).order_by(order).limit(limit + 1)
        first = [select(bare.where(condition).subquery()) for condition in either]
        query = query.where(key.in_(union_all(*first)))
    rows = list(session.scalars(query.order_by(order).limit(limit + 1)))
    if len(rows) <= limit:
        return Page(rows, None)
    return Page(rows[:limit], getattr(rows[limit - 1], key.key))


def pages(fetch: Callable[..., Page[Row]], after: UUID | None = None) -> Iterator[list[Row]]:
    """Return all pages of a list, one after the other."""
    while True:
        part = fetch(limit=_PAGE, after=after)
        yield part.items
        if part.after is None:
            return
        after = part.after


def every(fetch: Callable[..., Page[Row]]) -> Iterator[Row]:
    """Return everything in a list."""
    for items in pages(fetch):
        yield from items
