"""Alembic's entry point. The engine comes from the caller, or else from the service's own settings."""

from typing import Any, Literal

from alembic import context

from app.config import Config
from app.store import models  # noqa: F401  the tables
from app.store.database import Database, UtcDateTime, without_limits
from app.store.models.base import Base


def render_item(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Migrations name plain SQLAlchemy types: they must still run when the model's own types have changed."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


engine = context.config.attributes.get("engine") or Database(Config.from_environment().database_url).engine

with engine.connect().execution_options(deputy_writes=True) as connection:
    without_limits(connection)
    context.configure(
        connection=connection, target_metadata=Base.metadata, render_item=render_item, transactional_ddl=True
    )
    with context.begin_transaction():
        context.run_migrations()
