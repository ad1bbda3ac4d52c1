"""What the processes share may die or hang in the middle of a load, and no request fails for it.
tests/cache and tests/issuing/test_session_cache.py have a cache that is full, and one that lies.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.honesty.deployment import HANDS, Answer, Client, Deployment, Load
from tests.support.waiting import until

DURATIONS = itertools.count(900)  # a question of its own for each


@pytest.fixture
def service(sharing: Deployment) -> Deployment:
    return sharing


@contextmanager
def load_of_both_kinds(service: Deployment) -> Iterator[Load]:
    """Hot and cold, on both web processes; everybody is served, in time, and recorded."""
    places = [service.place() for _ in range(3)]  # each key below its limit

    def ask(client: Client, turn: int) -> Answer:
        place = places[turn % 3]
        return (
            place.ask_uncached(client, next(DURATIONS))
            if turn % 4 == 0
            else place.ask(client, turn)
        )

    with (
        service.clients(HANDS // 2) as by_process,
        Load([*itertools.chain(*by_process.values())], ask, pause=0.06) as load,
    ):
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


def assert_said(service: Deployment, event: str, since: int) -> None:
    """By each of the two web processes."""
    until(lambda: service.logged(event, since) >= 2, event)


def assert_said_once_each(service: Deployment, since: int) -> None:
    assert (service.logged("cache.lost", since), service.logged("cache.back", since)) == (2, 2)


def assert_shared(service: Deployment) -> None:
    """What one process fetched, the other serves."""
    place = service.place()
    before = service.aws.assumed(place.role_arn)
    with service.clients(1) as by_process:
        answers = [place.ask(client) for (client,) in by_process.values()]
    assert [answer.status for answer in answers] == [200, 200]
    assert service.aws.assumed(place.role_arn) - before == 1
    assert answers[0].json["AccessKeyId"] == answers[1].json["AccessKeyId"]


def test_a_shared_cache_is_killed_and_comes_back(service, valkey):
    assert_shared(service)
    since = len(service.said)
    with load_of_both_kinds(service) as load:
        valkey.kill()
        assert_said(service, "cache.lost", since)
        load.go_on(40)
        valkey.start()
        assert_said(service, "cache.back", since)
    assert_said_once_each(service, since)
    assert_shared(service)


def test_a_shared_cache_hangs_for_a_while(service, valkey):
    since = len(service.said)
    with load_of_both_kinds(service) as load:
        with valkey.hanging():
            assert_said(service, "cache.lost", since)
            load.go_on(40)
        assert_said(service, "cache.back", since)
    assert_said_once_each(service, since)
    assert_shared(service)
