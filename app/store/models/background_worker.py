"""The background workers that are there, a row each."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.ids import new_id
from app.store.models.base import Base


class BackgroundWorker(Base):
    """A process that proves what is due. `flask` is the worker of one machine, `celery` one over Celery's broker."""

    __tablename__ = "background_workers"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    kind: Mapped[str] = mapped_column(String(16))
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    clock_ahead: Mapped[float]  # seconds by which the worker's clock is ahead of the database's, at least
    # By then it had answered all that the registration queue held, as far as it was shown; null: it has not asked.
    heard_at: Mapped[datetime | None]
    # When the oldest message was sent that this worker was shown and has not answered.
    unanswered_at: Mapped[datetime | None]
