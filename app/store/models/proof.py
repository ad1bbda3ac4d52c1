"""The table of proofs, and the names of their checks."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.models.base import Base, Identified, TenantOwned, same_tenant
from app.store.models.connection_status import Trigger, Verdict

# The names of the checks in a proof
OWN = "own_external_id_accepted"
ACCOUNT = "account_matches"
MISSING = "missing_external_id_refused"
FOREIGN = "foreign_external_id_refused"
STRANGER = "stranger_refused"
DEMANDS = "trust_policy_demands_external_id"
ONLY_US = "trust_policy_names_only_us"
# The first entry whose checks have all failed describes the failure. `{now}` is replaced by " now"
# if the connection was proven before, and by nothing otherwise.
_FAILED = (
    ({MISSING, FOREIGN}, "The role{now} accepts any External ID."),
    ({MISSING}, "The role{now} lets us in without an External ID."),
    ({FOREIGN}, "The role{now} accepts an External ID that is not this tenant's."),
    ({STRANGER}, "The role{now} lets in another AWS account than ours."),
    ({DEMANDS}, "The trust policy{now} has a statement that lets us in without the External ID."),
    ({OWN}, "The role{now} refuses this tenant's External ID, or was deleted."),
    ({ACCOUNT}, "The role is{now} in another account than its ARN says."),
)


class Proof(Identified, TenantOwned, Base):
    """The result of a proof. `count`: how many proofs in a row had this result.

    `Connection.proof` is the latest row.
    """

    __tablename__ = "proofs"
    __table_args__ = (
        same_tenant("connection_id", "connections", ondelete="CASCADE"),
        Index("ix_proofs_connection_id", "connection_id"),
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

    def failure(self, *, before: bool) -> str | None:
        """Return a sentence for the customer about what failed; None if no check failed.

        `before`: whether an earlier proof passed.
        """
        failed = set()
        for check in self.checks:
            if check["outcome"] == "failed":
                failed.add(check["name"])
        for names, words in _FAILED:
            if names <= failed:
                return words.format(now=" now" if before else "")
        return None
