"""Tenants declare their AWS accounts, and connections that may write await approval."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tenant_accounts",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.String(length=12), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_tenant_accounts_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "account_id", name="pk_tenant_accounts"),
    )
    op.add_column("tenants", sa.Column("declares_accounts", sa.Boolean(), server_default=sa.false(), nullable=False))
    # Connections from before count as approved.
    op.add_column(
        "connections", sa.Column("awaiting_approval", sa.Boolean(), server_default=sa.false(), nullable=False)
    )


def downgrade() -> None:
    op.drop_column("connections", "awaiting_approval")
    op.drop_column("tenants", "declares_accounts")
    op.drop_table("tenant_accounts")
