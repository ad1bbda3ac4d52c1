"""The history of a connection: how many of its proofs and approvals are kept.

A connection that is added again after its deletion takes the place of the old one. This deletes all
rows of the old one in one transaction, so their number is bounded.
"""

from uuid import UUID

from sqlalchemy import delete, select

from app.store.database import Session
from app.store.models import Approval, Proof

KEPT = 200
_AT_ONCE = 400  # maximum of rows that are deleted in one transaction


def delete_older(
    db: Session, rows: type[Proof | Approval], connection_id: UUID, *others: UUID | None
) -> None:
    """Delete a connection's rows before the newest ones, but not those with the ids `others`.

    The newest are those with the highest ids, which come from the clocks of several machines. So
    name a row that was just added among the others.
    """
    of_connection = select(rows.id).filter_by(connection_id=connection_id)
    first_old = of_connection.order_by(rows.id.desc()).offset(KEPT).limit(1).scalar_subquery()
    kept = [other for other in others if other is not None]
    old = of_connection.where(rows.id <= first_old, rows.id.not_in(kept))
    oldest = old.order_by(rows.id).limit(_AT_ONCE)
    db.execute(delete(rows).where(rows.id.in_(oldest)).execution_options(synchronize_session=False))
