"""Many audit events in one durable statement, and only those that are still valid.

An event that relies on memory carries the revocation counter at which memory was read, and the ids
of the rows. The statement that stores it compares that value with the present revocation counter. A
revocation increments the counter first. Nothing is therefore issued from outdated memory, and no
such issuance is in the log. If the counter has moved, the revocation log names the revoked rows.
Events that rely on other rows are still valid.
"""

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import event
from sqlalchemy.dialects import postgresql

from app.audit.events import Event
from app.clock import now
from app.errors import StoreUnavailableError
from app.store.database import LONGEST, Database, as_json
from app.store.models import AuditEvent
from app.store.revocation_log import MOST_REVOKED_ROWS, RevocationLog

_UNREACHABLE = "The audit log can't be written right now; try again."
# The statement's own timeout is far below those 5
_WAITED_TOO_LONG = timedelta(seconds=LONGEST - 5)
_ROUNDS = 5  # attempts while the revocation counter moves; then the requests check everything again
_IDLE_SECONDS = 1.0  # a connection that was idle for longer is tested before its next use

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
_COLUMNS = AuditEvent.__table__.columns
_NAMES = ", ".join(_COLUMNS.keys())
_TYPED = ", ".join(f"{column.name} {column.type.compile(_DIALECT)}" for column in _COLUMNS)
# json_to_recordset takes one parameter for any number of rows. One prepared statement therefore
# serves every batch. Details are text in it, because PostgreSQL refuses an escaped NUL in JSON that
# it parses.
_POSTGRESQL = f"""
WITH now AS (SELECT revocation_counter FROM configuration WHERE id = 1),
added AS (
    INSERT INTO audit_events ({_NAMES})
    SELECT {_NAMES.replace("details", "details::json")}
    FROM json_to_recordset(%s::json)
        AS e(valid_at_counter bigint, {_TYPED.replace("details JSON", "details text")})
    WHERE valid_at_counter IS NULL OR valid_at_counter = (SELECT revocation_counter FROM now)
    RETURNING id)
SELECT revocation_counter, (SELECT count(*) FROM added) FROM now
"""  # noqa: S608  the names are the model's
# One statement for all rows: after each statement, its thread waits for the hub's thread to release
# the interpreter lock.
_SQLITE = f"""
INSERT INTO audit_events ({_NAMES})
SELECT {", ".join(f"json_extract(value, '$.{name}')" for name in _NAMES.split(", "))}
FROM json_each(?)
"""  # noqa: S608

_CHANGES = (
    "SELECT revocation_counter, row_id FROM revoked_rows WHERE revocation_counter > {0} AND"
    " revocation_counter <= {0} LIMIT {0}"
)


class AuditBatch:
    """Stores events over a connection of its own.

    It is for one thread at a time; group commit ensures that. `history`: the revocations up to the
    counter that the last commit returned.
    """

    def __init__(self, db: Database) -> None:
        self.history = RevocationLog()
        self._db = db
        self._store: _Postgresql | _Sqlite | None = None
        event.listen(db.engine, "engine_disposed", lambda _: self._forget())

    def commit(self, events: Sequence[Event]) -> frozenset[UUID]:
        """Store the events that are valid, and return the ids of the others.

        The stored events are durable. Raises StoreUnavailableError, and the driver's error for data
        that it can't store.
        """
        dbapi = self._db.engine.dialect.loaded_dbapi
        try:
            if self._store is not None and not self._store.is_there():
                self._forget()
            if self._store is None:
                self._store = (
                    _Sqlite if self._db.engine.dialect.name == "sqlite" else _Postgresql
                )(self._db)
            self.history, lost = self._store.insert(events, self.history)
        except (dbapi.OperationalError, dbapi.InterfaceError, sqlite3.ProgrammingError) as error:
            self._forget()
            raise StoreUnavailableError(_UNREACHABLE) from error
        except BaseException:
            self._forget()  # a transaction may be open
            raise
        return frozenset(event.id for event in lost)

    def _forget(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.connection.close()


def _ensure_fresh(events: Sequence[Event]) -> None:
    """Refuse events that are so old that the feed may have passed them.

    Their requests have stopped waiting (app/concurrency/group_commit.py). Raises
    StoreUnavailableError.
    """
    too_old = now() - _WAITED_TOO_LONG
    if any(event.at < too_old for event in events):
        raise StoreUnavailableError(_UNREACHABLE)


def _until(
    counter: int, history: RevocationLog, changes: Callable[[int, int], list[tuple[int, UUID]]]
) -> RevocationLog:
    return (
        history
        if counter == history.counter
        else history.advanced_to(counter, changes(history.counter, counter))
    )


def _is_valid(event: Event, history: RevocationLog) -> bool:
    """Return whether no row that the event relies on was revoked, up to the history's counter."""
    if event.valid_at_counter is None:
        return True
    return history.still_valid_at(event.valid_at_counter, event.row_ids) == history.counter


class _Postgresql:
    def __init__(self, db: Database) -> None:
        # Psycopg is not loaded with SQLite
        self._broken = db.engine.dialect.loaded_dbapi.OperationalError
        self.connection = db.dedicated()
        self.connection.autocommit = True
        self.connection.prepare_threshold = 0  # prepare at once
        # A hanging server must not hold up the batch for longer than its requests wait.
        self.connection.execute("SET statement_timeout = '1500ms'")
        self._cursor = self.connection.cursor()

    def is_there(self) -> bool:
        """Return whether the connection works, and test it after a pause.

        In a pause a server may restart or a firewall may drop the connection.
        """
        if time.monotonic() - self._used <= _IDLE_SECONDS:
            return True
        try:
            self._cursor.execute("SELECT 1")
        except self._broken:
            return False
        return True

    def insert(
        self, events: Sequence[Event], history: RevocationLog
    ) -> tuple[RevocationLog, list[Event]]:
        pending, lost = list(events), []
        for _ in range(_ROUNDS):
            counter = self._insert(pending)
            left = [event for event in pending if event.valid_at_counter not in {None, counter}]
            history = _until(counter, history, self.changes)
            pending = [
                replace(event, valid_at_counter=counter)
                for event in left
                if _is_valid(event, history)
            ]
            lost += [event for event in left if not _is_valid(event, history)]
            if not pending:
                break
        return history, lost + pending

    def _insert(self, events: Sequence[Event]) -> int:
        """Store the events that are valid at the present revocation counter, and return it."""
        _ensure_fresh(events)
        rows = [
            one.row() | {"valid_at_counter": one.valid_at_counter, "details": as_json(one.details)}
            for one in events
        ]
        counter, added = self._cursor.execute(_POSTGRESQL, [as_json(rows)]).fetchone()
        self._used = time.monotonic()
        if added != sum(event.valid_at_counter in {None, counter} for event in events):
            raise AssertionError("the audit log stored other events than those that are valid")
        return int(counter)

    def changes(self, after: int, until: int) -> list[tuple[int, UUID]]:
        found = self._cursor.execute(_CHANGES.format("%s"), [after, until, MOST_REVOKED_ROWS])
        return list(found)


class _Sqlite:
    def __init__(self, db: Database) -> None:
        self.connection = db.dedicated()

    def is_there(self) -> bool:
        return True

    def insert(
        self, events: Sequence[Event], history: RevocationLog
    ) -> tuple[RevocationLog, list[Event]]:
        # Built outside the lock, which others wait for
        rows = [(event, _sqlite_row(event)) for event in events]
        stored: tuple[RevocationLog, list[Event]] = self.connection.run_batch(
            lambda: self._insert(rows, history)
        )
        return stored

    def _insert(
        self, rows: list[tuple[Event, dict[str, Any]]], history: RevocationLog
    ) -> tuple[RevocationLog, list[Event]]:
        # Checked under the write lock, after the wait for it
        _ensure_fresh([event for event, _ in rows])
        (counter,) = self.connection.execute(
            "SELECT revocation_counter FROM configuration WHERE id = 1"
        ).fetchone()
        history = _until(counter, history, self.changes)
        self.connection.execute(
            _SQLITE, [as_json([row for event, row in rows if _is_valid(event, history)])]
        )
        return history, [event for event, _ in rows if not _is_valid(event, history)]

    def changes(self, after: int, until: int) -> list[tuple[int, UUID]]:
        found = self.connection.execute(_CHANGES.format("?"), (after, until, MOST_REVOKED_ROWS))
        return [(at, UUID(row_id)) for at, row_id in found]


def _sqlite_row(event: Event) -> dict[str, Any]:
    """Return the values as SQLAlchemy stores them: UUIDs as hex, times in UTC without a zone."""
    return event.row() | {
        "id": event.id.hex,
        "at": event.at.replace(tzinfo=None).isoformat(" ", "microseconds"),
        "tenant_id": event.tenant_id.hex if event.tenant_id else None,
        "connection_id": event.connection_id.hex if event.connection_id else None,
        "details": as_json(event.details),
    }
