"""The release and the database as a whole: its schema, and its return from a backup."""

from collections.abc import Iterator

import click

from app import VERSION
from app.audit.restored import record_restore
from app.cli.operator import ROOT, Row, operator, services
from app.store.database import store_errors
from app.store.revisions import KNOWN, revision


@ROOT.verb(text=lambda row: [f"Deputy {row['version']}, database schema {row['schema']}"])
def version() -> Row:
    """Print this release's version, and its database schema.

    It reads neither the settings nor the database. `doctor` compares the database's schema with
    this one.
    """
    return {"version": VERSION, "schema": KNOWN[-1]}


def _describe_migration(row: Row) -> Iterator[str]:
    before, after = row["before"], row["after"]
    yield f"Nothing to do: {after}" if before == after else f"{before or 'empty'} → {after}"


@ROOT.verb(text=_describe_migration)
def migrate() -> Row:
    """Migrate the database to this release's schema. Safe to repeat."""
    # Imported lazily: see app/store/revisions.py
    from app.store.migrations import TableInUseError, upgrade  # noqa: PLC0415

    db = services().db
    with store_errors():
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
        return {"before": before, "after": revision(db)}


def _report_wait() -> None:
    click.echo(
        "A table is in use by another transaction, such as a backup; trying again …", err=True
    )


def _describe_restore(row: Row) -> Iterator[str]:
    reaches = row["reaches"].isoformat(timespec="seconds") if row["reaches"] else "no event"
    yield (
        f"The database reaches to {reaches}. What was taken away since then is back: take it away"
        " again."
    )


@ROOT.verb(text=_describe_restore)
def after_restore() -> Row:
    """Tell all processes that the database is an older copy. Run it after each restore.

    Safe to repeat.
    """
    return {"reaches": record_restore(services().db, operator().actor)}
