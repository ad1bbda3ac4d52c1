"""The command `version`."""

import click

from app import VERSION
from app.cli.operator import AS_JSON, example_of, show
from app.store.revisions import KNOWN


@click.command("version", epilog=example_of("version"))
@AS_JSON
def version(*, as_json: bool) -> None:
    """Print this release's version, and its database schema.

    It reads neither the settings nor the database. `doctor` compares the database's schema with
    this one.
    """
    show(
        {"version": VERSION, "schema": KNOWN[-1]},
        lambda row: [f"Deputy {row['version']}, database schema {row['schema']}"],
        as_json=as_json,
    )
