"""The table of quotas."""

from uuid import UUID

from sqlalchemy import BigInteger, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.store.models.base import Base, Text16


class QuotaUse(Base):
    """How much a tenant, a link or a connection used a quota in its current window."""

    __tablename__ = "quota_uses"
    __table_args__ = (Index("ix_quota_uses_number", "name", "number"),)

    name: Mapped[Text16] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)  # the subject's id; the row need not exist
    number: Mapped[int] = mapped_column(BigInteger)  # the window: time divided by its length
    counted: Mapped[int]  # uses in this window
    counted_before: Mapped[int]  # uses in the window before it
