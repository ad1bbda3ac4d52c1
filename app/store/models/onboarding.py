"""Onboarding links, and the messages of customers' stacks."""

import enum
from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.settings.return_urls import LENGTH_MAX as RETURN_URL_MAX
from app.store.models.base import Base, CreatedAt, Identified, TenantOwned, Text64, Text128, Text512


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


class LinkStatus(enum.StrEnum):
    """The status of an onboarding link.

    A link is `connected` once a role that was connected through it is verified, even if the link
    has expired since.
    """

    OPEN = "open"
    CONNECTED = "connected"
    EXPIRED = "expired"
    REVOKED = "revoked"


class OnboardingLink(Identified, TenantOwned, Base):
    """A URL that opens one tenant's onboarding page without a sign-in.

    Only the SHA-256 of its token is stored.
    """

    __tablename__ = "onboarding_links"
    __table_args__ = (
        Index("ix_onboarding_links_tenant", "tenant_id", "id"),
        # Counts a tenant's live links. The rows of the others are kept, any number of them.
        Index("ix_onboarding_links_ends", "tenant_id", "expires_at", "revoked_at"),
    )

    digest: Mapped[bytes] = mapped_column(unique=True)
    permission_set: Mapped[Text64]
    region: Mapped[str] = mapped_column(String(32))  # the region that the page preselects
    made_by: Mapped[UUID | None] = mapped_column(index=True)  # an API key; None: the operator
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    # When a form of its page was first sent. Mail scanners open pages, but send no forms.
    opened_at: Mapped[datetime | None]
    # Where the page's button leads once the role is connected
    return_url: Mapped[str | None] = mapped_column(String(RETURN_URL_MAX))

    # No columns: app/onboarding/page_links.py fills them in for one link
    status = cast("LinkStatus | None", None)
    connections = cast("Sequence[Any]", ())
