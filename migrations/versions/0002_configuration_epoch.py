"""The configuration epoch: a number that moves whenever something is taken away from a key, a tenant or a connection.

Every process keeps keys and connections in memory with the epoch at which they were read, and the statement that
records an issuance compares (app/issuing/authorization.py, app/audit/log.py). Triggers move it, in the very transaction
that takes away, so that nobody can forget to: not the code, and not an operator with a SQL prompt.

PostgreSQL: deferred to the commit, so that the one row is locked last and briefly by everybody (no deadlock with
the rows locked before), and once for a transaction, however many rows it changes. SQLite has one writer at a time.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_MOVE = "UPDATE configuration SET epoch = epoch + 1 WHERE id = 1"

# What takes away. Additions don't: a miss reads the database, and nothing negative is kept in memory. A proof that
# confirms doesn't either, or re-proving a million connections would make every request read them again.
_TAKES_AWAY = (
    ("api_keys", "UPDATE", None),  # keys are only ever revoked; whatever else is done to one by hand counts too
    ("api_keys", "DELETE", None),
    (
        "tenants",
        "UPDATE",
        "OLD.status = 'active' AND (NEW.status <> 'active' OR NEW.deleted_at IS NOT NULL OR NEW.id <> OLD.id)",
    ),
    ("tenants", "DELETE", None),
    # The version moves with every change of what an issuance relies on; the rest is for changes made by hand.
    (
        "connections",
        "UPDATE",
        (
            "OLD.status = 'verified' AND (NEW.status <> 'verified' OR NEW.version <> OLD.version"
            " OR NEW.tenant_id <> OLD.tenant_id OR NEW.id <> OLD.id OR NEW.role_arn <> OLD.role_arn"
            " OR NEW.external_id_id <> OLD.external_id_id OR NEW.role_unique_id <> OLD.role_unique_id)"
        ),
    ),
    ("connections", "DELETE", "OLD.status = 'verified'"),
)


def upgrade() -> None:
    op.create_table(
        "configuration",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name="ck_configuration_one_row"),
        sa.PrimaryKeyConstraint("id", name="pk_configuration"),
    )
    op.execute("INSERT INTO configuration (id, epoch) VALUES (1, 1)")
    postgresql = op.get_bind().dialect.name == "postgresql"
    if postgresql:
        op.execute(_FUNCTION)
        for table in ("api_keys", "tenants", "connections"):  # deletes without asking for any row
            op.execute(
                f"CREATE TRIGGER {table}_truncate_moves_epoch AFTER TRUNCATE ON {table}"
                " FOR EACH STATEMENT EXECUTE FUNCTION deputy_move_epoch()"
            )
    for table, event, condition in _TAKES_AWAY:
        when = f" WHEN ({condition})" if condition else ""
        name = f"{table}_{event.lower()}_moves_epoch"
        if postgresql:
            op.execute(
                f"CREATE CONSTRAINT TRIGGER {name} AFTER {event} ON {table} DEFERRABLE INITIALLY DEFERRED"
                f" FOR EACH ROW{when} EXECUTE FUNCTION deputy_move_epoch()"
            )
        else:
            op.execute(f"CREATE TRIGGER {name} AFTER {event} ON {table}{when} BEGIN {_MOVE}; END")


def downgrade() -> None:
    for table, event, _ in _TAKES_AWAY:
        on = f" ON {table}" if op.get_bind().dialect.name == "postgresql" else ""
        op.execute(f"DROP TRIGGER {table}_{event.lower()}_moves_epoch{on}")
    if op.get_bind().dialect.name == "postgresql":
        for table in ("api_keys", "tenants", "connections"):
            op.execute(f"DROP TRIGGER {table}_truncate_moves_epoch ON {table}")
        op.execute("DROP FUNCTION deputy_move_epoch()")
    op.drop_table("configuration")


# xmin is the transaction that wrote the row as it is now: our own, once the first changed row has moved it.
_FUNCTION = f"""
CREATE FUNCTION deputy_move_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {_MOVE} AND xmin <> pg_current_xact_id()::xid;
    RETURN NULL;
END $$
"""
