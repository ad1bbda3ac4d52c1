"""A sliding window, estimated from the counts of the current window and the one before it.

The earlier count fades evenly, so a span across a window boundary can contain up to twice the
limit.
"""

from app.store.models import QuotaUse


def count_use(use: QuotaUse, amount: int, seconds: int, current_time: float) -> float:
    """Count one use and return 0; or return the seconds until there is room for one.

    At most `amount` fit into `seconds`. In the second case nothing is counted. `current_time`: in
    seconds since 1970.
    """
    number, passed = int(current_time // seconds), current_time % seconds
    ahead = use.number - number
    if ahead == 1:  # a machine or a thread whose clock is a little ahead began the window
        passed -= seconds
    elif ahead != 0:
        use.counted_before = use.counted if ahead == -1 else 0
        use.number, use.counted = number, 0
    over = use.counted_before * (seconds - passed) - (amount - use.counted - 1) * seconds
    if over <= 0:
        use.counted += 1
        return 0.0
    if use.counted < amount:  # the time until enough of the earlier count has faded
        return over / use.counted_before
    # A little after the next window begins
    return min(float(seconds), seconds - passed + seconds / amount)
