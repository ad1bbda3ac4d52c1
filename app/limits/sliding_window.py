"""A sliding window, estimated from the counts of the current window and of the window before.

The estimate assumes that the uses in the earlier window were spread evenly. If they were not, a
span across the boundary of two windows can contain up to twice the limit.
"""

from app.store.models import QuotaUse


def count_use(use: QuotaUse, amount: int, seconds: int, current_time: float) -> float:
    """Count one use and return 0, if at most `amount` uses are then in the last `seconds`.

    Otherwise count nothing, and return the seconds until there is room. `current_time`: in seconds
    since 1970.
    """
    number, passed = int(current_time // seconds), current_time % seconds
    ahead = use.number - number
    if ahead == 1:  # another machine or thread, whose clock is a little ahead, began the window
        passed -= seconds
    elif ahead != 0:
        use.counted_before = use.counted if ahead == -1 else 0
        use.number, use.counted = number, 0
    over = use.counted_before * (seconds - passed) - (amount - use.counted - 1) * seconds
    if over <= 0:
        use.counted += 1
        return 0.0
    if use.counted < amount:  # there is room when enough of the earlier window has passed
        return over / use.counted_before
    # There is room a little after the next window begins
    return min(float(seconds), seconds - passed + seconds / amount)
