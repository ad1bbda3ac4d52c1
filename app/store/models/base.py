"""Common parts of all tables: constraint names, column types, states and suspensions."""

import enum
from datetime import datetime
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

from sqlalchemy import JSON, Enum, ForeignKeyConstraint, Index, MetaData, String, TextClause, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.clock import now
from app.errors import ConflictError
from app.ids import new_id
from app.store.database import UtcDateTime


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }


class Identified:
    """A row with an id of its own."""

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id, sort_order=-1)


class Suspension(NamedTuple):
    """A suspension: the kind of actor, whether a bound key did it, and the reason.

    A bound key is confined to one tenant.
    """

    by: str
    bound: bool
    reason: str


class Suspendable:
    """The columns of a suspension, set while it lasts."""

    suspended_at: Mapped[datetime | None]
    suspended_by: Mapped[str | None] = mapped_column(String(16))
    suspended_by_bound: Mapped[bool | None]
    suspended_reason: Mapped[str | None] = mapped_column(String(200))

    @property
    def suspended(self) -> dict[str, Any] | None:
        """The suspension's time, kind of actor and reason; None when it is not suspended."""
        if self.suspended_at is None:
            return None
        return {"at": self.suspended_at, "by": self.suspended_by, "reason": self.suspended_reason}

    def ensure_may_undo(self, *, bound: bool) -> None:
        """Raise ConflictError for a bound key when the vendor suspended the row.

        A tenant must not undo the vendor's suspension, neither by resuming nor by deleting the row
        and adding it again.
        """
        if bound and self.suspended_at is not None and not self.suspended_by_bound:
            raise ConflictError("The vendor suspended this, and has to resume it first.")

    def ensure_may_suspend(self, suspension: Suspension, *, suspended: bool) -> None:
        """Raise ConflictError when the row is suspended already.

        The vendor may suspend what a bound key suspended, because that key could undo its own
        suspension.
        """
        if suspended and (suspension.bound or not self.suspended_by_bound):
            raise ConflictError("This is suspended already.")

    def note_suspension(self, suspension: Suspension | None) -> None:
        """Set the columns of a suspension that begins now, or clear them for None."""
        self.suspended_at = now() if suspension else None
        self.suspended_by, self.suspended_by_bound, self.suspended_reason = suspension or (
            None,
            None,
            None,
        )


def state_column(kind: type[enum.StrEnum], name: str) -> Enum:
    """Return a string column with a CHECK for the members of an enumeration.

    Adding a state later is then an ordinary migration on every database.
    """
    return Enum(
        kind,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=20,
        values_callable=lambda members: [member.value for member in members],
    )


def same_tenant(column: str, table: str, **options: Any) -> ForeignKeyConstraint:
    """Return a foreign key that requires the row in `column` to have the same tenant."""
    return ForeignKeyConstraint(
        ["tenant_id", column], [f"{table}.tenant_id", f"{table}.id"], **options
    )


def index_where(name: str, *columns: str, where: TextClause, unique: bool = False) -> Index:
    """Return an index over some of the rows, for SQLite and PostgreSQL."""
    return Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


def unique_where(name: str, column: str, condition: str) -> Index:
    return index_where(name, column, where=text(condition), unique=True)


def in_code_points(length: int) -> String:
    """Return a text type that every database compares and orders by code points.

    An index then serves ranges of prefixes.
    """
    return String(length, collation="C").with_variant(String(length), "sqlite")
