"""The history of a connection: how many of its proofs and approvals are kept.

A connection that is added again after its deletion takes the place of the old one, whose rows go
with it in one transaction. On SQLite all other writers wait meanwhile.
"""

from uuid import UUID

from sqlalchemy import delete, select

from app.store.database import Session
from app.store.models import Approval, Proof

KEPT = 200


def delete_older(
    db: Session, rows: type[Proof | Approval], connection_id: UUID, *others: UUID | None
) -> None:
    """Delete all but a connection's newest rows, and those with the ids `others`."""
    db.flush()
    newest = select(rows.id).filter_by(connection_id=connection_id).order_by(rows.id.desc())
    first_old = newest.offset(KEPT).limit(1).scalar_subquery()
    kept = [other for other in others if other is not None]
    db.execute(
        delete(rows)
        .where(rows.connection_id == connection_id, rows.id <= first_old, rows.id.not_in(kept))
        .execution_options(synchronize_session=False)
    )
