"""Onboarding links. Only the SHA-256 of a link's token is kept."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "onboarding_links",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("permission_set", sa.String(length=64), nullable=False),
        sa.Column("region", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_onboarding_links_tenant_id"),
        sa.PrimaryKeyConstraint("id", name="pk_onboarding_links"),
        sa.UniqueConstraint("digest", name="uq_onboarding_links_digest"),
    )
    op.create_index("ix_onboarding_links_tenant", "onboarding_links", ["tenant_id", "id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_onboarding_links_tenant", table_name="onboarding_links")
    op.drop_table("onboarding_links")
