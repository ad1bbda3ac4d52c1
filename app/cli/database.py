"""The database as a whole: its schema, and its return from a backup."""

from collections.abc import Iterator

import click
from flask.cli import with_appcontext

from app.audit import restored
from app.cli.operator import AS_JSON, Row, example_of, in_one_line, operator, services, show
from app.store.database import store_errors
from app.store.revisions import KNOWN, revision


@click.command("migrate", epilog=example_of("migrate"))
@AS_JSON
@with_appcontext
def migrate(*, as_json: bool) -> None:
    """Bring the database's schema to this release's. Safe to repeat."""
    # see app/store/revisions.py
    from app.store.migrations import TableInUseError, upgrade  # noqa: PLC0415

    db = services().db
    with in_one_line(), store_errors():
        before = revision(db)
        if before not in {None, *KNOWN}:
            raise click.ClickException(
                f"The database's schema, {before}, belongs to a newer release. Nothing was changed."
                " Run that release."
            )
        try:
            upgrade(db, _report_wait)
        except TableInUseError as error:
            raise click.ClickException(
                "A table is still in use, perhaps by a backup. Run migrate again when that has"
                " ended."
            ) from error
        after = revision(db)
    show({"before": before, "after": after}, _moved, as_json=as_json)


def _moved(found: Row) -> Iterator[str]:
    before, after = found["before"], found["after"]
    yield f"Nothing to do: {after}" if before == after else f"{before or 'empty'} → {after}"


def _report_wait() -> None:
    click.echo(
        "A table is in use by another transaction, such as a backup; trying again …", err=True
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
