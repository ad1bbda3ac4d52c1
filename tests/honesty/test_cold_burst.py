"""Many who ask for the same at once, when nothing is cached: one call to AWS, and an audit event
for each of them.
"""

import itertools
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.honesty.conftest import ISSUE_RATE

BURST = 48


def burst(service, place):
    """All requests at the same moment, half of them to each of two web processes; AWS takes long
    enough for all to meet.
    """
    ready = threading.Barrier(BURST)

    def ask(client):
        ready.wait(10)
        return place.ask(client, 1)

    with (
        service.clients(BURST // 2) as by_process,
        service.aws.slow(0.05),
        ThreadPoolExecutor(BURST) as pool,
    ):
        return list(pool.map(ask, itertools.chain(*by_process.values())))


def called_for(service, place):
    """How often AWS was asked for one burst, of which everybody was served and recorded as it
    was.
    """
    before = service.aws.assumed(place.role_arn)
    answers = burst(service, place)
    calls = service.aws.assumed(place.role_arn) - before
    assert Counter(answer.status for answer in answers) == {200: BURST}
    events = [event for event in service.events() if event.is_of(place) and event.issued]
    assert sorted(event.issued for event in events) == sorted(answer.issued for answer in answers)
    assert len({event.request_id for event in events}) == BURST
    assert [event.details["source"] for event in events].count("sts") == calls
    assert len({answer.json["AccessKeyId"] for answer in answers}) == calls
    return calls


def test_every_process_asks_aws_once(service):
    assert 1 <= called_for(service, service.place()) <= 2


def test_processes_that_share_a_cache_ask_aws_once_together_and_no_limit_is_in_the_way(sharing):
    """A burst is just within what each key may ask for in a second."""
    assert BURST < ISSUE_RATE
    assert called_for(sharing, sharing.place()) == 1
