"""What the processes share may die or hang in the middle of a load, and no request fails for it.
tests/cache and tests/issuing/test_session_cache.py have a cache that is full, and one that lies.
"""

import contextlib
import itertools
from contextlib import contextmanager

import pytest

from tests.honesty.deployment import Deployment
from tests.support.waiting import until

DURATIONS = itertools.count(900)  # a question of its own for each


@pytest.fixture
def service(sharing) -> Deployment:
    return sharing


@contextmanager
def load_of_both_kinds(service):
    """Hot and cold, on both web processes; everybody is served, in time, and recorded."""
    places = [service.place() for _ in range(3)]  # each key below its limit

    def ask(client, turn):
        place = places[turn % 3]
        if turn % 4 == 0:
            return place.ask_uncached(client, next(DURATIONS))
        return place.ask(client, turn)

    with service.load(ask, pause=0.06) as load:
        load.go_on(40)
        usual = max(answer.seconds for answer in load.answers)
        yield load
        load.go_on(40)
    assert load.lost == 0
    assert set(load.statuses) == {200}
    assert max(answer.seconds for answer in load.answers) < 1.8 + usual, (
        "longer than requests here took before"
    )
    assert not {answer.issued for answer in load.answers} - set(service.issued())


def assert_said(service, event, since):
    """By each of the two web processes."""
    until(lambda: service.logged(event, since) >= 2, event)


def assert_shared(service):
    """What one process fetched, the other serves."""
    place = service.place()
    before = service.aws.assumed(place.role_arn)
    with service.clients(1) as by_process:
        answers = [place.ask(client) for (client,) in by_process.values()]
    assert [answer.status for answer in answers] == [200, 200]
    assert service.aws.assumed(place.role_arn) - before == 1
    assert answers[0].json["AccessKeyId"] == answers[1].json["AccessKeyId"]


@pytest.mark.parametrize("way", ["is killed", "hangs"])
def test_a_shared_cache_dies_for_a_while_and_comes_back(service, valkey, way):
    assert_shared(service)
    since = len(service.said)
    with load_of_both_kinds(service) as load, contextlib.ExitStack() as trouble:
        if way == "hangs":
            trouble.enter_context(valkey.hanging())
        else:
            valkey.kill()
            trouble.callback(valkey.start)
        assert_said(service, "cache.lost", since)
        load.go_on(40)
        trouble.close()
        assert_said(service, "cache.back", since)
    assert (service.logged("cache.lost", since), service.logged("cache.back", since)) == (2, 2)
    assert_shared(service)
