"""A deployment's own state: its id, its epoch, and the rows for which the epoch moved.

Several deployments may receive one topic's messages, each through its own queue. The migration makes the id once, at
random; a copy of the database is the same deployment.
"""

from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.store.models.base import Base


class Configuration(Base):
    """One row. `epoch` moves when something is taken away: what was read at an earlier epoch may be out of date."""

    __tablename__ = "configuration"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int] = mapped_column(BigInteger)
    deployment_id: Mapped[UUID]
    # Housekeeping's copy of AUDIT_RETENTION_DAYS, for SQLite's trigger: it lets no younger audit event be deleted.
    audit_kept_days: Mapped[int] = mapped_column(default=0, server_default=text("0"))


class EpochChange(Base):
    """A key, tenant or connection from which something was taken away when the epoch became this one.

    The triggers that move the epoch write these rows, and keep those of the last thousand epochs.
    """

    __tablename__ = "epoch_changes"

    epoch: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    row_id: Mapped[UUID] = mapped_column(primary_key=True)


def deployment_id(db: Session) -> UUID:
    """The deployment's id, which never changes."""
    return db.scalars(select(Configuration.deployment_id)).one()
