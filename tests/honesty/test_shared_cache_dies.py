"""What the processes share may die, hang, fill up or lie in the middle of a load, and no request
fails for it.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from tests.honesty.deployment import HANDS, Answer, Client, Deployment, Load
from tests.honesty.front import Aws
from tests.honesty.sharing import sharing
from tests.support.valkey import Valkey
from tests.support.waiting import until

DURATIONS = itertools.count(900)  # a question of its own for each


@pytest.fixture(scope="module")
def deployment_and_valkey(front: Aws, tmp_path_factory) -> Iterator[tuple[Deployment, Valkey]]:
    with sharing(tmp_path_factory.mktemp("shared"), front) as pair:
        yield pair


@pytest.fixture
def service(deployment_and_valkey) -> Deployment:
    return deployment_and_valkey[0]


@pytest.fixture
def valkey(deployment_and_valkey) -> Valkey:
    deployment_and_valkey[1].revive()
    return deployment_and_valkey[1]


@contextmanager
def load_of_both_kinds(service: Deployment) -> Iterator[Load]:
    """Hot and cold, on both web processes; everybody is served, in time, and recorded."""
    place = service.place()

    def ask(client: Client, turn: int) -> Answer:
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


def test_a_shared_cache_is_full(service, valkey):
    """It still answers questions, and takes nothing."""
    since = len(service.said)
    with load_of_both_kinds(service) as load, control(valkey) as client:
        client.config_set("maxmemory", "1")
        assert_said(service, "cache.lost", since)
        load.go_on(40)
        client.config_set("maxmemory", "0")
        assert_said(service, "cache.back", since)
    assert_said_once_each(service, since)
    assert_shared(service)


@contextmanager
def control(valkey: Valkey) -> Iterator[redis.Redis]:
    with redis.Redis(port=valkey.port) as client:
        yield client


def test_what_was_put_there_by_somebody_else_is_never_served(service, valkey):
    """Garbage, and sessions that are sealed well but stand under others' names."""
    places = [service.place() for _ in range(4)]
    with service.clients(1) as by_process, control(valkey) as client:
        (one,), (other,) = by_process.values()
        client.delete(*client.keys("deputy:session:*"), "nothing")
        first = []
        names: list[bytes] = []
        for place in places:
            first.append(place.ask(one, 1))
            names += set(client.keys("deputy:session:*")) - set(names)
        assert len(names) == len(places)
        blobs = client.mget(names)
        for name, lie in zip(
            names,
            [blobs[1], blobs[0], blobs[2][:-1] + bytes([blobs[2][-1] ^ 1]), b"\x00{"],
            strict=True,
        ):
            client.set(name, lie)
        second = [place.ask(other, 1) for place in places]
        client.delete(*names)
        client.rpush(names[0], "of another kind")
        third = [place.ask_uncached(one, next(DURATIONS)) for place in places]
    for place, answers in zip(places, zip(first, second, strict=True), strict=True):
        assert [answer.status for answer in answers] == [200, 200]
        assert [answer.json["RoleArn"] for answer in answers] == [place.role_arn] * 2
        # The instant STS's number of the role
        role = [answer.json["AccessKeyId"][4:10] for answer in answers]
        assert role[0] == role[1]
        assert answers[0].json["AccessKeyId"] != answers[1].json["AccessKeyId"], (
            "the lie was not found out"
        )
    assert {answer.status for answer in third} == {200}
