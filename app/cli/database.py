"""The database's schema."""

import click
from flask.cli import with_appcontext

from app.cli.operator import in_one_line, services
from app.store.database import store_errors
from app.store.revisions import is_newer, revision


@click.command("migrate")
@with_appcontext
def migrate() -> None:
    """Bring the database's schema to this release's. Safe to repeat."""
    from alembic import command  # noqa: PLC0415  see app/store/revisions.py

    from app.store.migrations import alembic_config  # noqa: PLC0415

    db = services().db
    with in_one_line(), store_errors():
        before = revision(db)
        if is_newer(before):
            raise click.ClickException(
                f"The database's schema, {before}, belongs to a newer release. Nothing was changed. Run that release."
            )
        command.upgrade(alembic_config(db), "head")
        after = revision(db)
    click.echo(f"Nothing to do: {after}" if before == after else f"{before or 'empty'} → {after}")
