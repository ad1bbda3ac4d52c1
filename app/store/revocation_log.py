"""The history of the epoch, as a process remembers it: from which rows something was taken away,
and when last.

With it, one tenant's revocation makes no request read again what it did not touch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

MOST_CHANGES = 1_000  # that are remembered, and read at once


@dataclass(frozen=True, slots=True)
class EpochHistory:
    """All changes after the epoch `known_since`, up to `epoch`.

    `restores`: how often the epoch went back, as it does when a backup is restored. The same
    numbers then stand for other changes.
    """

    epoch: int = 0
    known_since: int = 0
    restores: int = 0
    changed: Mapping[UUID | None, int] = field(default_factory=dict)  # at which epoch, last

    def until(self, epoch: int, changes: Sequence[tuple[int, UUID]]) -> "EpochHistory":
        """The history up to another epoch. `changes`: those in between with their epochs,
        MOST_CHANGES at most.
        """
        changed = dict(self.changed) | {row_id: at for at, row_id in sorted(changes)}
        complete = (
            len({at for at, _ in changes}) == epoch - self.epoch
        )  # False where it was moved by hand
        if complete and max(len(changes), len(changed)) < MOST_CHANGES:
            return EpochHistory(epoch, self.known_since, self.restores, changed)
        return EpochHistory(epoch, epoch, self.restores + (epoch < self.epoch))

    def valid_at(self, read_at: int, row_ids: Sequence[UUID | None]) -> int | None:
        """The last epoch at which what was read from these rows at `read_at` is surely valid;
        None if unknown.
        """
        if read_at >= self.epoch:
            return read_at
        if read_at < self.known_since:
            return None
        for row_id in row_ids:
            if self.changed.get(row_id, 0) > read_at:
                return None
        return self.epoch
