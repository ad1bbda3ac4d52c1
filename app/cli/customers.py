"""Customers: bringing them over from another system of the vendor."""

import csv
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

import click

from app.cli.commands import Noun, Row, cell, confirm, operator, services
from app.imports.import_file import FileSummary, ImportFileError, ImportRow, customers_in
from app.imports.imports import CustomerReport, RowOutcome
from app.imports.weaknesses import weaknesses

noun = Noun("customers", help="Customers: bringing them over from another system of yours.")
_REFUSED = 1  # the exit code if a row was refused


def _text(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each row: rows are printed as they come, so the widths are fixed."""
    for row in rows:
        words = [row["detail"]]
        if row["weak"]:
            words.append(f"Weak: {', '.join(row['weak'])}.")
        detail = " ".join(filter(None, words))
        line = f"{row['line']:>6}  {row['outcome']:<8}  {cell(row['status']):<9}"
        yield cell(f"{line}  {row['reference']}  {detail}").rstrip()


@noun.verb("customers.csv --dry-run", text=_text, changes=True)
@click.argument("file")
@click.option("--dry-run", is_flag=True, help="Report what would be done, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--yes-accounts",
    is_flag=True,
    help="You know that each account is that customer's: no connection awaits approval.",
)
@click.option(
    "--links",
    help="File for the new onboarding links (default: FILE.links.csv). Readable by you alone.",
)
def import_command(
    file: str, links: str | None, *, dry_run: bool, yes: bool, yes_accounts: bool
) -> Any:
    """Import customers with their present External IDs.

    FILE is CSV with the columns reference, name, external_id, role_arn and permission_set, or
    NDJSON with the same names. A customer may have several rows, which must be beside each other.
    Either all of them are imported, or none.

    Each row gets a line: its number in FILE, what was done, the connection's status, and the
    reference. The background worker proves the new connections. Import the same file again to see
    what the proofs said: what exists already is only reported.

    A customer gets a new External ID if its own is missing, reserved or also another customer's. It
    then gets an onboarding link too, so that its role can be updated. A role that two customers
    claim is refused for both. A connection awaits `connections approve` if another customer has a
    role in its account, or if its permission set writes. docs/migrate.md tells the whole move.
    """
    links_file = _LinksFile(Path(links or f"{file}.links.csv"))
    with _opened(file) as content:
        summary = FileSummary.of(content)
        if not (dry_run or yes):
            about = {"file": file, "rows": summary.rows, "customers": summary.customers}
            confirm(about, "Import these customers?")
        if not dry_run:
            links_file.check()
    return _reports(file, summary, links_file, accounts_known=yes_accounts, dry_run=dry_run)


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """Open the file, and report a problem with it in one line."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            yield file
    except OSError as error:
        raise click.ClickException(f"{path} can't be read: {error.strerror or error}.") from error
    except ImportFileError as error:
        raise click.ClickException(str(error)) from error


def _reports(
    path: str, summary: FileSummary, links: "_LinksFile", *, accounts_known: bool, dry_run: bool
) -> Iterator[list[Row]]:
    counts, before = Counter[str](), ""
    with _opened(path) as file:
        for rows in customers_in(file):
            report = services.imports.add(
                operator(), rows, summary, accounts_known=accounts_known, dry_run=dry_run
            )
            if report.needs_link and not dry_run:
                links.add(rows[0], *report.needs_link)
            yield list(_shown(rows, report, before))
            counts.update(row.outcome.value for row in report.rows)
            before = rows[-1].external_id
    done = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    click.echo(f"{'Would be' if dry_run else 'Rows'}: {done or 'none'}.", err=True)
    if links.count:
        click.echo(f"Onboarding links in {links.path}: {links.count}.", err=True)
    if counts[RowOutcome.REFUSED]:
        click.get_current_context().exit(_REFUSED)


def _shown(rows: Sequence[ImportRow], report: CustomerReport, before: str) -> Iterator[Row]:
    for row, reported in zip(rows, report.rows, strict=True):
        weak = list(weaknesses(row, before)) if reported.is_imported else []
        yield reported._asdict() | {"weak": weak}


def _without_formula(text: str) -> str:
    """Return the text, with an apostrophe if a spreadsheet would take it for a formula.

    https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


class _LinksFile:
    """The file of the new links. It is created with the first link, readable by its owner alone."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0

    def check(self) -> None:
        """Raise ClickException if the file exists, but the links can't be appended to it."""
        if self.path.exists() or self.path.is_symlink():
            os.close(self._open())

    def add(self, row: ImportRow, tenant_id: UUID, permission_set: str) -> None:
        """Create a link, and append it. Revoke it if it can't be written."""
        with os.fdopen(self._open(), "a", encoding="utf-8", newline="") as file:
            link, url = services.links.create(operator(), tenant_id, permission_set=permission_set)
            writer = csv.writer(file)
            try:
                if not os.fstat(file.fileno()).st_size:
                    writer.writerow(("reference", "name", "url", "expires_at"))
                values = row.reference, row.name, url, link.expires_at.isoformat()
                writer.writerow(map(_without_formula, values))
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                services.links.revoke(operator(), tenant_id, link.id)
                raise click.ClickException(f"{self.path}: {error.strerror}.") from error
        self.count += 1

    def _open(self) -> int:
        # Without O_NONBLOCK, a named pipe would wait for a reader
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise click.ClickException(f"{self.path}: {error.strerror}.") from error
        about = os.fstat(descriptor)
        is_private = not stat.S_IMODE(about.st_mode) & 0o077 and about.st_uid == os.geteuid()
        if not stat.S_ISREG(about.st_mode) or not is_private:
            os.close(descriptor)
            raise click.ClickException(
                f"{self.path} must be a file that you alone can read. Use chmod 600, or --links."
            )
        return descriptor
