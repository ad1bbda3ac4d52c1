"""Sessions are kept sealed, shared by those who ask the same, renewed in time, and served to no
other question.
"""

import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
import redis
import time_machine

from app.aws.sts import Session
from app.cache.shared_cache import SharedCache
from app.clock import now, timestamp
from app.concurrency.places import without_slot
from app.errors import AwsUnavailableError, RoleRefusedError
from app.ids import new_id
from app.issuing import session_cache as module
from app.issuing.session_cache import CacheKey, SessionCache
from tests.support.valkey import cache_at
from tests.support.waiting import until

KEYS = ("first-secret-key-of-the-tests-0123456789", "older-secret-key-of-the-tests-0123456789")
PATIENCE = 60.0
ACME, GLOBEX = new_id(), new_id()
_numbers = itertools.count(1)


def question(tenant_id=ACME, what=""):
    """One that was not asked before."""
    text = f'["acme", {next(_numbers)}]{what}'.encode()
    return CacheKey(tenant_id, text, hashlib.sha256(text).digest())


class Aws:
    """Counts how often it is asked, and answers when the test lets it."""

    def __init__(self, seconds=3600):
        self.seconds = seconds
        self.calls = 0
        self.trouble: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self._lock = threading.Lock()

    def __call__(self):
        with self._lock:
            self.calls += 1
        assert self.go_on.wait(60)
        if self.trouble is not None:
            raise self.trouble
        number = next(_numbers)
        return Session(
            access_key_id=f"ASIA{number:016d}",
            secret_access_key=f"the-secret-access-key-{number}-é",
            session_token=f"the-session-token-{number}-" + "x" * 400,
            expires_at=datetime.fromtimestamp(int(now().timestamp() + self.seconds), UTC),
            account_id="444455556666",
            role_unique_id="AROAEXAMPLE",
            name=f"deputy-session-{number}",
        )


@pytest.fixture
def fake_aws() -> Iterator[Aws]:
    aws = Aws()
    yield aws
    aws.go_on.set()


@pytest.fixture
def ask(fake_aws) -> Callable[..., tuple[Session, str]]:
    """`ask(process, question)`: the session, and where it comes from."""
    return lambda sessions, asked: sessions.obtain(asked, fake_aws, PATIENCE, timestamp())


@pytest.fixture
def process() -> Iterator[Callable[..., SessionCache]]:
    """`process(shared)`: the sessions of one more process."""
    made = []

    def begin(shared=None, keys=KEYS):
        made.append(SessionCache(keys, shared))
        return made[-1]

    yield begin
    landed(*made)


@pytest.fixture
def sessions(process) -> SessionCache:
    return process()


@pytest.fixture
def shared_cache(valkey) -> Iterator[SharedCache]:
    valkey.revive()
    with cache_at(valkey.url) as cache:
        yield cache


@pytest.fixture
def shared_too(valkey) -> Iterator[SharedCache]:
    """Another process's own client."""
    with cache_at(valkey.url) as cache:
        yield cache


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(datetime.now(UTC).replace(microsecond=0), tick=False) as traveller:
        yield traveller


def landed(*processes):
    """The calls in the background have ended."""
    for each in processes:
        until(lambda each=each: not each._calls._running)


def kept_of(sessions, asked):
    return sessions._kept.get(asked.digest)


def opened(sessions, asked):
    """What is kept for this question, if it opens."""
    held = sessions._held(asked)
    return held and held[1]


def shared_name(asked):
    return f"deputy:session:{asked.digest.hex()}"


# --- one question, one answer ---


def test_a_request_that_waits_for_aws_gives_up_its_slot(fake_aws, ask, sessions):
    """Otherwise the requests of a few tenants could have all slots while AWS is slow."""
    waits = []

    @contextmanager
    def given_up():
        waits.append(fake_aws.go_on.is_set())
        fake_aws.go_on.set()
        yield
        waits.append("over")

    fake_aws.go_on.clear()
    token = without_slot.set(given_up)
    ask(sessions, question())
    without_slot.reset(token)
    assert waits == [False, "over"]


def test_what_is_spoiled_or_another_questions_in_the_shared_cache_is_asked_for_again(
    process, shared_cache, ask
):
    mine, yours = question(), question()
    _, session = (ask(process(shared_cache), asked)[0] for asked in (mine, yours))
    sealed = shared_cache.get(shared_name(mine))
    for junk in (b"", sealed[:-1], shared_cache.get(shared_name(yours))):
        shared_cache.put(shared_name(mine), junk, 60)
        assert ask(process(shared_cache), mine)[1] == "sts"
    assert ask(process(shared_cache), yours) == (session, "cache")


def test_a_process_keeps_so_many_sessions_and_no_more(process, monkeypatch, ask):
    monkeypatch.setattr(module, "_KEPT", 3)
    sessions, asked = process(), [question() for _ in range(5)]
    for each in asked:
        ask(sessions, each)
    assert len(sessions._kept._sessions) == 3
    assert [opened(sessions, each) is None for each in asked] == [True, True, False, False, False]
    assert ask(sessions, asked[2])[1] == "cache"
    ask(sessions, question())
    assert opened(sessions, asked[2]) is not None, "the one that was used last stays"
    assert opened(sessions, asked[3]) is None


def test_a_tenants_misses_evict_its_own_sessions_once_it_has_its_share(process, monkeypatch, ask):
    assert module._KEPT_OF_TENANT * 10 <= module._KEPT
    monkeypatch.setattr(module, "_KEPT_OF_TENANT", 4)
    monkeypatch.setattr(module, "_CLEARED", 2)
    sessions, others = process(), [question(GLOBEX) for _ in range(3)]
    own = [question(ACME) for _ in range(9)]
    for each in (*others, *own):
        ask(sessions, each)
    assert all(opened(sessions, each) for each in others)
    assert [opened(sessions, each) is not None for each in own] == [False] * 6 + [True] * 3
    for each in own[6:]:
        sessions._kept.pop(each.digest)
    for each in own[:4]:
        ask(sessions, each)
    assert all(opened(sessions, each) for each in own[:4]), (
        "without them it has its whole share again"
    )


# --- in clear nowhere ---


def test_secrets_are_in_clear_neither_in_memory_nor_in_valkey_nor_on_the_way(
    process, shared_cache, valkey, ask
):
    asked = question(what='["dpy-external-id", "a policy"]')
    with redis.Redis.from_url(valkey.url) as admin, admin.monitor() as monitor:
        sessions = process(shared_cache)
        session, _ = ask(sessions, asked)
        assert ask(process(shared_cache), asked)[0] == session
        shared_cache.client.echo("the end")
        commands = list(
            itertools.takewhile(
                lambda command: "the end" not in command["command"], monitor.listen()
            )
        )
        assert any(command["command"].startswith("SET deputy:session:") for command in commands)
        stored = [(name, admin.dump(name)) for name in admin.scan_iter("*")]
    assert stored
    kept = kept_of(sessions, asked)
    seen = [
        repr(commands),
        repr(stored),
        repr(kept),
        repr(vars(sessions)),
        repr(sessions._kept),
        repr(session),
    ]
    secret = (session.secret_access_key[:20], session.session_token[:30], "external-id", "a policy")
    for text in seen:
        assert [part for part in secret if part in text] == []


# --- one flight ---


def test_a_request_that_comes_just_as_the_flight_lands_does_not_begin_another(
    sessions, fake_aws, ask
):
    """Between a look into memory and the look for a flight, a whole flight may take place."""
    asked = question()
    look, looked = sessions._held, []

    def slow_look(key):
        found = look(key)
        if not looked:
            looked.append(found)
            ask(sessions, asked)
        return found

    sessions._held = slow_look
    ask(sessions, asked)
    assert looked == [None]
    assert fake_aws.calls == 1


# --- how long ---


@pytest.mark.parametrize(("seconds", "good"), [(3600, 2100), (3000, 1500), (900, 450)])
def test_a_session_is_handed_out_while_enough_of_its_life_is_left(process, clock, seconds, good):
    sessions, aws, asked = process(), Aws(seconds), question()
    first, _ = sessions.obtain(asked, aws, PATIENCE, timestamp())
    kept_of(sessions, asked).renew_at = float("inf")
    clock.shift(good - 1)
    assert sessions.obtain(asked, aws, PATIENCE, timestamp()) == (first, "cache")
    clock.shift(2)
    found, source = sessions.obtain(asked, aws, PATIENCE, timestamp())
    assert source == "sts"
    assert found != first
    assert aws.calls == 2


def test_a_session_is_renewed_at_a_random_moment_of_its_last_good_fifth(process, clock, ask):
    sessions, at = process(), now().timestamp()
    moments = []
    for _ in range(60):
        asked = question()
        ask(sessions, asked)
        moments.append(kept_of(sessions, asked).renew_at - at)
    assert all(1680 <= moment <= 2100 for moment in moments), moments
    assert max(moments) - min(moments) > 240, "not all at once"


def test_a_clock_that_was_set_back_makes_no_session_younger(process, clock, ask):
    sessions, asked = process(), question()
    first, _ = ask(sessions, asked)
    clock.shift(1500)
    assert ask(sessions, asked) == (first, "cache")
    clock.shift(-50)  # as requests see it that began earlier
    assert ask(sessions, asked) == (first, "cache")
    clock.shift(-20)
    assert ask(sessions, asked)[1] == "sts"
    assert ask(sessions, asked)[1] == "cache", "once"


def due(sessions, asked, clock):
    """The clock is where the session is to be renewed, and still good."""
    kept = kept_of(sessions, asked)
    kept.renew_at = min(kept.renew_at, kept.good_until - 10)
    clock.move_to(kept.renew_at + 1)


def test_a_session_is_renewed_once_and_in_the_background(process, clock, fake_aws, ask):
    sessions, asked = process(), question()
    first, _ = ask(sessions, asked)
    clock.move_to(kept_of(sessions, asked).renew_at - 1)
    assert ask(sessions, asked) == (first, "cache")
    assert fake_aws.calls == 1
    due(sessions, asked, clock)
    fake_aws.go_on.clear()
    for _ in range(5):
        assert sessions.obtain(asked, fake_aws, 0.0, timestamp()) == (first, "cache"), (
            "nobody waits for it"
        )
    fake_aws.go_on.set()
    landed(sessions)
    second, source = ask(sessions, asked)
    assert (fake_aws.calls, source) == (2, "cache")
    assert second != first
    assert opened(sessions, asked) == second


def test_a_renewal_that_fails_is_tried_again_later_and_the_session_served_on(
    process, clock, fake_aws, ask
):
    sessions, asked = process(), question()
    first, _ = ask(sessions, asked)
    kept_of(sessions, asked).renew_at = kept_of(sessions, asked).good_until - 120
    clock.move_to(kept_of(sessions, asked).renew_at)
    fake_aws.trouble = AwsUnavailableError("slow down")
    for calls in (2, 3):
        for _ in range(3):
            assert ask(sessions, asked) == (first, "cache")
            landed(sessions)
        assert fake_aws.calls == calls, "once, and not by everybody who asks"
        clock.shift(4.9)
        assert ask(sessions, asked) == (first, "cache")
        landed(sessions)
        assert fake_aws.calls == calls
        clock.shift(5.2)
    fake_aws.trouble = None
    ask(sessions, asked)
    landed(sessions)
    assert fake_aws.calls == 4
    assert opened(sessions, asked) not in (first, None)


def test_a_role_that_refuses_loses_what_is_kept_of_it_on_both_levels(
    process, clock, fake_aws, shared_cache, ask
):
    sessions, asked = process(shared_cache), question()
    first, _ = ask(sessions, asked)
    assert shared_cache.get(shared_name(asked))
    due(sessions, asked, clock)
    fake_aws.trouble = RoleRefusedError("no")
    assert ask(sessions, asked) == (first, "cache"), "not known yet"
    landed(sessions)
    assert shared_cache.get(shared_name(asked)) is None
    with pytest.raises(RoleRefusedError):
        ask(sessions, asked)
    assert len(sessions._kept._sessions) == 0


def test_while_aws_does_not_answer_a_session_serves_until_a_minute_before_its_end(
    process, clock, fake_aws, ask
):
    """Whether it fails, or takes longer than the request can wait. A refusal has no last resort."""
    sessions, asked = process(), question()
    first, _ = ask(sessions, asked)
    fake_aws.trouble = AwsUnavailableError("silent")
    end = first.expires_at.timestamp()
    for seconds in (1190, 300, 61):
        clock.move_to(end - seconds)
        assert ask(sessions, asked) == (first, "cache")
    fake_aws.go_on.clear()
    assert sessions.obtain(asked, fake_aws, 0.05, timestamp()) == (first, "cache")
    fake_aws.go_on.set()
    landed(sessions)
    clock.move_to(end - 60)
    with pytest.raises(AwsUnavailableError, match="silent"):
        ask(sessions, asked)
    fake_aws.trouble, refused = None, question()
    second, _ = ask(sessions, refused)
    clock.move_to(second.expires_at.timestamp() - 600)
    fake_aws.trouble = RoleRefusedError("no")
    with pytest.raises(RoleRefusedError):
        ask(sessions, refused)


# --- the second level ---


def test_the_lock_is_there_during_the_call_and_gone_after_it(process, fake_aws, shared_cache, ask):
    asked, left = question(), []
    lock = f"{shared_name(asked)}:lock"

    def fetch():
        left.append(shared_cache.client.pttl(lock))
        return fake_aws()

    process(shared_cache).obtain(asked, fetch, PATIENCE, timestamp())
    assert 7_000 < left[0] <= 8_000
    assert shared_cache.get(lock) is None
    fake_aws.trouble = RoleRefusedError("no")
    refused = question()
    with pytest.raises(RoleRefusedError):
        ask(process(shared_cache), refused)
    assert shared_cache.client.keys(f"{shared_name(refused)}*") == []


def test_an_answer_that_came_while_the_lock_was_being_taken_is_taken(
    process, fake_aws, shared_cache, shared_too, ask
):
    """The process that held the lock released it just between our look and our lock."""
    asked, other = question(), process(shared_too)
    lock = shared_cache.lock

    def slow_lock(name, seconds):
        if not fake_aws.calls:
            ask(other, asked)
        return lock(name, seconds)

    shared_cache.lock = slow_lock
    assert ask(process(shared_cache), asked)[1] == "cache"
    assert fake_aws.calls == 1
    assert shared_cache.get(f"{shared_name(asked)}:lock") is None


def test_the_lock_of_a_killed_process_holds_up_no_other_for_long(
    process, shared_cache, monkeypatch, ask
):
    monkeypatch.setattr(module, "_OTHERS_SECONDS", 60)
    asked = question()
    assert shared_cache.lock(f"{shared_name(asked)}:lock", 0.3)
    began = time.monotonic()
    assert ask(process(shared_cache), asked)[1] == "sts"
    assert 0.2 < time.monotonic() - began < 30, "as long as the lock lasts"
    monkeypatch.setattr(module, "_OTHERS_SECONDS", 0.2)
    asked = question()
    assert shared_cache.lock(f"{shared_name(asked)}:lock", 60)
    began = time.monotonic()
    assert ask(process(shared_cache), asked)[1] == "sts"
    assert 0.15 < time.monotonic() - began < 30, "and no longer than who asks can wait"
    assert shared_cache.get(f"{shared_name(asked)}:lock"), "it is not ours to give back"


def test_what_another_process_has_renewed_is_not_renewed_again(
    process, clock, fake_aws, shared_cache, shared_too, *, ask
):
    asked = question()
    one, two = process(shared_cache), process(shared_too)
    first, _ = ask(one, asked)
    assert ask(two, asked) == (first, "cache")
    due(one, asked, clock)
    ask(one, asked)
    landed(one)
    assert fake_aws.calls == 2, (
        "what lies in the shared cache is the one to be renewed, and no renewal"
    )
    kept_of(two, asked).renew_at = 0
    assert ask(two, asked) == (first, "cache")
    landed(two)
    assert fake_aws.calls == 2
    assert opened(two, asked) == opened(one, asked) != first


def test_a_session_in_the_shared_cache_is_adopted_while_it_is_good(
    process, clock, shared_cache, ask
):
    asked, other = question(), process(shared_cache)
    first, _ = ask(process(shared_cache), asked)
    assert 2_090_000 < shared_cache.client.pttl(shared_name(asked)) <= 2_100_000
    clock.shift(1000)
    assert ask(other, asked) == (first, "cache")
    kept = kept_of(other, asked)
    assert kept.good_until - 0.2 * 1400 <= kept.renew_at <= kept.good_until
    clock.shift(1099)
    assert ask(process(shared_cache), asked) == (first, "cache")
    clock.shift(2)
    assert ask(process(shared_cache), asked)[1] == "sts"
