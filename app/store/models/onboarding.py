"""The tables of onboarding links, and of stacks' messages that took effect."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.store.models.base import Base, CreatedAt, Identified, Text64, Text128, Text512
from app.store.models.tenant import TenantOwned


class Registration(Identified, TenantOwned, Base):
    """A stack's message that took effect. The row keeps a second delivery from taking effect.

    The unique constraint includes the tenant. Without it, another tenant could send a message with
    the same ids first, and this tenant's message would count as a second delivery.
    """

    __tablename__ = "registrations"
    __table_args__ = (UniqueConstraint("tenant_id", "stack_id", "request_id"),)

    stack_id: Mapped[Text512]
    request_id: Mapped[Text128]
    created_at: Mapped[CreatedAt]


class OnboardingLink(Identified, TenantOwned, Base):
    """A URL that opens one tenant's onboarding page without a sign-in.

    Only the SHA-256 of its token is stored.
    """

    __tablename__ = "onboarding_links"
    __table_args__ = (Index("ix_onboarding_links_tenant", "tenant_id", "id"),)

    digest: Mapped[bytes] = mapped_column(unique=True)
    permission_set: Mapped[Text64]
    region: Mapped[str] = mapped_column(String(32))  # the region that the page preselects
    made_by: Mapped[UUID | None] = mapped_column(index=True)  # an API key; None: the operator
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
