"""A process's copy of the latest revocations, with the ids of the rows that they changed.

With it, a revocation invalidates only the cache entries that depend on those rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

MOST_REVOKED_ROWS = 1_000  # maximum of rows in the copy, and in one read from the database


@dataclass(frozen=True, slots=True)
class RevocationLog:
    """The revocations from the counter `complete_since` (exclusive) to `counter` (inclusive).

    `rollbacks`: how often the counter became lower, which happens when a backup is restored. The
    same counters then stand for other revocations.
    """

    counter: int = 0
    complete_since: int = 0
    rollbacks: int = 0
    # The counter of the last revocation that changed a row, by the row's id
    changed: Mapping[UUID | None, int] = field(default_factory=dict)

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
