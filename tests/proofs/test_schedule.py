"""When a role is tried again by itself."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial

from app.ids import new_id
from app.proofs.schedule import (
    _SETTLING,
    ProofInterval,
    first_after,
    next_search,
    next_slot,
    schedule_after_approval,
    schedule_next,
)
from app.store.models import Connection, ConnectionStatus, Proof, Tenant, Trigger, Verdict

SINCE = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
HOURLY = partial(next_slot, seconds=3600)


def offsets(following, begin=0.0):
    """The seconds after the beginning at which a role is tried that never changes, each try
    taking half a second.
    """
    seconds, at = [], SINCE + timedelta(seconds=begin)
    while (due := following(SINCE, at)) is not None:
        seconds.append((due - SINCE).total_seconds())
        at = due + timedelta(seconds=0.5)
    return seconds


def test_a_search_is_quick_at_first_then_hourly_and_ends_after_14_days():
    hours = [3600 * hour for hour in range(1, 14 * 24 + 1)]
    assert offsets(next_search) == [5, 15, 30, 60, *hours]
    # A search that nobody carried for a while goes on where it would be
    assert offsets(next_search, 40) == [60, *hours]
    assert offsets(next_search, 9_000) == hours[2:]
    assert offsets(next_search, 15 * 86_400) == []
    # Nothing is tried while the tenant is suspended
    resumed = partial(next_search, resumed_at=SINCE + 14 * DAY)
    assert offsets(resumed, 15 * 86_400)[-1] == 28 * 86_400


def test_a_first_proof_is_repeated_after_2_and_15_minutes():
    settling = partial(first_after, _SETTLING)
    assert offsets(settling) == [120, 900]
    assert offsets(settling, 130) == [900]
    assert offsets(settling, 900) == []


def test_slots_come_once_in_an_interval_and_a_little_late():
    connection = new_id()
    at = HOURLY(connection, SINCE)
    for delay in (0.5, 700, 0.5, 2000, 0.5, 3000, 0.5):
        before = at + timedelta(seconds=delay)
        at = HOURLY(connection, before)
        assert HOUR / 4 <= at - before <= HOUR * 1.3


def test_slots_are_jittered_and_spread_over_the_interval_however_late_the_proofs_were():
    """After an outage all connections are proven within minutes: their next slots are no wave."""
    slots = Counter(int(HOURLY(new_id(), SINCE).timestamp() % 3600 // 360) for _ in range(6_000))
    assert len(slots) == 10
    assert max(slots.values()) < 1.5 * min(slots.values())
    connection = new_id()
    assert len({HOURLY(connection, SINCE) for _ in range(50)}) > 40


def test_the_interval_grows_in_quarters_with_the_connections():
    for number, seconds in (
        (0, 3600),
        (36_000, 3600),
        (36_001, 4500),
        (45_000, 4500),
        (45_001, 5400),
        (360_000, 36_000),
    ):
        assert ProofInterval.for_connections(3600, number, 10) == (3600, seconds, number)


def due_in(until, status=ConnectionStatus.VERIFIED, verdict=Verdict.PROVEN):
    """The seconds until the next proof of a connection that stays as it is."""
    it = Connection(id=new_id(), status=status, due_since=SINCE - DAY, access_until=until)
    proof = Proof(verdict=verdict, checked_at=SINCE, checks=[])
    schedule_next(it, proof, ProofInterval(3600, 3600), restarts=False)
    return (it.due_at - SINCE).total_seconds()


def test_a_search_that_a_clock_ahead_began_goes_on_at_once():
    it = Connection(id=new_id(), status=ConnectionStatus.PENDING, due_since=SINCE + DAY)
    it.tenant = Tenant()
    proof = Proof(verdict=Verdict.UNASSUMABLE, checked_at=SINCE, checks=[])
    schedule_next(it, proof, ProofInterval(3600, 3600), restarts=False)
    assert it.due_at - SINCE < timedelta(minutes=1)


def test_a_proof_is_due_just_after_an_end_that_comes_before_its_slot():
    refused_after_the_end = (ConnectionStatus.ENDED, Verdict.UNASSUMABLE)
    assert due_in(SINCE + timedelta(minutes=1)) == 90
    assert due_in(SINCE - timedelta(seconds=9), *refused_after_the_end) == 21
    last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # as people write "never"
    for seconds in (due_in(last), due_in(SINCE + DAY), due_in(SINCE - DAY, *refused_after_the_end)):
        assert 15 * 60 <= seconds <= 80 * 60


def test_an_approval_goes_on_with_the_schedule_of_the_proof_that_waited_for_it():
    for minutes, due in ((0, 2), (2, 15), (15, 15), (60, 60)):
        it = Connection(id=new_id(), status=ConnectionStatus.VERIFIED, due_since=SINCE)
        schedule_after_approval(it, SINCE + timedelta(minutes=minutes))
        assert it.due_at - SINCE == timedelta(minutes=due), minutes
        assert it.due_for is Trigger.SCHEDULED
