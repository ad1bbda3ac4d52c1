"""Count a tenant's live links without reading the rows of its revoked and expired ones."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_NAME = "ix_onboarding_links_ends"


def upgrade() -> None:
    op.create_index(
        _NAME, "onboarding_links", ["tenant_id", "expires_at", "revoked_at"], unique=False
    )


def downgrade() -> None:
    op.drop_index(_NAME, "onboarding_links")
