"""A process's copy of the latest revocations and the rows that they affect.

A revocation reloads only the entries that it affects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

MOST_REVOKED_ROWS = 1_000  # upper bound for the copy, and for one read


@dataclass(frozen=True, slots=True)
class RevocationLog:
    """All revocations after the counter was `complete_since`, up to `counter`.

    `rollbacks`: how often the counter went back, as it does when a backup is restored. The same
    values then stand for other revocations.
    """

    counter: int = 0
    complete_since: int = 0
    rollbacks: int = 0
    # The last revocation's counter
    changed: Mapping[UUID | None, int] = field(default_factory=dict)

    def advanced_to(self, counter: int, changes: Sequence[tuple[int, UUID]]) -> "RevocationLog":
        """Return the history up to another value of the counter.

        `changes`: the revocations in between with their counters, at most MOST_REVOKED_ROWS.
        """
        changed = dict(self.changed)
        counters: set[int] = set()
        for revoked_at, row_id in sorted(changes):
            changed[row_id] = revoked_at
            counters.add(revoked_at)
        # False if the counter was changed by hand
        complete = len(counters) == counter - self.counter
        if complete and max(len(changes), len(changed)) < MOST_REVOKED_ROWS:
            return RevocationLog(counter, self.complete_since, self.rollbacks, changed)
        return RevocationLog(counter, counter, self.rollbacks + (counter < self.counter))

    def still_valid_at(self, read_at: int, row_ids: Sequence[UUID | None]) -> int | None:
        """Return the last counter at which an entry is valid; None if that is unknown.

        The entry was read from these rows when the counter was `read_at`.
        """
        if read_at >= self.counter:
            return read_at
        if read_at < self.complete_since:
            return None
        for row_id in row_ids:
            if self.changed.get(row_id, 0) > read_at:
                return None
        return self.counter
