"""The versions of permission sets that were published."""

from datetime import datetime
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.clock import now
from app.store.models.base import Base


class PermissionSetVersion(Base):
    """What was asked for under this name and version, as the file had it when it was last published."""

    __tablename__ = "permission_set_versions"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    content: Mapped[dict[str, Any]]
    published_at: Mapped[datetime] = mapped_column(default=now)
