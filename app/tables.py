"""What all tables have in common: names of constraints, types, states as strings with a CHECK."""

import enum
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, Enum, Index, MetaData, text
from sqlalchemy.orm import DeclarativeBase

from app.db import UtcDateTime


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


def state_column(kind: type[enum.StrEnum], name: str) -> Enum:
    """A plain string column with a CHECK: adding a state later is an ordinary migration on every database."""
    return Enum(
        kind,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=20,
        values_callable=lambda members: [member.value for member in members],
    )


def unique_where(name: str, column: str, condition: str) -> Index:
    """A unique index over some of the rows; SQLite and PostgreSQL both have them."""
    return Index(name, column, unique=True, sqlite_where=text(condition), postgresql_where=text(condition))
