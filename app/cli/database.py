"""The database as a whole: its schema, and its return from a backup."""

import time
from collections.abc import Callable, Iterator

import click
from flask.cli import with_appcontext
from sqlalchemy.exc import OperationalError

from app.audit import restored
from app.cli.operator import AS_JSON, Row, example_of, in_one_line, operator, services, show
from app.store.database import store_errors
from app.store.revisions import is_newer, revision

_ATTEMPTS = 180  # about one per second
_IN_USE = "55P03"  # PostgreSQL's lock_not_available


@click.command("migrate", epilog=example_of("migrate"))
@AS_JSON
@with_appcontext
def migrate(*, as_json: bool) -> None:
    """Bring the database's schema to this release's. Safe to repeat."""
    from alembic import command  # noqa: PLC0415  see app/store/revisions.py

    from app.store.migrations import alembic_config  # noqa: PLC0415

    db = services().db
    with in_one_line(), store_errors():
        before = revision(db)
        if is_newer(before):
            raise click.ClickException(
                f"The database's schema, {before}, belongs to a newer release. Nothing was changed."
                " Run that release."
            )
        _without_delaying_requests(lambda: command.upgrade(alembic_config(db), "head"))
        after = revision(db)
    show({"before": before, "after": after}, _moved, as_json=as_json)


def _moved(found: Row) -> Iterator[str]:
    before, after = found["before"], found["after"]
    yield f"Nothing to do: {after}" if before == after else f"{before or 'empty'} → {after}"


def _without_delaying_requests(upgrade: Callable[[], None]) -> None:
    """Run the upgrade, and retry it while a table is locked, as a backup locks it.

    Requests wait behind a migration that waits for a lock.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return upgrade()
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != _IN_USE:
                raise
        if not attempt:
            click.echo(
                "A table is in use by another transaction, such as a backup; trying again …",
                err=True,
            )
        time.sleep(1)
    raise click.ClickException(
        "A table is still in use, perhaps by a backup. Run migrate again when that has ended."
    )


@click.command("after-restore", epilog=example_of("after-restore"))
@AS_JSON
@with_appcontext
def after_restore(*, as_json: bool) -> None:
    """Tell all processes that the database is an older copy. Run it after each restore.

    Safe to repeat.
    """
    with in_one_line():
        newest = restored.record_restore(services().db, operator().actor)
    show({"reaches": newest}, _restored, as_json=as_json)


def _restored(found: Row) -> Iterator[str]:
    reaches = found["reaches"].isoformat(timespec="seconds") if found["reaches"] else "no event"
    yield (
        f"The database reaches to {reaches}. What was taken away since then is back: take it away"
        " again."
    )
