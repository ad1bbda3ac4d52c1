"""Registrations: the messages of customers' stacks that were acted upon, and the generation that tokens must name."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "tenants", sa.Column("registration_generation", sa.Integer(), server_default=sa.text("1"), nullable=False)
    )
    op.create_table(
        "registrations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("stack_id", sa.String(length=512), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_registrations_tenant_id"),
        sa.PrimaryKeyConstraint("id", name="pk_registrations"),
        sa.UniqueConstraint(
            "tenant_id", "stack_id", "request_id", name="uq_registrations_tenant_id_stack_id_request_id"
        ),
    )


def downgrade() -> None:
    op.drop_table("registrations")
    op.drop_column("tenants", "registration_generation")
