"""Alembic's entry point. The engine comes from the caller, or else from the service's own
settings.
"""

from typing import Any

from alembic import context

from app.config import Config
from app.store import models  # noqa: F401  the tables
from app.store.database import Database
from app.store.models.base import Base


def include_name(name: str | None, kind: str, _parents: Any) -> bool:
    """Partitions of the audit log are no tables of the models."""
    return kind != "table" or not (name or "").startswith("audit_events_")


engine = (
    context.config.attributes.get("engine")
    or Database(Config.from_environment().database.database_url).engine
)

with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_name=include_name,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()
