"""What belongs to the deployment and to no tenant: its id and epoch, background workers, published
sets.

Several deployments may receive one topic's messages, each through its own queue. The migration
makes the id once, at random; a copy of the database is the same deployment.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, String, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.clock import now
from app.store.models.base import Base, Identified


class Configuration(Base):
    """One row. `epoch` moves when something is taken away: what was read at an earlier epoch may
    be out of date.
    """

    __tablename__ = "configuration"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int] = mapped_column(BigInteger)
    deployment_id: Mapped[UUID]
    # Housekeeping's copy of AUDIT_RETENTION_DAYS, for SQLite's trigger: it lets no younger audit
    # event be deleted.
    audit_kept_days: Mapped[int] = mapped_column(default=0, server_default=text("0"))


class EpochChange(Base):
    """A key, tenant or connection from which something was taken away when the epoch became this
    one.

    The triggers that move the epoch write these rows, and keep those of the last thousand epochs.
    """

    __tablename__ = "epoch_changes"

    epoch: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    row_id: Mapped[UUID] = mapped_column(primary_key=True)


def deployment_id(db: Session) -> UUID:
    """The deployment's id, which never changes."""
    return db.scalars(select(Configuration.deployment_id)).one()


class BackgroundWorker(Identified, Base):
    """A background worker. `kind`: `flask`, or `celery` over Celery's message broker."""

    __tablename__ = "background_workers"

    kind: Mapped[str] = mapped_column(String(16))
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    clock_ahead: Mapped[float]  # the least seconds by which its clock is ahead of the database's
    # Up to here, it has answered every message that it received from the registration queue; null:
    # it has not asked.
    heard_at: Mapped[datetime | None]
    # When the oldest message was sent that this background worker received and has not answered.
    unanswered_at: Mapped[datetime | None]


class PermissionSetVersion(Base):
    """What was asked for under this name and version, as the file had it when it was last
    published.
    """

    __tablename__ = "permission_set_versions"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    content: Mapped[dict[str, Any]]
    published_at: Mapped[datetime] = mapped_column(default=now)
