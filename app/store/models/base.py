"""The common parts of all tables: names of constraints, column types, and helpers."""

import enum
from datetime import datetime
from typing import Annotated, Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    JSON,
    DateTime,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    MetaData,
    String,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from app.clock import now
from app.ids import new_id

# Column types for text. The number in a name is the maximum length in characters.
Text12 = Annotated[str, mapped_column(String(12))]
Text16 = Annotated[str, mapped_column(String(16))]
Text64 = Annotated[str, mapped_column(String(64))]
Text128 = Annotated[str, mapped_column(String(128))]
Text200 = Annotated[str, mapped_column(String(200))]
Text512 = Annotated[str, mapped_column(String(512))]
CreatedAt = Annotated[datetime, mapped_column(default=now)]
Flag = Annotated[bool, mapped_column(default=False, server_default=false())]


def _check_name(check: Any, _table: Any) -> Any:
    """Return an enumeration's column, or the name with which another constraint was declared."""
    return next(iter(check.columns.keys()), check.name)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "constraint_name": _check_name,
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSON,
        list[Any]: JSON,
        # A string column with a CHECK constraint that allows the enumeration's values. With a
        # native enum type, a state could not be removed.
        enum.Enum: Enum(
            enum.Enum,
            native_enum=False,
            create_constraint=True,
            length=20,
            values_callable=lambda members: [member.value for member in members],
        ),
    }


class Identified:
    """A row with an id of its own."""

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id, sort_order=-1)


def same_tenant(column: str, table: str, **options: Any) -> ForeignKeyConstraint:
    """Return a foreign key that requires the referenced row to belong to the same tenant."""
    return ForeignKeyConstraint(
        ["tenant_id", column], [f"{table}.tenant_id", f"{table}.id"], **options
    )


def row_in(column: str, target: str, lazy: Any) -> Mapped[Any]:
    """Return the read-only relationship to the row of `target` whose id is in `column`.

    `column` is a class and its column, such as `Connection.proof_id`. `target` is a class.
    """
    join = f"foreign({column}) == {target}.id"
    return relationship(primaryjoin=join, lazy=lazy, viewonly=True)


class TenantOwned:
    """A row that belongs to one tenant.

    Read connections through `identity.tenancy.owned`, which filters by tenant.
    """

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
