"""What a deployment keeps of itself: the one row of its configuration, with the id that tells it from others; and the
rows that its epoch moved for.

Several deployments may hear of one topic, each through a queue of its own. The id is made once, by the migration, and
says nothing; a copy of the database is the same deployment.
"""

from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.store.models.base import Base


class Configuration(Base):
    """One row. `epoch` moves when something is taken away; what was read at an earlier one may hold no more."""

    __tablename__ = "configuration"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int] = mapped_column(BigInteger)
    deployment_id: Mapped[UUID]


class EpochChange(Base):
    """A key, tenant or connection from which something was taken away when the epoch became this one.

    The triggers that move the epoch write them, and keep those of the last thousand epochs.
    """

    __tablename__ = "epoch_changes"

    epoch: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    row_id: Mapped[UUID] = mapped_column(primary_key=True)


def deployment_id(db: Session) -> UUID:
    """The deployment's id; the same for as long as its database lives."""
    return db.scalars(select(Configuration.deployment_id)).one()
