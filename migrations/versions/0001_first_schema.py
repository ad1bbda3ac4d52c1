"""Tenants, External IDs, connections, proofs, API keys and the audit log.

Beside the tables: triggers that let nobody change or delete an audit event, nor rename, reassign or delete an
External ID. They stand in the way of a mistake or of a borrowed connection, not of the database's own superuser.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=8), nullable=False),
        sa.Column("actor_kind", sa.String(length=16), nullable=False),
        sa.Column("actor_id", sa.String(length=64), nullable=True),
        sa.Column("actor_name", sa.String(length=200), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("connection_id", sa.Uuid(), nullable=True),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_events"),
    )
    op.create_index("ix_audit_events_action", "audit_events", ["action", "id"], unique=False)
    op.create_index("ix_audit_events_connection", "audit_events", ["connection_id", "id"], unique=False)
    op.create_index("ix_audit_events_tenant", "audit_events", ["tenant_id", "id"], unique=False)
    op.create_table(
        "tenants",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("reference", sa.String(length=200), nullable=True),
        sa.Column(
            "status",
            sa.Enum(
                "active", "suspended", "deleted", name="status", native_enum=False, create_constraint=True, length=20
            ),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
    )
    op.create_index(
        "uq_tenants_live_reference",
        "tenants",
        ["reference"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("lookup", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("scope_bits", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_api_keys_tenant_id"),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("lookup", name="uq_api_keys_lookup"),
    )
    op.create_index("ix_api_keys_tenant_id", "api_keys", ["tenant_id"], unique=False)
    op.create_table(
        "external_ids",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("value", sa.String(length=80), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "next",
                "current",
                "retiring",
                "retired",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_external_ids_tenant_id"),
        sa.PrimaryKeyConstraint("id", name="pk_external_ids"),
        sa.UniqueConstraint("tenant_id", "id", name="uq_external_ids_tenant_id_id"),
        sa.UniqueConstraint("value", name="uq_external_ids_value"),
    )
    op.create_index(
        "uq_external_ids_one_current",
        "external_ids",
        ["tenant_id"],
        unique=True,
        sqlite_where=sa.text("state = 'current'"),
        postgresql_where=sa.text("state = 'current'"),
    )
    op.create_index(
        "uq_external_ids_one_next",
        "external_ids",
        ["tenant_id"],
        unique=True,
        sqlite_where=sa.text("state = 'next'"),
        postgresql_where=sa.text("state = 'next'"),
    )
    op.create_table(
        "connections",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("external_id_id", sa.Uuid(), nullable=False),
        sa.Column("role_arn", sa.String(length=2048), nullable=False),
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column("permission_set", sa.String(length=64), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "pending",
                "verified",
                "broken",
                "insecure",
                "suspended",
                "deleted",
                name="status",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("role_unique_id", sa.String(length=128), nullable=True),
        sa.Column("proof_id", sa.Uuid(), nullable=True),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint(
            "status <> 'verified' OR (role_unique_id IS NOT NULL AND verified_at IS NOT NULL)",
            name="ck_connections_verified_is_proven",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "external_id_id"],
            ["external_ids.tenant_id", "external_ids.id"],
            name="fk_connections_tenant_id_external_id_id",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_connections_tenant_id"),
        sa.PrimaryKeyConstraint("id", name="pk_connections"),
        sa.UniqueConstraint("tenant_id", "id", name="uq_connections_tenant_id_id"),
        sa.UniqueConstraint("tenant_id", "role_arn", name="uq_connections_tenant_id_role_arn"),
    )
    op.create_index("ix_connections_account_id", "connections", ["account_id", "id"], unique=False)
    op.create_index("ix_connections_status", "connections", ["status", "id"], unique=False)
    op.create_table(
        "proofs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column(
            "verdict",
            sa.Enum(
                "proven",
                "insecure",
                "unassumable",
                "inconclusive",
                name="verdict",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("checks", sa.JSON(), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "connection_id"],
            ["connections.tenant_id", "connections.id"],
            name="fk_proofs_tenant_id_connection_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_proofs_tenant_id"),
        sa.PrimaryKeyConstraint("id", name="pk_proofs"),
    )
    op.create_index("ix_proofs_connection_id", "proofs", ["connection_id"], unique=False)
    _refuse("audit_events", "UPDATE OR DELETE", "audit_events is append-only")
    _refuse("external_ids", "DELETE", "an External ID is kept for ever")
    _refuse("external_ids", "UPDATE OF value, tenant_id", "an External ID is never changed or reassigned")


def downgrade() -> None:
    for table in ("proofs", "connections", "external_ids", "api_keys", "tenants", "audit_events"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION deputy_refuse()")


def _refuse(table: str, events: str, message: str) -> None:
    """A trigger that raises `message` on these events; SQLite wants one trigger for each event."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_FUNCTION)
        if "DELETE" in events:  # TRUNCATE deletes without asking for any row
            op.execute(
                f"CREATE TRIGGER {table}_refuse_truncate BEFORE TRUNCATE ON {table}"
                f" FOR EACH STATEMENT EXECUTE FUNCTION deputy_refuse('{message}')"
            )
        name = f"{table}_refuse_{'delete' if events == 'DELETE' else 'update'}"
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {events} ON {table} FOR EACH ROW EXECUTE FUNCTION deputy_refuse('{message}')"
        )
        return
    for event in events.split(" OR "):
        name = f"{table}_refuse_{event.split()[0].lower()}"
        op.execute(f"CREATE TRIGGER {name} BEFORE {event} ON {table} BEGIN SELECT RAISE(ABORT, '{message}'); END")


_FUNCTION = """
CREATE OR REPLACE FUNCTION deputy_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'restrict_violation';
END $$
"""
