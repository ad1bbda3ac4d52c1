"""The tables that belong to the deployment and to no tenant.

Several deployments may receive messages of one topic, each through its own queue. The migration
creates the deployment's id once, at random. A copy of the database is the same deployment.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, String, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.store.models.base import Base, CreatedAt, Identified, Text16, Text64


class Configuration(Base):
    """The single row with the deployment's id and its revocation counter.

    A revocation increases `revocation_counter`. What was read at a lower value may be out of date.
    """

    __tablename__ = "configuration"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    revocation_counter: Mapped[int] = mapped_column(BigInteger)
    deployment_id: Mapped[UUID]
    # Housekeeping's copy of AUDIT_RETENTION_DAYS, for SQLite's trigger. It refuses to delete
    # younger audit events.
    audit_kept_days: Mapped[int] = mapped_column(default=0, server_default=text("0"))


class RevokedRow(Base):
    """A key, tenant or connection whose revocation increased the counter to `revocation_counter`.

    The triggers that increase the counter write these rows, and keep those of the last thousand
    revocations.
    """

    __tablename__ = "revoked_rows"

    revocation_counter: Mapped[int] = mapped_column(
        BigInteger, primary_key=True, autoincrement=False
    )
    row_id: Mapped[UUID] = mapped_column(primary_key=True)


def deployment_id(db: Session) -> UUID:
    """Return the deployment's id, which never changes."""
    return db.scalars(select(Configuration.deployment_id)).one()


class BackgroundWorker(Identified, Base):
    """A background worker. `kind`: `flask`, or `celery` over Celery's message broker."""

    __tablename__ = "background_workers"

    kind: Mapped[Text16]
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    clock_ahead: Mapped[float]  # seconds by which its clock is ahead of the database's, lower bound
    # It has answered every message that it received from the registration queue until this time.
    # None: it did not ask the queue.
    heard_at: Mapped[datetime | None]
    # Send time of the oldest message that this background worker received and did not answer.
    unanswered_at: Mapped[datetime | None]


class PermissionSetVersion(Base):
    """The content of a permission set's version, as last published."""

    __tablename__ = "permission_set_versions"

    name: Mapped[Text64] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    content: Mapped[dict[str, Any]]
    published_at: Mapped[CreatedAt]
