"""The table of quotas."""

from uuid import UUID

from sqlalchemy import BigInteger, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.store.models.base import Base, Text16


class QuotaUse(Base):
    """The recent use of a quota by a tenant, a link or a connection."""

    __tablename__ = "quota_uses"
    __table_args__ = (Index("ix_quota_uses_number", "name", "number"),)

    name: Mapped[Text16] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)  # the subject's id; the row need not exist
    number: Mapped[int] = mapped_column(BigInteger)  # the window's: time divided by its length
    counted: Mapped[int]  # in that window
    counted_before: Mapped[int]  # in the previous window
