"""Alembic's entry point. The engine comes from the caller, or else from the service's own
settings.
"""

import os
import socket
from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection

from app.config import Config
from app.store import models  # noqa: F401  the tables
from app.store.database import Database, UtcDateTime, postgresql_limits
from app.store.models.base import Base


def render_item(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Migrations name plain SQLAlchemy types: they must still run when the model's own types
    have changed.
    """
    return (
        "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False
    )


def include_name(name: str | None, kind: str, _parents: Any) -> bool:
    """Partitions of the audit log are no tables of the models."""
    return kind != "table" or not (name or "").startswith("audit_events_")


def lift_limits(connection: Connection) -> None:
    """Lift the time limits of this connection, for migrations.

    Invalidate the connection afterwards, or the pool reuses it without limits. The lock timeout is
    short, because all requests that need the table wait behind a migration that waits for a lock.
    """
    if connection.dialect.name == "postgresql":
        psycopg: Any = connection.connection.dbapi_connection
        # With tcp_user_timeout one lost keepalive would end a statement, and some take minutes
        with socket.socket(fileno=os.dup(psycopg.fileno())) as used:
            if used.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
                used.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
        for name in postgresql_limits(psycopg.info.server_version):
            connection.exec_driver_sql(f"SET {name} = 0")
        connection.exec_driver_sql("SET lock_timeout = '300ms'")
        connection.commit()


engine = (
    context.config.attributes.get("engine")
    or Database(Config.from_environment().database.database_url).engine
)

with engine.connect().execution_options(deputy_writes=True) as connection:
    lift_limits(connection)
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_item=render_item,
        include_name=include_name,
        transactional_ddl=True,
    )
    try:
        with context.begin_transaction():
            context.run_migrations()
    finally:
        # Not detached before: SQLAlchemy can't set a detached connection to autocommit, which
        # concurrent indexes need.
        connection.invalidate()
