"""The database as a whole: its schema, and its return from a backup."""

import time
from collections.abc import Callable

import click
from flask.cli import with_appcontext
from sqlalchemy.exc import OperationalError

from app.audit import restored
from app.cli.operator import in_one_line, operator, services
from app.store.database import store_errors
from app.store.revisions import is_newer, revision

_ATTEMPTS = 180  # about a second apart
_IN_USE = "55P03"  # PostgreSQL's lock_not_available


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
        _without_delaying_requests(lambda: command.upgrade(alembic_config(db), "head"))
        after = revision(db)
    click.echo(f"Nothing to do: {after}" if before == after else f"{before or 'empty'} → {after}")


def _without_delaying_requests(upgrade: Callable[[], None]) -> None:
    """Begins again when a table stays locked, as a backup locks it: requests wait behind a migration that waits."""
    for attempt in range(_ATTEMPTS):
        try:
            return upgrade()
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != _IN_USE:
                raise
        if not attempt:
            click.echo("A table is in use by another transaction, such as a backup; trying again …", err=True)
        time.sleep(1)
    raise click.ClickException("A table is still in use, perhaps by a backup. Run migrate again when that has ended.")


@click.command("after-restore")
@with_appcontext
def after_restore() -> None:
    """Tell all processes that the database is an older copy. Run it after each restore.

    Safe to repeat.
    """
    with in_one_line():
        newest = restored.note(services().db, operator().actor)
    reaches = newest.isoformat(timespec="seconds") if newest else "no event"
    click.echo(f"The database reaches to {reaches}. What was taken away since then is back: take it away again.")
