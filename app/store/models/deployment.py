"""The tables that belong to the deployment and to no tenant, except audit events.

The first migration creates the deployment's random id. The id distinguishes deployments that
receive messages of the same SNS topic, each through its own queue. A copy of the database keeps the
id.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.store.models.base import Base, CreatedAt, Identified, Text16, Text64


class Configuration(Base):
    """The single row with the deployment's id and its revocation counter.

    Each revocation increases `revocation_counter`. Data that was read at a lower counter may be out
    of date.
    """

    __tablename__ = "configuration"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    revocation_counter: Mapped[int] = mapped_column(BigInteger)
    deployment_id: Mapped[UUID]


class RevokedRow(Base):
    """The id of a row whose change or deletion increased the counter to `revocation_counter`.

    The triggers that increase the counter also write this table. They keep the rows of the last
    thousand revocations.
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
    """A background worker that runs, or was killed less than a day ago."""

    __tablename__ = "background_workers"

    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    # Its clock is at least so many seconds ahead of the database's clock, or behind if negative.
    clock_ahead: Mapped[float]
    # When the registration queue last answered this worker. If the answer contained new messages,
    # this is the send time of the oldest one. None: the worker has not read the queue.
    heard_at: Mapped[datetime | None]
    # The send time of the oldest message that this worker received and has not handled
    unanswered_at: Mapped[datetime | None]


class PermissionSetVersion(Base):
    """The published content of one version of a permission set."""

    __tablename__ = "permission_set_versions"

    name: Mapped[Text64] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    content: Mapped[dict[str, Any]]
    published_at: Mapped[CreatedAt]


class QuotaUse(Base):
    """How much a tenant, a link or a connection used a quota in its current window."""

    __tablename__ = "quota_uses"
    __table_args__ = (Index("ix_quota_uses_number", "name", "number"),)

    name: Mapped[Text16] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)  # the subject's id; no foreign key
    # The number of the window: the time divided by the window's length
    number: Mapped[int] = mapped_column(BigInteger)
    counted: Mapped[int]  # uses in this window
    counted_before: Mapped[int]  # uses in the window before it
