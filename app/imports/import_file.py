"""Read a file of customers: CSV, or NDJSON with the same names.

The file is read twice, line by line. The first pass finds what is known only at the end, such as
External IDs that several customers have. So the memory is bounded by the number of rows, and by the
length of a line.
"""

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from operator import attrgetter
from typing import Any, BinaryIO, NamedTuple

from app import strict_json
from app.ids import RoleArn

COLUMNS = ("reference", "name", "external_id", "role_arn", "permission_set")
_NEEDED = {"reference", "name", "role_arn"}  # the other columns may be left out
ROWS_MAX = 100_000
# All are imported in one transaction, which has to end within 15 seconds. Each row takes eleven
# statements.
CUSTOMER_ROWS_MAX = 300
_LINE_MAX = 16 * 1024  # bytes


class ImportFileError(Exception):
    """The file can't be imported at all. The message says why, and in which line."""


class ImportRow(NamedTuple):
    """One row. A column without a value is empty. `line`: its number in the file, from 1.

    `problem`: why the row has no values. `texts`: all texts of such a row, in whatever column.
    """

    line: int
    reference: str = ""
    name: str = ""
    external_id: str = ""
    role_arn: str = ""
    permission_set: str = ""
    problem: str = ""
    texts: tuple[str, ...] = ()


def read_rows(file: BinaryIO) -> Iterator[ImportRow]:
    """Yield the rows of a file, from its beginning. Raises ImportFileError."""
    file.seek(0)
    is_json = _line(file, 1).lstrip(b"\xef\xbb\xbf \t").startswith(b"{")
    file.seek(0)
    for number, row in enumerate(_json_rows(file) if is_json else _csv_rows(file), 1):
        if number > ROWS_MAX:
            raise ImportFileError(f"The file has more than {ROWS_MAX} rows: divide it in two.")
        yield row


def customers_in(file: BinaryIO) -> Iterator[list[ImportRow]]:
    """Yield the rows of each customer together. Raises ImportFileError."""
    for _, rows in groupby(read_rows(file), attrgetter("reference")):
        customer = list(islice(rows, CUSTOMER_ROWS_MAX + 1))
        if len(customer) > CUSTOMER_ROWS_MAX:
            raise ImportFileError(
                f"From line {customer[0].line} on, a customer has more than {CUSTOMER_ROWS_MAX}"
                " rows: put some of them into another file."
            )
        yield customer


def _line(file: BinaryIO, number: int) -> bytes:
    line = file.readline(_LINE_MAX + 1)
    if len(line) > _LINE_MAX:
        raise ImportFileError(f"Line {number} is longer than {_LINE_MAX} bytes.")
    return line


def _lines(file: BinaryIO) -> Iterator[str]:
    number = 0
    while line := _line(file, number := number + 1):
        # A byte that is not UTF-8 becomes half of a surrogate pair, which no text may contain. So
        # only its row is refused.
        yield line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")


def _csv_rows(file: BinaryIO) -> Iterator[ImportRow]:
    reader = csv.reader(_lines(file), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if not _NEEDED <= {*header} <= {*COLUMNS} or len(header) != len({*header}):
            raise ImportFileError(
                f"The first line must name these columns, in any order: {','.join(COLUMNS)}."
                " Or each line must be a JSON object with these names."
            )
        begins = reader.line_num + 1
        for values in reader:
            if any(values):
                yield _csv_row(begins, header, values)
            begins = reader.line_num + 1
    except csv.Error as error:
        raise ImportFileError(f"Line {reader.line_num} is not CSV: {error}.") from error


def _csv_row(line: int, header: list[str], values: list[str]) -> ImportRow:
    problem = ""
    if len(values) != len(header):
        problem = f"The row has {len(values)} columns instead of {len(header)}."
    return _row(line, dict(zip(header, values, strict=False)), values, problem)


def _json_rows(file: BinaryIO) -> Iterator[ImportRow]:
    for number, line in enumerate(_lines(file), 1):
        if line.strip():
            yield _json_row(number, line)


def _json_row(line: int, text: str) -> ImportRow:
    texts = re.findall(r'"([^"]*)"', text)
    try:
        values = strict_json.parse(text)
    except ValueError as error:
        return _row(line, {}, texts, str(error))
    if not isinstance(values, dict):
        return _row(line, {}, texts, "The line is not a JSON object.")
    if unknown := sorted(values.keys() - {*COLUMNS}):
        problem = f"{json.dumps(unknown[0])} is none of {', '.join(COLUMNS)}."
        return _row(line, values, texts, problem)
    for name, value in values.items():
        if not isinstance(value, str | None):
            return _row(line, values, texts, f"{name}: must be text.")
    return _row(line, values, texts)


def _text(value: Any) -> str:
    """Return the stripped text, or an empty text if the value is not a text in UTF-8."""
    return value.strip() if isinstance(value, str) and _is_utf8(value) else ""


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _row(line: int, values: dict[str, Any], texts: Iterable[str], problem: str = "") -> ImportRow:
    """Return the row; if there is a problem with it, its reference and `texts` alone.

    Nobody can tell the columns of such a row, but what it names is claimed all the same. Otherwise
    another customer's row with the same role and External ID would be imported.
    """
    columns: dict[str, Any] = {name: _text(values.get(name)) for name in COLUMNS}
    row = ImportRow(line, **columns)
    if not problem and not all(_is_utf8(value or "") for value in values.values()):
        problem = "The row is not UTF-8."
    if not problem:
        return row
    return ImportRow(
        line, row.reference, problem=problem, texts=tuple(filter(None, map(_text, texts)))
    )


@dataclass
class FileSummary:
    """The facts about a whole file that the import of one customer needs."""

    rows: int = 0
    customers: int = 0
    _scattered: set[bytes] = field(default_factory=set)
    _beside_unknown: set[bytes] = field(default_factory=set)
    # Maps an External ID's digest to its reference's digest, or to None if several share it
    _owners: dict[bytes, bytes | None] = field(default_factory=dict)
    # Maps a role or an account to the reference that is the first to claim it, and its line
    _first: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    # The lines of a role or an account that several references claim, one of each reference
    _claims: dict[bytes, dict[bytes, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, file: BinaryIO) -> "FileSummary":
        """Read the whole file. Raises ImportFileError."""
        summary, references = cls(), set[bytes]()
        before = _digest("")
        for rows in customers_in(file):
            reference = _digest(rows[0].reference)
            if not rows[0].reference:
                summary._beside_unknown.add(before)
            elif before == _digest("") and summary.rows:
                summary._beside_unknown.add(reference)
            if rows[0].reference and reference in references:
                summary._scattered.add(reference)
            references.add(reference)
            summary._count(rows, reference)
            before = reference
        summary.customers = len(references)
        return summary

    def _count(self, rows: list[ImportRow], reference: bytes) -> None:
        for row in rows:
            self.rows += 1
            for external_id in filter(None, row.texts or (row.external_id,)):
                key = _digest(external_id)
                same = self._owners.setdefault(key, reference) == reference
                self._owners[key] = reference if same else None
            for claimed in chain.from_iterable(map(_claimed, row.texts or (row.role_arn,))):
                first = self._first.setdefault(claimed, (reference, row.line))
                if first[0] != reference:
                    claims = self._claims.setdefault(claimed, dict([first]))
                    claims.setdefault(reference, row.line)

    def is_scattered(self, reference: str) -> bool:
        """Return whether other customers' rows stand between this customer's rows."""
        return _digest(reference) in self._scattered

    def is_beside_unknown(self, reference: str) -> bool:
        """Return whether a row without a reference is beside this customer's rows.

        Such a row may be this customer's.
        """
        return bool(reference) and _digest(reference) in self._beside_unknown

    def is_shared(self, external_id: str) -> bool:
        """Return whether several customers have this External ID.

        Raises ImportFileError if the first pass did not find this External ID.
        """
        key = _digest(external_id)
        if key not in self._owners:
            raise ImportFileError("The file was changed meanwhile.")
        return self._owners[key] is None

    def lines_of_role(self, row: ImportRow) -> list[int]:
        """Return a line of each other customer that claims this row's role."""
        return self._others(row, 0)

    def lines_of_account(self, row: ImportRow) -> list[int]:
        """Return a line of each other customer that claims this row's account."""
        return self._others(row, 1)

    def _others(self, row: ImportRow, which: int) -> list[int]:
        keys = _claimed(row.role_arn)
        claims = self._claims.get(keys[which], {}) if keys else {}
        own = _digest(row.reference)
        return sorted(line for reference, line in claims.items() if reference != own)


def _claimed(role_arn: str) -> tuple[bytes, ...]:
    """Return what a row claims: its role, and its account; nothing if the ARN is none.

    An account has one role of a name, whatever its path and the case of its letters:
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
    """
    try:
        role = RoleArn.parse(role_arn)
    except ValueError:
        return ()
    account = f"{role.partition}:{role.account_id}"
    return _digest(f"{account}:{role.name.lower()}"), _digest(account)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
