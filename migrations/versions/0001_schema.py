"""Make the schema: the tables of app/store/models, and the triggers that no code can go around.

- Audit events can't be changed or deleted. On SQLite housekeeping may delete one that is older than
  the retention.
- An External ID can't be renamed, given to another tenant, or deleted.
- A change that revokes something counts (app/store/revocation.py).

On PostgreSQL the audit log is partitioned by the month of its ids, which begin with the time
(app/audit/months.py).
"""

import uuid
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MONTHS = 4  # partitions: this month and the next ones


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
        sa.Column("client_address", sa.String(length=45), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("access_key_id", sa.String(length=128), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
        postgresql_partition_by="RANGE (id)",
    )
    op.create_index(
        "ix_audit_events_access_key",
        "audit_events",
        ["access_key_id", "id"],
        unique=False,
        sqlite_where=sa.text("access_key_id IS NOT NULL"),
        postgresql_where=sa.text("access_key_id IS NOT NULL"),
    )
    op.create_index(
        "ix_audit_events_action",
        "audit_events",
        ["action", "id"],
        unique=False,
        sqlite_where=sa.text("action <> 'credentials.issued'"),
        postgresql_where=sa.text("action <> 'credentials.issued'"),
    )
    op.create_index(
        "ix_audit_events_connection", "audit_events", ["connection_id", "id"], unique=False
    )
    op.create_index(
        "ix_audit_events_connection_action",
        "audit_events",
        ["connection_id", "action", "id"],
        unique=False,
        sqlite_where=sa.text("(action < 'credentials.issued' OR action > 'credentials.issued')"),
        postgresql_where=sa.text(
            "(action < 'credentials.issued' OR action > 'credentials.issued')"
        ),
    )
    op.create_index("ix_audit_events_tenant", "audit_events", ["tenant_id", "id"], unique=False)
    op.create_index(
        "ix_audit_events_tenant_action",
        "audit_events",
        ["tenant_id", "action", "id"],
        unique=False,
        sqlite_where=sa.text("(action < 'credentials.issued' OR action > 'credentials.issued')"),
        postgresql_where=sa.text(
            "(action < 'credentials.issued' OR action > 'credentials.issued')"
        ),
    )
    op.create_table(
        "background_workers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("clock_ahead", sa.Double(), nullable=False),
        sa.Column("heard_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("unanswered_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_background_workers")),
    )
    op.create_table(
        "configuration",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revocation_counter", sa.BigInteger(), nullable=False),
        sa.Column("deployment_id", sa.Uuid(), nullable=False),
        sa.Column("audit_kept_days", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_configuration_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_configuration")),
    )
    op.create_table(
        "permission_set_versions",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", "version", name=op.f("pk_permission_set_versions")),
    )
    op.create_table(
        "quota_uses",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("counted", sa.Integer(), nullable=False),
        sa.Column("counted_before", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", "id", name=op.f("pk_quota_uses")),
    )
    op.create_index("ix_quota_uses_number", "quota_uses", ["name", "number"], unique=False)
    op.create_table(
        "revoked_rows",
        sa.Column("revocation_counter", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("row_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("revocation_counter", "row_id", name=op.f("pk_revoked_rows")),
    )
    op.create_table(
        "tenants",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column(
            "name_folded",
            sa.String(length=200, collation="C").with_variant(sa.String(length=200), "sqlite"),
            server_default=sa.text("''"),
            nullable=False,
        ),
        sa.Column("reference", sa.String(length=200), nullable=True),
        sa.Column(
            "status",
            sa.Enum(
                "active",
                "suspended",
                "deleted",
                name="status",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("made_by", sa.Uuid(), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "registration_generation", sa.Integer(), server_default=sa.text("1"), nullable=False
        ),
        sa.Column("declares_accounts", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("suspended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("suspended_by", sa.String(length=16), nullable=True),
        sa.Column("suspended_by_bound", sa.Boolean(), nullable=True),
        sa.Column("suspended_reason", sa.String(length=200), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
    )
    op.create_index("ix_tenants_made_by", "tenants", ["made_by", "created_at"], unique=False)
    op.create_index("ix_tenants_name_folded", "tenants", ["name_folded", "id"], unique=False)
    op.create_index("ix_tenants_status", "tenants", ["status", "id"], unique=False)
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
        sa.Column("may_give_bits", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("permission_sets", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("made_by", sa.Uuid(), nullable=True),
        sa.Column("replaced_by", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_api_keys_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("lookup", name=op.f("uq_api_keys_lookup")),
    )
    op.create_index(op.f("ix_api_keys_made_by"), "api_keys", ["made_by"], unique=False)
    op.create_index(op.f("ix_api_keys_replaced_by"), "api_keys", ["replaced_by"], unique=False)
    op.create_index(op.f("ix_api_keys_tenant_id"), "api_keys", ["tenant_id"], unique=False)
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
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_external_ids_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_external_ids")),
        sa.UniqueConstraint("tenant_id", "id", name=op.f("uq_external_ids_tenant_id_id")),
        sa.UniqueConstraint("value", name=op.f("uq_external_ids_value")),
    )
    op.create_index(
        "ix_external_ids_rotating",
        "external_ids",
        ["tenant_id"],
        unique=False,
        sqlite_where=sa.text("state IN ('next', 'retiring')"),
        postgresql_where=sa.text("state IN ('next', 'retiring')"),
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
        "onboarding_links",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("permission_set", sa.String(length=64), nullable=False),
        sa.Column("region", sa.String(length=32), nullable=False),
        sa.Column("made_by", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_onboarding_links_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_onboarding_links")),
        sa.UniqueConstraint("digest", name=op.f("uq_onboarding_links_digest")),
    )
    op.create_index(
        op.f("ix_onboarding_links_made_by"), "onboarding_links", ["made_by"], unique=False
    )
    op.create_index(
        "ix_onboarding_links_tenant", "onboarding_links", ["tenant_id", "id"], unique=False
    )
    op.create_table(
        "registrations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("stack_id", sa.String(length=512), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_registrations_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registrations")),
        sa.UniqueConstraint(
            "tenant_id",
            "stack_id",
            "request_id",
            name=op.f("uq_registrations_tenant_id_stack_id_request_id"),
        ),
    )
    op.create_table(
        "tenant_accounts",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_tenant_accounts_tenant_id")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "account_id", name=op.f("pk_tenant_accounts")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "connections",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("external_id_id", sa.Uuid(), nullable=False),
        sa.Column("role_arn", sa.String(length=2048), nullable=False),
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "pending",
                "verified",
                "broken",
                "ended",
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
        sa.Column("due_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "due_for",
            sa.Enum(
                "created",
                "scheduled",
                "requested",
                "registered",
                "rotation",
                "issuing",
                "resumed",
                name="due_for",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("sought", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column(
            "stack",
            sa.Enum(
                "made",
                "rolled_back",
                "deleted",
                name="stack",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=True,
        ),
        sa.Column("stack_id", sa.String(length=512), nullable=True),
        sa.Column("refuses", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("tried_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refusing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("access_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_by_bound", sa.Boolean(), nullable=True),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("suspended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("suspended_by", sa.String(length=16), nullable=True),
        sa.Column("suspended_by_bound", sa.Boolean(), nullable=True),
        sa.Column("suspended_reason", sa.String(length=200), nullable=True),
        sa.Column("permission_set", sa.String(length=64), nullable=False),
        sa.Column("permission_set_version", sa.Integer(), nullable=True),
        sa.Column("tagged_set", sa.String(length=64), nullable=True),
        sa.Column("stack_set", sa.String(length=64), nullable=True),
        sa.Column("reads_itself", sa.Boolean(), nullable=True),
        sa.Column("approval_id", sa.Uuid(), nullable=True),
        sa.Column("move_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "status <> 'verified' OR (role_unique_id IS NOT NULL AND verified_at IS NOT NULL)",
            name=op.f("ck_connections_verified_is_proven"),
        ),
        sa.CheckConstraint(
            "status <> 'verified' OR approval_id IS NULL",
            name=op.f("ck_connections_verified_is_approved"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "external_id_id"],
            ["external_ids.tenant_id", "external_ids.id"],
            name=op.f("fk_connections_tenant_id_external_id_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_connections_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_connections")),
        sa.UniqueConstraint("tenant_id", "id", name=op.f("uq_connections_tenant_id_id")),
        sa.UniqueConstraint(
            "tenant_id", "role_arn", name=op.f("uq_connections_tenant_id_role_arn")
        ),
    )
    op.create_index("ix_connections_account_id", "connections", ["account_id", "id"], unique=False)
    op.create_index(
        "ix_connections_due_first",
        "connections",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("proof_id IS NULL"),
        postgresql_where=sa.text("proof_id IS NULL"),
    )
    op.create_index(
        "ix_connections_due_routine",
        "connections",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("due_for = 'scheduled' AND status <> 'pending'"),
        postgresql_where=sa.text("due_for = 'scheduled' AND status <> 'pending'"),
    )
    op.create_index(
        "ix_connections_due_urgent",
        "connections",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("due_for <> 'scheduled' OR status = 'pending'"),
        postgresql_where=sa.text("due_for <> 'scheduled' OR status = 'pending'"),
    )
    op.create_index(
        "ix_connections_moving",
        "connections",
        ["tenant_id", "id"],
        unique=False,
        sqlite_where=sa.text("move_id IS NOT NULL"),
        postgresql_where=sa.text("move_id IS NOT NULL"),
    )
    op.create_index(
        "ix_connections_standing",
        "connections",
        ["tenant_id", "status", "refuses", "id"],
        unique=False,
    )
    op.create_index("ix_connections_status", "connections", ["status", "id"], unique=False)
    op.create_index(op.f("ix_connections_tried_at"), "connections", ["tried_at"], unique=False)
    op.create_table(
        "approvals",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column(
            "subject",
            sa.Enum(
                "permission_set",
                name="subject",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("permission_set", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("asked_by", sa.String(length=16), nullable=False),
        sa.Column("asked_by_id", sa.String(length=64), nullable=True),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "decision",
            sa.Enum(
                "approved",
                "not_needed",
                "withdrawn",
                name="decision",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=True,
        ),
        sa.Column("decided_by", sa.String(length=16), nullable=True),
        sa.Column("decided_by_id", sa.String(length=64), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "connection_id"],
            ["connections.tenant_id", "connections.id"],
            name=op.f("fk_approvals_tenant_id_connection_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_approvals_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approvals")),
    )
    op.create_index("ix_approvals_connection_id", "approvals", ["connection_id"], unique=False)
    op.create_table(
        "rotations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("external_id_id", sa.Uuid(), nullable=False),
        sa.Column("next_external_id_id", sa.Uuid(), nullable=False),
        sa.Column("emergency", sa.Boolean(), nullable=False),
        sa.Column("by_bound", sa.Boolean(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "external_id_id"],
            ["external_ids.tenant_id", "external_ids.id"],
            name=op.f("fk_rotations_tenant_id_external_id_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "next_external_id_id"],
            ["external_ids.tenant_id", "external_ids.id"],
            name=op.f("fk_rotations_tenant_id_next_external_id_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_rotations_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rotations")),
    )
    op.create_index("ix_rotations_tenant_id", "rotations", ["tenant_id", "id"], unique=False)
    op.create_table(
        "external_id_trials",
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("external_id_id", sa.Uuid(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refused_again_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "connection_id"],
            ["connections.tenant_id", "connections.id"],
            name=op.f("fk_external_id_trials_tenant_id_connection_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "external_id_id"],
            ["external_ids.tenant_id", "external_ids.id"],
            name=op.f("fk_external_id_trials_tenant_id_external_id_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_external_id_trials_tenant_id")
        ),
        sa.PrimaryKeyConstraint(
            "connection_id", "external_id_id", name=op.f("pk_external_id_trials")
        ),
    )
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
        sa.Column("warnings", sa.JSON(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column(
            "trigger",
            sa.Enum(
                "created",
                "scheduled",
                "requested",
                "registered",
                "rotation",
                "issuing",
                "resumed",
                name="trigger",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("count", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "connection_id"],
            ["connections.tenant_id", "connections.id"],
            name=op.f("fk_proofs_tenant_id_connection_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_proofs_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proofs")),
    )
    op.create_index("ix_proofs_connection_id", "proofs", ["connection_id"], unique=False)
    configuration = sa.table(
        "configuration",
        sa.column("id"),
        sa.column("revocation_counter"),
        sa.column("deployment_id", sa.Uuid()),
    )
    op.execute(
        configuration.insert().values(id=1, revocation_counter=1, deployment_id=uuid.uuid4())
    )
    postgresql = op.get_bind().dialect.name == "postgresql"
    for statement in _POSTGRESQL if postgresql else _SQLITE:
        op.execute(statement)
    if postgresql:
        _make_partitions()


def _make_partitions() -> None:
    """Make the default partition, and those of the next months. Housekeeping makes the later
    ones.
    """
    values = {"audit_events_default": "DEFAULT"}
    month = _first_of_month(op.get_bind().scalar(sa.text("SELECT now()")))
    for _ in range(_MONTHS):
        following = _first_of_month(month + timedelta(days=31))
        values[f"audit_events_{month:%Y_%m}"] = (
            f"FOR VALUES FROM ('{_first_id(month)}') TO ('{_first_id(following)}')"
        )
        month = following
    for name, partition in values.items():
        op.execute(f"CREATE TABLE {name} PARTITION OF audit_events {partition}")
        # Unlike a trigger for rows, one for TRUNCATE holds for its own table alone.
        op.execute(_REFUSE_TRUNCATE.format(name))
    op.execute(_REFUSE_TRUNCATE.format("audit_events"))


def _first_of_month(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _first_id(time: datetime) -> uuid.UUID:
    return uuid.UUID(int=int(time.timestamp() * 1000) << 80)


def downgrade() -> None:
    for table in (
        "proofs",
        "external_id_trials",
        "rotations",
        "approvals",
        "connections",
        "tenant_accounts",
        "registrations",
        "onboarding_links",
        "external_ids",
        "api_keys",
        "tenants",
        "revoked_rows",
        "quota_uses",
        "permission_set_versions",
        "configuration",
        "background_workers",
        "audit_events",
    ):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION deputy_refuse")
        op.execute("DROP FUNCTION deputy_revoke")


_REFUSE_TRUNCATE = """
    CREATE TRIGGER audit_events_refuse_truncate BEFORE TRUNCATE ON {}
    EXECUTE FUNCTION deputy_refuse('audit_events is append-only')
"""
_POSTGRESQL = (
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
    """
    CREATE TRIGGER external_ids_refuse_update BEFORE UPDATE OF value, tenant_id ON external_ids
    FOR EACH ROW EXECUTE FUNCTION deputy_refuse('an External ID is never changed or reassigned')
    """,
    """
    CREATE TRIGGER external_ids_refuse_delete BEFORE DELETE ON external_ids FOR EACH ROW
    EXECUTE FUNCTION deputy_refuse('an External ID is kept for ever')
    """,
    """
    CREATE TRIGGER external_ids_refuse_truncate BEFORE TRUNCATE ON external_ids
    EXECUTE FUNCTION deputy_refuse('an External ID is kept for ever')
    """,
    """
    CREATE FUNCTION deputy_revoke() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE configuration SET revocation_counter = revocation_counter + 1 WHERE id = 1 AND
            xmin <> pg_current_xact_id()::xid;
        IF FOUND THEN
            DELETE FROM revoked_rows WHERE revocation_counter < (SELECT revocation_counter -
                1000 FROM configuration);
        END IF;
        IF TG_LEVEL = 'ROW' THEN
            INSERT INTO revoked_rows (revocation_counter, row_id) SELECT revocation_counter,
                OLD.id FROM configuration WHERE true ON CONFLICT DO NOTHING;
        ELSE
            UPDATE configuration SET revocation_counter = revocation_counter + 2 WHERE id = 1;
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER api_keys_update_revokes AFTER UPDATE ON api_keys DEFERRABLE
    INITIALLY DEFERRED FOR EACH ROW WHEN ((true AND (OLD.id IS DISTINCT FROM NEW.id OR
    OLD.lookup IS DISTINCT FROM NEW.lookup OR OLD.digest IS DISTINCT FROM NEW.digest OR
    OLD.scope_bits IS DISTINCT FROM NEW.scope_bits OR OLD.may_give_bits IS DISTINCT FROM
    NEW.may_give_bits OR OLD.tenant_id IS DISTINCT FROM NEW.tenant_id OR
    OLD.permission_sets::text IS DISTINCT FROM NEW.permission_sets::text OR OLD.expires_at IS
    DISTINCT FROM NEW.expires_at OR OLD.revoked_at IS DISTINCT FROM NEW.revoked_at))) EXECUTE
    FUNCTION deputy_revoke()
    """,
    """
    CREATE CONSTRAINT TRIGGER tenants_update_revokes AFTER UPDATE ON tenants DEFERRABLE
    INITIALLY DEFERRED FOR EACH ROW WHEN ((OLD.status = 'active' AND (OLD.id IS DISTINCT FROM
    NEW.id OR OLD.status IS DISTINCT FROM NEW.status OR OLD.deleted_at IS DISTINCT FROM
    NEW.deleted_at))) EXECUTE FUNCTION deputy_revoke()
    """,
    """
    CREATE CONSTRAINT TRIGGER external_ids_update_revokes AFTER UPDATE ON external_ids
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((OLD.withdrawn_at IS NULL AND
    (OLD.withdrawn_at IS DISTINCT FROM NEW.withdrawn_at)) OR (NEW.state = 'retired' AND
    (OLD.state IS DISTINCT FROM NEW.state))) EXECUTE FUNCTION deputy_revoke()
    """,
    """
    CREATE CONSTRAINT TRIGGER connections_update_revokes AFTER UPDATE ON connections DEFERRABLE
    INITIALLY DEFERRED FOR EACH ROW WHEN ((OLD.status = 'verified' AND (OLD.id IS DISTINCT FROM
    NEW.id OR OLD.status IS DISTINCT FROM NEW.status OR OLD.version IS DISTINCT FROM NEW.version
    OR OLD.tenant_id IS DISTINCT FROM NEW.tenant_id OR OLD.role_arn IS DISTINCT FROM
    NEW.role_arn OR OLD.external_id_id IS DISTINCT FROM NEW.external_id_id OR OLD.role_unique_id
    IS DISTINCT FROM NEW.role_unique_id OR OLD.permission_set IS DISTINCT FROM
    NEW.permission_set OR OLD.tagged_set IS DISTINCT FROM NEW.tagged_set OR OLD.stack_set IS
    DISTINCT FROM NEW.stack_set))) EXECUTE FUNCTION deputy_revoke()
    """,
    """
    CREATE CONSTRAINT TRIGGER api_keys_delete_revokes AFTER DELETE ON api_keys DEFERRABLE
    INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.revoked_at IS NULL) EXECUTE FUNCTION
    deputy_revoke()
    """,
    """
    CREATE CONSTRAINT TRIGGER tenants_delete_revokes AFTER DELETE ON tenants DEFERRABLE
    INITIALLY DEFERRED FOR EACH ROW WHEN (true) EXECUTE FUNCTION deputy_revoke()
    """,
    """
    CREATE CONSTRAINT TRIGGER connections_delete_revokes AFTER DELETE ON connections DEFERRABLE
    INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.status = 'verified') EXECUTE FUNCTION
    deputy_revoke()
    """,
    """
    CREATE TRIGGER api_keys_truncate_revokes AFTER TRUNCATE ON api_keys EXECUTE FUNCTION
    deputy_revoke()
    """,
    """
    CREATE TRIGGER tenants_truncate_revokes AFTER TRUNCATE ON tenants EXECUTE FUNCTION
    deputy_revoke()
    """,
    """
    CREATE TRIGGER connections_truncate_revokes AFTER TRUNCATE ON connections EXECUTE FUNCTION
    deputy_revoke()
    """,
)
_SQLITE = (
    """
    CREATE TRIGGER audit_events_refuse_update BEFORE UPDATE ON audit_events
    BEGIN SELECT RAISE(ABORT, 'audit_events is append-only'); END
    """,
    """
    CREATE TRIGGER audit_events_refuse_delete BEFORE DELETE ON audit_events WHEN NOT EXISTS (
        SELECT 1 FROM configuration WHERE audit_kept_days > 0
        AND OLD.at < strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || audit_kept_days || ' days')
    ) BEGIN SELECT RAISE(ABORT, 'audit_events is append-only'); END
    """,
    """
    CREATE TRIGGER external_ids_refuse_update BEFORE UPDATE OF value, tenant_id ON external_ids
    BEGIN SELECT RAISE(ABORT, 'an External ID is never changed or reassigned'); END
    """,
    """
    CREATE TRIGGER external_ids_refuse_delete BEFORE DELETE ON external_ids
    BEGIN SELECT RAISE(ABORT, 'an External ID is kept for ever'); END
    """,
    """
    CREATE TRIGGER api_keys_update_revokes AFTER UPDATE ON api_keys WHEN (true AND (OLD.id IS
    NOT NEW.id OR OLD.lookup IS NOT NEW.lookup OR OLD.digest IS NOT NEW.digest OR OLD.scope_bits
    IS NOT NEW.scope_bits OR OLD.may_give_bits IS NOT NEW.may_give_bits OR OLD.tenant_id IS NOT
    NEW.tenant_id OR OLD.permission_sets IS NOT NEW.permission_sets OR OLD.expires_at IS NOT
    NEW.expires_at OR OLD.revoked_at IS NOT NEW.revoked_at)) BEGIN UPDATE configuration SET
    revocation_counter = revocation_counter + 1 WHERE id = 1; INSERT INTO revoked_rows
    (revocation_counter, row_id) SELECT revocation_counter, OLD.id FROM configuration WHERE true
    ON CONFLICT DO NOTHING; DELETE FROM revoked_rows WHERE revocation_counter < (SELECT
    revocation_counter - 1000 FROM configuration); END
    """,
    """
    CREATE TRIGGER tenants_update_revokes AFTER UPDATE ON tenants WHEN (OLD.status = 'active'
    AND (OLD.id IS NOT NEW.id OR OLD.status IS NOT NEW.status OR OLD.deleted_at IS NOT
    NEW.deleted_at)) BEGIN UPDATE configuration SET revocation_counter = revocation_counter + 1
    WHERE id = 1; INSERT INTO revoked_rows (revocation_counter, row_id) SELECT
    revocation_counter, OLD.id FROM configuration WHERE true ON CONFLICT DO NOTHING; DELETE FROM
    revoked_rows WHERE revocation_counter < (SELECT revocation_counter - 1000 FROM
    configuration); END
    """,
    """
    CREATE TRIGGER external_ids_update_revokes AFTER UPDATE ON external_ids WHEN
    (OLD.withdrawn_at IS NULL AND (OLD.withdrawn_at IS NOT NEW.withdrawn_at)) OR (NEW.state =
    'retired' AND (OLD.state IS NOT NEW.state)) BEGIN UPDATE configuration SET
    revocation_counter = revocation_counter + 1 WHERE id = 1; INSERT INTO revoked_rows
    (revocation_counter, row_id) SELECT revocation_counter, OLD.id FROM configuration WHERE true
    ON CONFLICT DO NOTHING; DELETE FROM revoked_rows WHERE revocation_counter < (SELECT
    revocation_counter - 1000 FROM configuration); END
    """,
    """
    CREATE TRIGGER connections_update_revokes AFTER UPDATE ON connections WHEN (OLD.status =
    'verified' AND (OLD.id IS NOT NEW.id OR OLD.status IS NOT NEW.status OR OLD.version IS NOT
    NEW.version OR OLD.tenant_id IS NOT NEW.tenant_id OR OLD.role_arn IS NOT NEW.role_arn OR
    OLD.external_id_id IS NOT NEW.external_id_id OR OLD.role_unique_id IS NOT NEW.role_unique_id
    OR OLD.permission_set IS NOT NEW.permission_set OR OLD.tagged_set IS NOT NEW.tagged_set OR
    OLD.stack_set IS NOT NEW.stack_set)) BEGIN UPDATE configuration SET revocation_counter =
    revocation_counter + 1 WHERE id = 1; INSERT INTO revoked_rows (revocation_counter, row_id)
    SELECT revocation_counter, OLD.id FROM configuration WHERE true ON CONFLICT DO NOTHING;
    DELETE FROM revoked_rows WHERE revocation_counter < (SELECT revocation_counter - 1000 FROM
    configuration); END
    """,
    """
    CREATE TRIGGER api_keys_delete_revokes AFTER DELETE ON api_keys WHEN OLD.revoked_at IS NULL
    BEGIN UPDATE configuration SET revocation_counter = revocation_counter + 1 WHERE id = 1;
    INSERT INTO revoked_rows (revocation_counter, row_id) SELECT revocation_counter, OLD.id FROM
    configuration WHERE true ON CONFLICT DO NOTHING; DELETE FROM revoked_rows WHERE
    revocation_counter < (SELECT revocation_counter - 1000 FROM configuration); END
    """,
    """
    CREATE TRIGGER tenants_delete_revokes AFTER DELETE ON tenants WHEN true BEGIN UPDATE
    configuration SET revocation_counter = revocation_counter + 1 WHERE id = 1; INSERT INTO
    revoked_rows (revocation_counter, row_id) SELECT revocation_counter, OLD.id FROM
    configuration WHERE true ON CONFLICT DO NOTHING; DELETE FROM revoked_rows WHERE
    revocation_counter < (SELECT revocation_counter - 1000 FROM configuration); END
    """,
    """
    CREATE TRIGGER connections_delete_revokes AFTER DELETE ON connections WHEN OLD.status =
    'verified' BEGIN UPDATE configuration SET revocation_counter = revocation_counter + 1 WHERE
    id = 1; INSERT INTO revoked_rows (revocation_counter, row_id) SELECT revocation_counter,
    OLD.id FROM configuration WHERE true ON CONFLICT DO NOTHING; DELETE FROM revoked_rows WHERE
    revocation_counter < (SELECT revocation_counter - 1000 FROM configuration); END
    """,
)
