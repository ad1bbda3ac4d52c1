"""Who joins a call that is running."""


def joins(flights):
    """Of each request that joins a call from now on: whether it started it. A request waits once
    it is in the list.
    """
    seen = []
    join = flights.join

    def joined(*args):
        call, started = join(*args)
        seen.append(started)
        return call, started

    flights.join = joined
    return seen
