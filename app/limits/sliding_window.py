"""A sliding window, estimated from two counts: that of the present window, and what is left of the
one before.

The earlier count fades evenly, so a span across a window boundary can admit up to twice the limit.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Uses:
    """What was counted for one subject. `number`: of the present window, which is the time
    divided by its length.
    """

    number: int = 0
    counted: int = 0
    before: int = 0  # in the window before


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """At most `amount` in `seconds`. It changes the given uses: a new object would cost more
    than the rest.
    """

    amount: int
    seconds: int
    name: str = ""  # by which all processes know it

    def count(self, uses: Uses, at: float) -> float:
        """Count one at that time and return 0; or count nothing, and return the seconds until
        one is admitted.
        """
        number, passed = int(at // self.seconds), at % self.seconds
        ahead = uses.number - number
        if (
            ahead == 1
        ):  # the window was begun by a machine or a thread whose clock is a little ahead
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
        if uses.counted < amount:  # as soon as enough has faded
            return (
                uses.before * (seconds - passed) + (uses.counted + 1 - amount) * seconds
            ) / uses.before
        return min(
            float(seconds), seconds - passed + seconds / amount
        )  # a little after the next window begins
