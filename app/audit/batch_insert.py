"""The insertion of a batch of audit events, which leaves out events that are no longer valid.

An event may rely on entries in the process's memory. The event then has the revocation counter at
which the entries were read, and the ids of their rows. The statement that stores the event compares
this counter with the present one. A revocation increments the counter in its own transaction. So an
event that relies on a revoked row is not stored, and its credentials are not issued. The statement
does not see a revocation that commits while it runs. The requests of its events began before that.

If the counters differ, the revocation log shows which rows were revoked. Events that rely on other
rows are still valid.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import event
from sqlalchemy.dialects import postgresql

from app.audit import Event
from app.clock import now
from app.errors import StoreUnavailableError
from app.store.database import LONGEST, Database, as_json
from app.store.models import AuditEvent
from app.store.revocation import MOST_REVOKED_ROWS, RevocationLog

_UNREACHABLE = "The audit log can't be written right now; try again."
PATIENCE = 1.5  # seconds that a request waits for the insertion
# An event must be stored before it is LONGEST old. The statement is ended after PATIENCE.
_WAITED_TOO_LONG = timedelta(seconds=LONGEST - 5)
_ROUNDS = 5  # attempts if the revocation counter changes; after them, the requests read all again
_IDLE_SECONDS = 1.0  # a connection that was idle for longer is tested before it is used
# Errors after which a later batch may succeed. A standby raises InternalError, and a missing right
# ProgrammingError.
_PASSING = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
    psycopg.ProgrammingError,
)

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
_COLUMNS = AuditEvent.__table__.columns
_NAMES = ", ".join(_COLUMNS.keys())
_TYPED = ", ".join(f"{column.name} {column.type.compile(_DIALECT)}" for column in _COLUMNS)
# json_to_recordset takes all rows as one parameter, so one prepared statement serves every batch.
# Details are passed as a text inside this JSON: PostgreSQL refuses an escaped NUL in JSON that it
# parses.
_INSERT = f"""
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
_CHANGES = (
    "SELECT revocation_counter, row_id FROM revoked_rows WHERE revocation_counter > %s AND"
    " revocation_counter <= %s LIMIT %s"
)


class AuditBatch:
    """Stores batches of events, over a connection to the database of its own.

    Only one thread at a time may use it, which group commit ensures. `history`: the revocations up
    to the counter that the last batch was compared with.
    """

    def __init__(self, db: Database) -> None:
        self.history = RevocationLog()
        self._db = db
        self._connection: Any = None
        self._used_at = 0.0
        event.listen(db.engine, "engine_disposed", lambda _: self._disconnect())

    def commit(self, events: Sequence[Event]) -> frozenset[UUID]:
        """Store the events that are still valid, and return the ids of the others.

        The stored events are durable. Raises StoreUnavailableError, and the driver's own error if
        the database can't store the data.
        """
        try:
            lost = self._insert(events)
        except BaseException as error:
            self._disconnect()  # the connection may have an open transaction
            if isinstance(error, _PASSING):
                raise StoreUnavailableError(_UNREACHABLE) from error
            raise
        return frozenset(event.id for event in lost)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _split(self, events: Sequence[Event], counter: int) -> tuple[list[Event], list[Event]]:
        """Return two lists: the events that are valid at this revocation counter, and the others.

        First it reads the revocations up to the counter. An event is valid if no row that it relies
        on was revoked until then.
        """
        if counter != self.history.counter:
            rows = self._connection.execute(
                _CHANGES, (self.history.counter, counter, MOST_REVOKED_ROWS)
            )
            changes = [(revoked_at, UUID(str(row_id))) for revoked_at, row_id in rows]
            self.history = self.history.advanced_to(counter, changes)
        valid, lost = [], []
        for each in events:
            read_at = each.valid_at_counter
            if read_at is None or self.history.still_valid_at(read_at, each.row_ids) == counter:
                valid.append(each)
            else:
                lost.append(each)
        return valid, lost

    def _insert(self, events: Sequence[Event]) -> list[Event]:
        """Store the events that are valid, and return the others."""
        self._connect()
        lost: list[Event] = []
        for _ in range(_ROUNDS):
            _ensure_fresh(events)
            rows = [
                event.row()
                | {"valid_at_counter": event.valid_at_counter, "details": as_json(event.details)}
                for event in events
            ]
            # The statement stores events whose `valid_at_counter` is None or the present counter.
            counter, added = self._cursor.execute(_INSERT, [as_json(rows)]).fetchone()
            self._used_at = time.monotonic()
            left = [event for event in events if event.valid_at_counter not in {None, counter}]
            if added != len(events) - len(left):
                raise AssertionError("the stored events differ from the valid ones")
            valid, invalid = self._split(left, counter)
            lost += invalid
            events = [replace(event, valid_at_counter=counter) for event in valid]
            if not events:
                break
        return [*lost, *events]

    def _connect(self) -> None:
        """Open a connection, unless there is one that works.

        While it was idle, the server may have restarted, or a firewall may have dropped it.
        """
        if self._connection is not None and time.monotonic() - self._used_at > _IDLE_SECONDS:
            try:
                self._cursor.execute("SELECT 1")
            except _PASSING:
                self._disconnect()
        if self._connection is None:
            self._connection = self._db.dedicated()
            self._connection.autocommit = True
            self._connection.prepare_threshold = 0  # prepare a statement at its first execution
            # A server that hangs must not delay the next batch for longer than requests wait
            self._connection.execute(f"SET statement_timeout = '{PATIENCE * 1000:.0f}ms'")
            self._cursor: Any = self._connection.cursor()


def _ensure_fresh(events: Sequence[Event]) -> None:
    """Raise StoreUnavailableError if an event is so old that the feed may have passed its id.

    The request of such an event does not wait for it any more (app/concurrency/group_commit.py).
    """
    too_old = now() - _WAITED_TOO_LONG
    if any(event.at < too_old for event in events):
        raise StoreUnavailableError(_UNREACHABLE)
