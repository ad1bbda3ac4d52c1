"""Find out when a role's trust policy ends the vendor's access.

All functions are pure.
"""

from collections.abc import Collection, Iterable, Iterator
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from itertools import chain

from app.proofs.policy_statements import Statement


def end_dates(admitting: Iterable[Statement], denying: Iterable[Statement]) -> Iterator[str]:
    """Yield the dates that end the broker's access, as the policy writes them.

    A date in one statement does not end the access while another statement lets us in without a
    date. `admitting`: the Allow statements that may let the broker in. `denying`: the Deny
    statements that may keep it out.
    """
    until = [list(_dates_of(statement, "lessthan")) for statement in admitting]
    if all(until):
        yield from chain.from_iterable(until)
    for statement in denying:
        if not any(_dates_of(statement, "lessthan")):  # else the access begins again
            yield from _dates_of(statement, "greaterthan")


def _dates_of(statement: Statement, order: str) -> Iterator[str]:
    for comparison in statement.comparisons:
        is_time = comparison.key in {"aws:currenttime", "aws:epochtime"}
        if is_time and order in comparison.operator:
            yield from comparison.values


def end_of(times: Collection[str]) -> datetime | None:
    """Return the end of access, which is the latest of these times; None if it is unknown.

    It is unknown if a time is not in the kit's format, or is in the first or last year of
    `datetime`. PostgreSQL may return a time in any time zone, and in some zones such a time is out
    of range.
    """
    latest = None
    for time in times:
        try:
            end = datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except ValueError:
            return None
        if end.year in {MINYEAR, MAXYEAR}:
            return None
        latest = max(end, latest or end)
    return latest
