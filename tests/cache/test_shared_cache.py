"""The cache that processes share: hints, and locks that expire. While it is away it is empty,
and no request fails.
"""

import re
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from app.cache.shared_cache import _TAKERS, SharedCache
from app.errors import RateLimitedError
from app.limits.counting_in_memory import Rate, Rates
from app.settings.setting_types import Limit
from dev.ports import free_port
from tests.conftest import make_config
from tests.support.databases import NOWHERE
from tests.support.rows import at_once
from tests.support.valkey import cache_at, logged
from tests.support.waiting import until


@pytest.fixture
def cache(valkey):
    valkey.revive()
    with cache_at(valkey.url) as cache:
        cache.client.flushall()
        yield cache


@pytest.fixture
def other(valkey):
    with cache_at(valkey.url) as cache:
        yield cache


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """A cache that failed is asked again after a moment; and a slow machine is not a cache that
    hangs.
    """
    monkeypatch.setattr("app.cache.shared_cache._LEAVE_ALONE_SECONDS", 0.2)
    monkeypatch.setattr("app.cache.shared_cache._ANSWER_SECONDS", 60)


def test_a_value_that_one_process_puts_another_gets(cache, other):
    value = bytes(range(256))
    assert cache.get("a") is None
    cache.put("a", value, 60)
    assert other.get("a") == value
    other.forget("a")
    assert cache.get("a") is None
    assert not cache.away


def test_processes_count_a_rate_together_and_say_how_long_to_wait(cache, other):
    limit = Limit("test", "tests", "tenant", "cache", 1, "per second", burst=6)
    first, second, subject = Rate(limit, cache), Rate(limit, other), uuid.uuid4()
    for _ in range(6):
        first.acquire(subject)
    with pytest.raises(RateLimitedError) as refused:
        second.acquire(subject)
    assert refused.value.retry_after == 3
    second.acquire(uuid.uuid4())
    Rate(limit._replace(name="another"), other).acquire(subject)


def test_processes_count_their_background_calls_together_and_routine_ones_twice(cache):
    rates = Rates(make_config(NOWHERE, sts_budget=10), cache)
    counted = []
    for call in (rates.background_call, rates.routine_call):
        with call():
            keys = map(bytes.decode, cache.client.scan_iter("deputy:rate:*"))
            counted.append({re.search(r"{(\w+)/", key)[1] for key in keys})
    assert counted == [{"sts"}, {"sts", "routine"}]


def test_many_processes_lose_nothing_of_a_limit_over_several_seconds(valkey):
    """Each would keep a portion for a second, and the cache would count it for five."""
    processes = [SharedCache(valkey.url) for _ in range(24)]
    assert all(each.hit("sessions", (240, 5), "one tenant") for each in processes)


def test_a_value_ends_in_time(cache):
    cache.put("a", b"1", 60.5)
    assert 0 < cache.client.pttl("a") <= 60_500
    cache.put("b", b"1", 0.05)
    until(lambda: cache.get("b") is None)
    cache.put("c", b"1", -5)
    until(lambda: cache.get("c") is None)
    assert not cache.away, "a time that has passed is no error"


def test_one_process_at_a_time_holds_a_lock(cache, other):
    token = cache.lock("l", 60)
    assert (cache.lock("l", 60), other.lock("l", 60)) == (None, None)
    assert 0 < cache.client.pttl("l") <= 60_000
    cache.unlock("l", token)
    assert other.lock("l", 60) is not None


def test_a_lock_that_expired_and_was_taken_again_is_not_released(cache, other):
    """The lock of one who died ends by itself."""
    late = cache.lock("l", 0.01)
    until(lambda: other.client.get("l") is None)
    token = other.lock("l", 60)
    cache.unlock("l", late)
    assert cache.lock("l", 60) is None
    other.unlock("l", token)
    assert cache.lock("l", 60) is not None


# --- away ---


def is_back(cache):
    """It takes what it is given: then it is."""
    cache.put("alive", b"1", 60)
    return not cache.away


def everything(cache):
    cache.put("a", b"1", 60)
    cache.forget("a")
    cache.unlock("l", "token")
    return [cache.get("a"), cache.lock("l", 60), cache.ask(cache.client.ping)]


def test_a_cache_that_is_not_there_is_empty_gives_no_lock_and_limits_nothing():
    with cache_at(f"redis://127.0.0.1:{free_port()}/0") as cache, logged() as lines:
        assert not cache.away, "making it connects to nothing"
        assert everything(cache) == [None, None, None]
        assert cache.away
        assert cache.hit("l", (1, 1), "subject")
    assert lines == ["cache.lost"]


def until_it_asks_again(cache):
    until(lambda: time.monotonic() > cache._ask_again_at)


def test_lost_and_found_are_logged_once_each(valkey, cache):
    with logged() as lines:
        cache.put("a", b"1", 60)
        valkey.kill()
        for _ in range(3):
            assert set(at_once([lambda: cache.get("a")] * 6)) == {None}
            until_it_asks_again(cache)
        assert cache.away
        valkey.start()
        until(lambda: all(at_once([lambda: is_back(cache)] * 6)))
    assert lines == ["cache.lost", "cache.back"]


def straggling(cache, ask):
    """Somebody who asked just now, and whose outcome is known when the event is set."""
    asked, known = threading.Event(), threading.Event()

    def slow():
        asked.set()
        known.wait(60)
        return ask()

    pool = ThreadPoolExecutor(1)
    running = pool.submit(cache.ask, slow, writes=True)
    asked.wait(60)
    pool.shutdown(wait=False)
    return known, running


def test_an_answer_to_what_was_asked_before_the_loss_is_no_sign_of_life(valkey, cache):
    with logged() as lines:
        known, running = straggling(cache, lambda: b"from before")
        valkey.kill()
        assert cache.get("a") is None
        known.set()
        assert running.result(60) == b"from before"
        assert cache.away
        valkey.start()
        until(lambda: is_back(cache))
    assert lines == ["cache.lost", "cache.back"]


def test_a_failure_of_what_was_asked_before_it_came_back_is_no_new_loss(valkey, cache):
    def fail():
        raise redis.ConnectionError("reset by peer")

    with logged() as lines:
        known, running = straggling(cache, fail)
        valkey.kill()
        assert cache.get("a") is None
        valkey.start()
        until(lambda: is_back(cache))
        known.set()
        assert running.result(60) is None
        assert not cache.away
        cache.put("a", b"1", 60)
        assert cache.get("a") == b"1"
    assert lines == ["cache.lost", "cache.back"]


def test_a_cache_that_is_away_is_left_alone_for_a_while(valkey, cache, monkeypatch):
    monkeypatch.setattr("app.cache.shared_cache._LEAVE_ALONE_SECONDS", 30)
    asked = []

    def ask():
        asked.append(1)
        return cache.client.ping()

    valkey.kill()
    assert [cache.ask(ask) for _ in range(50)] == [None] * 50
    valkey.start()
    assert cache.ask(ask) is None
    assert len(asked) == 1


def test_a_cache_that_hangs_costs_a_moment_once(valkey, cache, monkeypatch):
    cache.put("a", b"1", 60)
    monkeypatch.setattr("app.cache.shared_cache._ANSWER_SECONDS", 0.25)
    with cache_at(valkey.url) as impatient:
        with valkey.hanging():
            began = time.monotonic()
            assert everything(impatient) == [None, None, None]
            assert 0.2 < time.monotonic() - began < 30
        until(lambda: is_back(impatient))
        until(lambda: impatient.get("a") == b"1")


def test_a_cache_that_is_full_is_lost_until_it_takes_something(cache):
    """It still answers questions, and would be back with each and lost with the next write."""
    cache.put("a", b"1", 60)
    with logged() as lines:
        cache.client.config_set("maxmemory", "1")
        cache.put("b", b"1", 60)
        for _ in range(2):
            until_it_asks_again(cache)
            assert cache.get("a") == b"1"
            assert cache.lock("l", 60) is None
            assert cache.away
        cache.client.config_set("maxmemory", "0")
        until(lambda: is_back(cache))
    assert lines == ["cache.lost", "cache.back"]


def test_more_calls_at_once_than_connections_fail_no_request(valkey, monkeypatch):
    monkeypatch.setattr("app.cache.shared_cache._POOL", 2)
    with cache_at(valkey.url) as cache:
        assert all(outcome is None for outcome in at_once([lambda: cache.put("a", b"1", 60)] * 16))
        until(lambda: cache.get("a") in {b"1", None} and not cache.away)


def test_requests_of_different_tenants_do_not_wait_for_each_others_calls(cache, monkeypatch):
    """Each is in its call while the other is."""
    together = threading.Barrier(2)
    hit = cache._limiter.hit

    def slow(*what, **options):
        together.wait(60)
        return hit(*what, **options)

    monkeypatch.setattr(cache._limiter, "hit", slow)
    subjects = [str(number) for number in range(1000)]
    first, *others = subjects
    second = next(s for s in others if hash(("l", s)) % _TAKERS != hash(("l", first)) % _TAKERS)
    jobs = [lambda subject=subject: cache.hit("l", (5, 1), subject) for subject in (first, second)]
    assert at_once(jobs) == [True, True]


def test_a_replica_that_the_caches_name_led_to_is_left(valkey, cache):
    """A failover: it answers, and refuses writes; its connection is not used again."""
    cache.put("a", b"1", 60)
    pool = cache.client.connection_pool
    used = pool.get_connection()
    cache.put("a", b"1", 60)
    [connection] = pool._available_connections
    cache.client.replicaof("127.0.0.1", free_port())
    try:
        with logged() as lines:
            cache.put("a", b"2", 60)
        assert lines == ["cache.lost"]
        assert (connection.is_connected, used.is_connected) == (False, True)
    finally:
        valkey_client = redis.Redis.from_url(valkey.url)
        valkey_client.replicaof("NO", "ONE")
