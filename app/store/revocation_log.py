"""A process's copy of the latest revocations and the rows that they affect.

A revocation reloads only the entries that it affects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

MOST_CHANGES = 1_000  # upper bound for the copy, and for one read


@dataclass(frozen=True, slots=True)
class EpochHistory:
    """All revocations after the counter was `known_since`, up to `epoch`.

    `restores`: how often the counter went back, as it does when a backup is restored. The same
    values then stand for other revocations.
    """

    epoch: int = 0
    known_since: int = 0
    restores: int = 0
    changed: Mapping[UUID | None, int] = field(
        default_factory=dict
    )  # the last revocation's counter

    def until(self, epoch: int, changes: Sequence[tuple[int, UUID]]) -> "EpochHistory":
        """Return the history up to a later value of the counter.

        `changes`: the revocations in between with their counters, at most MOST_CHANGES.
        """
        changed = dict(self.changed) | {row_id: at for at, row_id in sorted(changes)}
        complete = (
            len({at for at, _ in changes}) == epoch - self.epoch
        )  # False if the counter was changed by hand
        if complete and max(len(changes), len(changed)) < MOST_CHANGES:
            return EpochHistory(epoch, self.known_since, self.restores, changed)
        return EpochHistory(epoch, epoch, self.restores + (epoch < self.epoch))

    def valid_at(self, read_at: int, row_ids: Sequence[UUID | None]) -> int | None:
        """Return the last counter at which an entry is valid; None if that is unknown.

        The entry was read from these rows when the counter was `read_at`.
        """
        if read_at >= self.epoch:
            return read_at
        if read_at < self.known_since:
            return None
        for row_id in row_ids:
            if self.changed.get(row_id, 0) > read_at:
                return None
        return self.epoch
