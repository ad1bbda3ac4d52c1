"""The columns of a connection for its role: which one it is, and how it was found."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.store.models.base import Flag, Text12, Text128, Text512
from app.store.models.connection_status import StackState


class Role:
    """The role of a connection. Its ARN never changes."""

    role_arn: Mapped[str] = mapped_column(String(2048))
    account_id: Mapped[Text12]
    # The proven role's unique id (AROA…). A role that is deleted and created again gets another id.
    role_unique_id: Mapped[Text128 | None]
    verified_at: Mapped[datetime | None]
    # True if only the account was given, so that Deputy searches the account for the kit's role.
    # The number of such searches per tenant is limited.
    found_by_account: Mapped[Flag] = mapped_column("sought")
    stack: Mapped[StackState | None]
    # The stack that last registered the role; None if it is unknown
    stack_id: Mapped[Text512 | None]

    @property
    def is_search(self) -> bool:
        """Return whether an account was given, and no role in it was proven yet."""
        never_proven = self.verified_at is None and self.role_unique_id is None
        return self.found_by_account and never_proven
