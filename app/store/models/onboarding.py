"""Onboarding links, and the messages of stacks that took effect."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.clock import now
from app.store.models.base import Base, Identified
from app.store.models.tenant import TenantOwned


class Registration(Identified, TenantOwned, Base):
    """A stack's message that took effect, so that a second delivery has none.

    The tenant is part of the key, so that another tenant's message can't count as this one's first
    delivery.
    """

    __tablename__ = "registrations"
    __table_args__ = (UniqueConstraint("tenant_id", "stack_id", "request_id"),)

    stack_id: Mapped[str] = mapped_column(String(512))
    request_id: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[datetime] = mapped_column(default=now)


class OnboardingLink(Identified, TenantOwned, Base):
    """A URL that opens one tenant's onboarding page and needs no sign-in. Only the SHA-256 of
    its token is kept.
    """

    __tablename__ = "onboarding_links"
    __table_args__ = (Index("ix_onboarding_links_tenant", "tenant_id", "id"),)

    digest: Mapped[bytes] = mapped_column(unique=True)
    permission_set: Mapped[str] = mapped_column(String(64))
    region: Mapped[str] = mapped_column(String(32))  # the one that the page begins with
    made_by: Mapped[UUID | None] = mapped_column(index=True)  # the key
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
