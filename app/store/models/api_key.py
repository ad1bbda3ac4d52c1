"""The table of API keys."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, ForeignKey, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.models.base import Base, CreatedAt, Identified, Text16, Text200


class ApiKey(Identified, Base):
    """An API key.

    Only the SHA-256 of its text is stored: 256 random bits need no slow hash and no salt.
    """

    __tablename__ = "api_keys"
    # A page that is half empty has room for the revoked versions of its rows. PostgreSQL then
    # leaves the five indexes as they are, which halves the time of the UPDATE.
    __table_args__ = ({"postgresql_with": {"fillfactor": 50}},)

    # The 16 hex digits in the key's text, which are not secret
    lookup: Mapped[Text16] = mapped_column(unique=True)
    digest: Mapped[bytes]
    name: Mapped[Text200]
    # Bits of identity.principals.Scope, so that a subset test is one comparison, also in SQL
    scope_bits: Mapped[int]
    # The scopes that a key with keys:delegate may give to other keys
    may_give_bits: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    # The only tenant that the key may act for; None: any tenant
    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("tenants.id"), index=True)
    # The names of the permission sets that the key is for; None: all permission sets
    permission_sets: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    # The key that created this key; None: the operator created it
    made_by: Mapped[UUID | None] = mapped_column(index=True)
    # The successor, which inherited the keys and links that this key created
    replaced_by: Mapped[UUID | None] = mapped_column(index=True)
    created_at: Mapped[CreatedAt]
    last_used_at: Mapped[datetime | None]  # rounded down to the hour (app/identity/key_uses.py)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
