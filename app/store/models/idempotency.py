"""The table of requests with an Idempotency-Key."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from app.store.models.base import Base, CreatedAt, Identified


class IdempotentRequest(Identified, Base):
    """A request with an Idempotency-Key: what it changed, and how it was answered.

    The row is added in the first transaction in which the request writes. `owner` is the attempt
    that may write. A retry takes over the row of a killed attempt when its lease has expired.
    """

    __tablename__ = "idempotent_requests"
    __table_args__ = (
        Index("uq_idempotent_requests_digest", "api_key_id", "digest", unique=True),
        Index("ix_idempotent_requests_counted_for", "counted_for", "api_key_id", "created_at"),
    )

    api_key_id: Mapped[UUID]
    counted_for: Mapped[UUID]  # the tenant of a bound key, or else the key
    digest: Mapped[bytes]  # SHA-256 of method, path and Idempotency-Key
    body_digest: Mapped[bytes]
    owner: Mapped[UUID]
    leased_until: Mapped[datetime]
    # Whether the request changed something, and the ids of the tenant and of what it changed
    has_effect: Mapped[bool] = mapped_column(default=False)
    tenant_id: Mapped[UUID | None]
    thing_id: Mapped[UUID | None]
    # The answer; None until it was rendered
    status: Mapped[int | None]
    answer: Mapped[bytes | None]
    created_at: Mapped[CreatedAt]
