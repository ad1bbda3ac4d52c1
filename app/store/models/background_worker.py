"""The running background workers, one row each."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.ids import new_id
from app.store.models.base import Base


class BackgroundWorker(Base):
    """A background worker. `kind`: `flask` for one machine, or `celery` over Celery's message broker."""

    __tablename__ = "background_workers"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    kind: Mapped[str] = mapped_column(String(16))
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    clock_ahead: Mapped[float]  # the least seconds by which its clock is ahead of the database's
    # Up to here, it has answered every message that it received from the registration queue; null: it has not asked.
    heard_at: Mapped[datetime | None]
    # When the oldest message was sent that this worker received and has not answered.
    unanswered_at: Mapped[datetime | None]
