"""The table of proofs, the names of their checks, their verdicts, and why a proof is made."""

import enum
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.models.base import Base, Identified, TenantOwned, same_tenant

# The names of the checks in a proof
OWN = "own_external_id_accepted"
ACCOUNT = "account_matches"
MISSING = "missing_external_id_refused"
FOREIGN = "foreign_external_id_refused"
STRANGER = "stranger_refused"
DEMANDS = "trust_policy_demands_external_id"
ONLY_US = "trust_policy_names_only_us"


class Verdict(enum.StrEnum):
    """The verdict of a proof. `inconclusive` does not change a connection's status."""

    PROVEN = "proven"
    INSECURE = "insecure"
    UNASSUMABLE = "unassumable"
    INCONCLUSIVE = "inconclusive"


class Trigger(enum.StrEnum):
    """The reason for a proof."""

    CREATED = "created"
    SCHEDULED = "scheduled"
    REQUESTED = "requested"  # a person asked for it
    REGISTERED = "registered"  # a stack's message
    ROTATION = "rotation"
    ISSUING = "issuing"  # AWS refused a session, or an issuance needed a fresh proof
    RESUMED = "resumed"


# Proofs with these triggers are frequent, and no request waits for them.
ROUTINE = frozenset({Trigger.SCHEDULED, Trigger.ISSUING, Trigger.ROTATION})
# Nobody asked for a proof with these triggers. If its result is the latest one's, it adds no row.
UNASKED = ROUTINE | {Trigger.REGISTERED}


class Proof(Identified, TenantOwned, Base):
    """The result of a proof. `count`: how many proofs in a row had this result.

    `Connection.proof` is the latest row.
    """

    __tablename__ = "proofs"
    __table_args__ = (
        same_tenant("connection_id", "connections", ondelete="CASCADE"),
        Index("ix_proofs_of_connection", "connection_id", "id"),
    )

    connection_id: Mapped[UUID]
    verdict: Mapped[Verdict]
    checks: Mapped[list[Any]]  # [{"name", "outcome", "detail"}], in the order of the checks
    # A list of objects with "name" and "detail"
    warnings: Mapped[list[Any]] = mapped_column(default=list, server_default=text("'[]'"))
    trigger: Mapped[Trigger]  # the first proof's
    first_at: Mapped[datetime]
    checked_at: Mapped[datetime]  # time of the last of these proofs
    count: Mapped[int] = mapped_column(default=1, server_default=text("1"))

    def passed_since(self, oldest: datetime) -> bool:
        return self.verdict is Verdict.PROVEN and self.checked_at >= oldest
