"""Make the schema: the tables of app/store/models, and the triggers that no code can go around.

- Audit events can't be changed or deleted.
- An External ID can't be renamed, given to another tenant, or deleted, and a retired one stays so.
- A change that revokes something counts (app/store/revocation.py).

Until version 1.0 this is the only migration: a change of the schema gives it a new revision, and
the database starts empty.
"""

import uuid

from alembic import op
from sqlalchemy.orm import Session

from app.audit import months
from app.store import revocation
from app.store.models import Configuration
from app.store.models.base import Base

revision = "0010"
down_revision = None

_TRIGGERS = (
    """
    CREATE FUNCTION deputy_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'restrict_violation';
    END $$
    """,
    """
    CREATE TRIGGER audit_events_refuse_update BEFORE UPDATE OR DELETE ON audit_events FOR EACH ROW
    EXECUTE FUNCTION deputy_refuse('audit_events is append-only')
    """,
    # A trigger for TRUNCATE holds for its own table alone: each partition gets one of its own.
    """
    CREATE TRIGGER audit_events_refuse_truncate BEFORE TRUNCATE ON audit_events
    EXECUTE FUNCTION deputy_refuse('audit_events is append-only')
    """,
    """
    CREATE TRIGGER external_ids_refuse_update BEFORE UPDATE OF value, tenant_id ON external_ids
    FOR EACH ROW EXECUTE FUNCTION deputy_refuse('an External ID is never changed or reassigned')
    """,
    """
    CREATE TRIGGER external_ids_refuse_return BEFORE UPDATE OF state ON external_ids FOR EACH ROW
    WHEN (OLD.state = 'retired' AND NEW.state <> 'retired')
    EXECUTE FUNCTION deputy_refuse('a retired External ID stays retired')
    """,
    """
    CREATE TRIGGER external_ids_refuse_delete BEFORE DELETE ON external_ids FOR EACH ROW
    EXECUTE FUNCTION deputy_refuse('an External ID is kept for ever')
    """,
    """
    CREATE TRIGGER external_ids_refuse_truncate BEFORE TRUNCATE ON external_ids
    EXECUTE FUNCTION deputy_refuse('an External ID is kept for ever')
    """,
    revocation.FUNCTION,
    *revocation.triggers(),
)


def upgrade() -> None:
    # A table that is in the way must not be taken for ours
    Base.metadata.create_all(op.get_bind(), checkfirst=False)
    for statement in _TRIGGERS:
        op.execute(statement)
    with Session(op.get_bind()) as db:
        db.add(Configuration(id=1, revocation_counter=1, deployment_id=uuid.uuid4()))
        months.make_default(db)
        while months.make_next(db):
            pass
        db.commit()
