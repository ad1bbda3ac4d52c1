"""Waiting for a condition: tests never wait a fixed time for something to have happened."""

import time

import sqlalchemy

PATIENCE = 120.0  # seconds; a machine may stall for several of them
_SOON, _RARELY = 0.005, 0.25


def until(truth, what="it", seconds=PATIENCE):
    """What `truth` returns once it is true. Fails when that takes longer than `seconds`.

    The longer it takes, the more rarely it looks: looking is often a request, which the awaited
    then has to wait for.
    """
    began = time.monotonic()
    while not (found := truth()):
        waited = time.monotonic() - began
        assert waited < seconds, f"not within {seconds:.0f} s: {what}"
        time.sleep(min(_SOON + waited / 20, _RARELY))
    return found


def waiting_for_locks(database):
    """How many of PostgreSQL's sessions wait for a lock, in this database."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND"
        " wait_event_type = 'Lock'"
    )
    with database.read() as db:
        return db.scalar(sqlalchemy.text(query))
