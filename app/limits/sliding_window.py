"""A sliding window, estimated from the counts of the current window and the one before it.

The earlier count fades evenly, so a span across a window boundary can contain up to twice the
limit.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Uses:
    """The counts of one subject.

    `number` names the current window: the time divided by the window's length.
    """

    number: int = 0
    counted: int = 0
    before: int = 0  # the count of the window before


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """A limit of `amount` in `seconds`.

    It changes the given uses, because a new object would cost more than the rest.
    """

    amount: int
    seconds: int

    def count(self, uses: Uses, at: float) -> float:
        """Count one at that time and return 0; or return the seconds until there is room for one.

        In the second case nothing is counted.
        """
        number, passed = int(at // self.seconds), at % self.seconds
        ahead = uses.number - number
        if ahead == 1:  # a machine or a thread whose clock is a little ahead began the window
            passed -= self.seconds
        elif ahead != 0:
            uses.before = uses.counted if ahead == -1 else 0
            uses.number, uses.counted = number, 0
        if uses.before * (self.seconds - passed) > (self.amount - uses.counted - 1) * self.seconds:
            return self._until_room(uses, passed)
        uses.counted += 1
        return 0.0

    def _until_room(self, uses: Uses, passed: float) -> float:
        amount, seconds = self.amount, self.seconds
        if uses.counted < amount:  # the time until enough of the earlier count has faded
            return (
                uses.before * (seconds - passed) + (uses.counted + 1 - amount) * seconds
            ) / uses.before
        # A little after the next window begins
        return min(float(seconds), seconds - passed + seconds / amount)
