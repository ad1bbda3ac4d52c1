"""Add what an onboarding link leads to: when it was opened, its connections, and the way back."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "onboarding_links", sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column(
        "onboarding_links", sa.Column("return_url", sa.String(length=2048), nullable=True)
    )
    op.add_column("connections", sa.Column("onboarding_link_id", sa.Uuid(), nullable=True))
    op.create_index(
        "ix_connections_of_link",
        "connections",
        ["onboarding_link_id", "id"],
        unique=False,
        sqlite_where=sa.text("onboarding_link_id IS NOT NULL"),
        postgresql_where=sa.text("onboarding_link_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_connections_of_link", "connections")
    op.drop_column("connections", "onboarding_link_id")
    op.drop_column("onboarding_links", "return_url")
    op.drop_column("onboarding_links", "opened_at")
