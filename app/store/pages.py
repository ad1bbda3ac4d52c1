"""Keyset pages: a list in parts, each of which begins where the one before ended."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select, union_all
from sqlalchemy.orm import Session

Row = TypeVar("Row")
_PAGE = 200  # rows of one page, where all are read


class Page(NamedTuple, Generic[Row]):
    """One page of a list, and where the next one starts (None after the last)."""

    items: list[Row]
    after: UUID | None


def with_values(query: Select[Row], **values: object) -> Select[Row]:
    """The query for those rows whose columns have these values; None means any."""
    return query.filter_by(**{name: value for name, value in values.items() if value is not None})


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
    """The next `limit` rows of `query` beyond `after`, by `key`, a UUIDv7 column: in order of
    creation, newest first.

    One row more than asked says whether there are more; the cost of a count and of OFFSET grows
    with the depth. `either`: conditions of which one must be true, each with an index that ends in
    `key`. An index is in order under one of them only, so the first rows under each are looked up,
    and the page is taken from those.
    """
    order = key.asc() if oldest_first else key.desc()
    if after is not None:
        query = query.where(key > after if oldest_first else key < after)
    if either:
        bare = query.with_only_columns(key).order_by(order).limit(limit + 1)
        first = [select(bare.where(condition).subquery()) for condition in either]
        query = query.where(key.in_(union_all(*first)))
    rows = list(session.scalars(query.order_by(order).limit(limit + 1)))
    more = len(rows) > limit
    rows = rows[:limit]
    return Page(rows, getattr(rows[-1], key.key) if more else None)


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
