"""The changes that revoke what processes keep in memory, and the triggers that record them.

Web processes keep keys, tenants and connections in memory. `configuration.revocation_counter`
counts the revocations. `revoked_rows` has the ids of the rows that the last thousand of them
changed. The triggers write both in the transaction of the change, so no code and no manual SQL
statement can leave it out. An added row, or a proof that confirms a connection, revokes nothing.

The migration creates the triggers that this module generates.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store.models import Configuration
from app.store.models.deployment import RevokedRow

MOST_REVOKED_ROWS = 1_000  # maximum of rows in the copy, and in one read from the database


class Revocation(NamedTuple):
    """A rule: a change of any of these columns is a revocation if the condition is true.

    The triggers enforce the rules.
    """

    table: str
    columns: str  # names, separated by spaces
    condition: str = "true"  # SQL, about the OLD and the NEW row


# Changes of other columns do not affect what processes keep in memory.
UPDATES = (
    Revocation(
        "api_keys",
        "id lookup digest scope_bits may_give_bits tenant_id permission_sets expires_at revoked_at",
    ),
    Revocation("tenants", "id status deleted_at", "OLD.status = 'active'"),
    Revocation("external_ids", "withdrawn_at", "OLD.withdrawn_at IS NULL"),
    Revocation("external_ids", "state", "NEW.state = 'retired'"),
    # Deputy increases the version with every change that matters to an issuance. The other columns
    # are listed because a manual SQL statement may leave the version as it is.
    Revocation(
        "connections",
        "id status version tenant_id role_arn external_id_id role_unique_id permission_set"
        " tagged_set stack_set",
        "OLD.status = 'verified'",
    ),
)
# Deleting a row of these tables is a revocation if the condition is true.
DELETIONS = {
    "api_keys": "OLD.revoked_at IS NULL",
    "tenants": "true",
    "connections": "OLD.status = 'verified'",
}

_COUNT = "UPDATE configuration SET revocation_counter = revocation_counter + 1 WHERE id = 1"
_NAME_ROW = (
    "INSERT INTO revoked_rows (revocation_counter, row_id) SELECT revocation_counter, OLD.id FROM"
    " configuration WHERE true ON CONFLICT DO NOTHING"
)
_FORGET_OLD = (
    "DELETE FROM revoked_rows WHERE revocation_counter < (SELECT revocation_counter - 1000 FROM"
    " configuration)"
)
# A transaction increases the counter once, however many rows it changes: `xmin` of the row in
# `configuration` is the transaction that last wrote it. A TRUNCATE increases the counter by two
# more, without rows in `revoked_rows`. Processes notice that, and reload everything. They do so too
# if a transaction names MOST_REVOKED_ROWS rows, so it names no more: the revocation of a key with
# 300,000 keys in its family would otherwise take 4 seconds longer. The transaction counts the named
# rows in a setting of its own, `deputy.named_rows`.
FUNCTION = f"""
CREATE FUNCTION deputy_revoke() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    named integer := coalesce(nullif(current_setting('deputy.named_rows', true), ''), '0');
BEGIN
    IF TG_LEVEL = 'ROW' AND named >= {MOST_REVOKED_ROWS} THEN
        RETURN NULL;
    END IF;
    {_COUNT} AND xmin <> pg_current_xact_id()::xid;
    IF FOUND THEN
        {_FORGET_OLD};
    END IF;
    IF TG_LEVEL = 'ROW' THEN
        {_NAME_ROW};
        IF FOUND THEN
            PERFORM set_config('deputy.named_rows', (named + 1)::text, true);
        END IF;
    ELSE
        UPDATE configuration SET revocation_counter = revocation_counter + 2 WHERE id = 1;
    END IF;
    RETURN NULL;
END $$
"""  # noqa: S608  constants


def triggers() -> Iterator[str]:
    """Yield the statements that create the triggers.

    They run at the commit. Every transaction therefore locks the single row of `configuration` last
    and briefly, so this lock can't take part in a deadlock.
    """
    conditions: dict[tuple[str, str], list[str]] = {}
    for table, columns, condition in UPDATES:
        changed = " OR ".join(map(_is_changed, columns.split()))
        conditions.setdefault((table, "UPDATE"), []).append(f"({condition} AND ({changed}))")
    conditions |= {(table, "DELETE"): [condition] for table, condition in DELETIONS.items()}
    for (table, event), each in conditions.items():
        yield (
            f"CREATE CONSTRAINT TRIGGER {table}_{event.lower()}_revokes AFTER {event} ON {table}"
            f" DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ({' OR '.join(each)}) EXECUTE"
            " FUNCTION deputy_revoke()"
        )
    for table in DELETIONS:
        yield (
            f"CREATE TRIGGER {table}_truncate_revokes AFTER TRUNCATE ON {table} EXECUTE"
            " FUNCTION deputy_revoke()"
        )


def _is_changed(column: str) -> str:
    text = "::text" if column == "permission_sets" else ""  # PostgreSQL can't compare JSON
    return f"OLD.{column}{text} IS DISTINCT FROM NEW.{column}{text}"


class RevocationLog(NamedTuple):
    """A process's copy of the latest revocations, with the ids of the rows that they changed.

    With it, a revocation invalidates only the cache entries that depend on those rows. The log has
    the revocations from the counter `complete_since` (exclusive) to `counter` (inclusive).

    `rollbacks`: how often the counter became lower, which happens when a backup is restored. The
    same counters then stand for other revocations.
    """

    counter: int = 0
    complete_since: int = 0
    rollbacks: int = 0
    # The counter of the last revocation that changed a row, by the row's id
    changed: Mapping[UUID | None, int] = {}

    def advanced_to(self, counter: int, changes: Sequence[tuple[int, UUID]]) -> "RevocationLog":
        """Return the log up to this counter.

        `changes`: the counters and row ids of the revocations in between, at most
        MOST_REVOKED_ROWS. If some are missing, the new log is complete only after this counter.
        """
        changed = dict(self.changed)
        counters: set[int] = set()
        for revoked_at, row_id in sorted(changes):
            changed[row_id] = revoked_at
            counters.add(revoked_at)
        # False if revocations have no rows: after a TRUNCATE or a manual change of the counter
        complete = len(counters) == counter - self.counter
        if complete and max(len(changes), len(changed)) < MOST_REVOKED_ROWS:
            return RevocationLog(counter, self.complete_since, self.rollbacks, changed)
        return RevocationLog(counter, counter, self.rollbacks + (counter < self.counter))

    def caught_up(self, db: Session) -> "RevocationLog":
        """Return the log up to the database's counter."""
        counter = db.scalars(select(Configuration.revocation_counter)).one()
        newer = select(RevokedRow.revocation_counter, RevokedRow.row_id).where(
            RevokedRow.revocation_counter > self.counter, RevokedRow.revocation_counter <= counter
        )
        rows = db.execute(newer.limit(MOST_REVOKED_ROWS))
        return self.advanced_to(counter, [(revoked_at, row_id) for revoked_at, row_id in rows])

    def still_valid_at(self, read_at: int, row_ids: Sequence[UUID | None]) -> int | None:
        """Return the last counter at which a cache entry is known to be valid.

        The entry was read from these rows when the counter was `read_at`. Return None if one of the
        rows was revoked since, or if the log does not reach back that far.
        """
        if read_at >= self.counter:
            return read_at
        if read_at < self.complete_since:
            return None
        for row_id in row_ids:
            if self.changed.get(row_id, 0) > read_at:
                return None
        return self.counter
