"""Allow External IDs that another system of the vendor made: their state, and AWS's length."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
# Both constraints accept all that the ones before accepted.
contracts = "0002"

_BEFORE = "'next', 'current', 'retiring', 'retired'"
_STATES = f"'imported', {_BEFORE}"
_REFUSE_UPDATE = """
    CREATE TRIGGER external_ids_refuse_update BEFORE UPDATE OF value, tenant_id ON external_ids
    FOR EACH ROW EXECUTE FUNCTION deputy_refuse('an External ID is never changed or reassigned')
"""
_REFUSE_RETURN = {
    "postgresql": """
        CREATE TRIGGER external_ids_refuse_return BEFORE UPDATE OF state ON external_ids FOR EACH
        ROW WHEN (OLD.state = 'retired' AND NEW.state <> 'retired')
        EXECUTE FUNCTION deputy_refuse('a retired External ID stays retired')
    """,
    "sqlite": """
        CREATE TRIGGER external_ids_refuse_return BEFORE UPDATE OF state ON external_ids
        WHEN OLD.state = 'retired' AND NEW.state <> 'retired'
        BEGIN SELECT RAISE(ABORT, 'a retired External ID stays retired'); END
    """,
}


def upgrade() -> None:
    _alter(80, 1224, _BEFORE, _STATES)
    op.execute(_REFUSE_RETURN[op.get_bind().dialect.name])
    op.create_index(
        "ix_external_ids_imported",
        "external_ids",
        ["tenant_id"],
        unique=False,
        sqlite_where=sa.text("state = 'imported'"),
        postgresql_where=sa.text("state = 'imported'"),
    )


def downgrade() -> None:
    op.drop_index("ix_external_ids_imported", "external_ids")
    on_table = " ON external_ids" if op.get_bind().dialect.name == "postgresql" else ""
    op.execute(f"DROP TRIGGER external_ids_refuse_return{on_table}")
    _alter(1224, 80, _STATES, _BEFORE)


def _alter(old_length: int, length: int, old_states: str, states: str) -> None:
    """Replace the value's length and the possible states. No row changes."""
    if op.get_bind().dialect.name == "postgresql":
        # PostgreSQL alters no column that a trigger names
        op.execute("DROP TRIGGER external_ids_refuse_update ON external_ids")
        op.alter_column("external_ids", "value", type_=sa.String(length))
        op.execute(_REFUSE_UPDATE)
        op.execute("ALTER TABLE external_ids DROP CONSTRAINT ck_external_ids_state")
        op.execute(
            "ALTER TABLE external_ids ADD CONSTRAINT ck_external_ids_state"
            f" CHECK (state IN ({states}))"
        )
        return
    # SQLite can't alter a constraint, and its documentation gives this way for a change that no
    # stored row contradicts (lang_altertable.html, section 7). A copy of the table would need its
    # triggers, which refuse a deletion, to be removed for a while.
    version = op.get_bind().scalar(sa.text("PRAGMA schema_version"))
    op.execute("PRAGMA writable_schema = ON")
    op.execute(
        sa.text(
            "UPDATE sqlite_schema SET sql = replace(replace(sql, :old_length, :length),"
            " :old_states, :states) WHERE type = 'table' AND name = 'external_ids'"
        ).bindparams(
            old_length=f"VARCHAR({old_length})",
            length=f"VARCHAR({length})",
            old_states=old_states,
            states=states,
        )
    )
    op.execute(f"PRAGMA schema_version = {version + 1}")
    op.execute("PRAGMA writable_schema = RESET")
