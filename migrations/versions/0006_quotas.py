"""What was counted of the quotas: of one tenant or one onboarding link, in the present window and the one before."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "quota_uses",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("counted", sa.Integer(), nullable=False),
        sa.Column("counted_before", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", "id", name="pk_quota_uses"),
    )
    op.create_index("ix_quota_uses_number", "quota_uses", ["name", "number"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_quota_uses_number", table_name="quota_uses")
    op.drop_table("quota_uses")
