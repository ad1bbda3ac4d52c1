"""The database hangs, is locked, loses its connections or restarts: requests do not wait for it,
and nothing is lost.

Requests that wait do so for 1.8 s, as SDKs give up after 2. Half of those that wait must be
answered by then; every one within `BOUND`, which leaves room for what two busy cores add, here and
in the service, and for no second wait. What requests take on this machine before the trouble comes
on top.
"""

import itertools
import shlex
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest
import sqlalchemy

from dev.postgres import Postgres
from tests.honesty.deployment import HANDS, Deployment
from tests.support.databases import migrate
from tests.support.waiting import until

SDK_PATIENCE = 2.0
BOUND = 2.5


@pytest.fixture(scope="module")
def own_server() -> Iterator[Postgres]:
    """One of its own, as nobody else's may be stopped."""
    with Postgres() as server:
        yield server


@pytest.fixture(scope="module")
def on_own_server(own_server, front, tmp_path_factory) -> Iterator[Deployment]:
    migrate(own_server.url())
    with Deployment(tmp_path_factory.mktemp("own-postgresql"), own_server.url(), front) as service:
        yield service


class Asking:
    """What memory has, what only AWS has, and what only the database has, in turn."""

    def __init__(self, service):
        self._known = service.place()
        self._unknown = [service.place() for _ in range(6)]
        self._seconds, self._lock = itertools.count(900), threading.Lock()

    def __call__(self, client, turn):
        kind, turn = turn % 4, turn // 4
        if kind < 2:
            return self._known.ask(client, kind)
        if kind == 2:
            with self._lock:
                seconds = next(self._seconds)
            return self._known.ask_uncached(client, seconds)
        return self._unknown[turn % len(self._unknown)].ask(client, 1)


def assert_nobody_is_hurt_by(service, trouble):
    """Make trouble, under load on every web process. `trouble(load)` returns when it is over."""
    with service.load(Asking(service), pause=0.1) as load:
        load.go_on(2 * HANDS)
        usual = [answer.seconds for answer in load.answers]
        began = time.monotonic()
        trouble(load)
        over = time.monotonic()
        until(lambda: len(served_after(over, load)) > 20, "recovery")
    assert load.lost == 0
    assert_honest(service, load.answers)
    assert_in_time(load.answers, usual)
    during = [answer for answer in load.answers if began < answer.ended and answer.began < over]
    assert 503 in {answer.status for answer in during}, "nobody met the trouble"


def served_after(over, load):
    return [answer for answer in load.answers[:] if answer.began > over and answer.status == 200]


def assert_honest(service, answers):
    for answer in answers:
        assert answer.status in {200, 503}, answer
        if answer.status == 503:
            assert answer.json["code"] in {"unavailable", "aws_unavailable"}, answer
            assert int(answer.headers["Retry-After"]) > 0
    service.engine.dispose()  # its connections may be from before
    recorded = service.issued()
    assert not {answer.issued for answer in answers if answer.status == 200} - set(recorded)
    assert len(set(recorded)) == len(recorded)


def assert_in_time(answers, usual):
    waited = [answer.seconds for answer in answers if answer.seconds > 1]
    assert max(waited, default=0) < BOUND + max(usual)
    assert statistics.median(waited or [0]) < SDK_PATIENCE + statistics.median(usual)


# --- PostgreSQL ---


def test_the_audit_table_is_locked_by_another_session(on_own_server):
    def lock(load):
        with on_own_server.engine.begin() as db:
            db.execute(sqlalchemy.text("LOCK TABLE audit_events"))
            load.go_on(HANDS)

    assert_nobody_is_hurt_by(on_own_server, lock)


def test_the_server_hangs(own_server, on_own_server):
    """The kernel still takes what is sent to it, so no timeout of TCP's ends that wait."""

    def hang(load):
        with stopped(own_server):
            load.go_on(HANDS)

    assert_nobody_is_hurt_by(on_own_server, hang)


@contextmanager
def stopped(server):
    postmaster = psutil.Process(int((server._data / "postmaster.pid").read_text().split()[0]))
    everybody = [postmaster, *postmaster.children(recursive=True)]
    try:
        for process in everybody:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in everybody:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def options_of(server):
    """Return those with which it was started."""
    return shlex.join(shlex.split((server._data / "postmaster.opts").read_text())[1:])


def stop(server, mode):
    options = options_of(server)
    server._run("pg_ctl", "-m", mode, "-w", "stop")
    return options


def start(server, options):
    server._run("pg_ctl", "-w", "-l", f"{server._home}/log", "-o", options, "start")


def test_the_server_restarts(own_server, on_own_server):
    """Answers go on at once, without a restart of ours."""

    def restart(load):
        options = stop(own_server, "fast")
        load.go_on(HANDS)
        start(own_server, options)

    assert_nobody_is_hurt_by(on_own_server, restart)


def test_two_processes_that_write_at_once_never_fail(service):
    """Issuing, onboarding and suspending at once, by both."""
    places = [service.place() for _ in range(3)]
    seconds = itertools.count(900)

    def issue(client, turn):
        if turn % 2:
            answer = places[0].ask(client, turn)
        else:
            answer = places[0].ask_uncached(client, next(seconds))
        assert answer.status == 200, answer
        return answer

    def onboard(client, turn):
        return client.ask("POST", "/v1/tenants", {"name": f"Tenant {turn}"}, key=service.admin.key)

    def suspend(client, turn):
        path = f"{places[1].tenant}/{'resume' if turn % 2 else 'suspend'}"
        return client.ask("POST", path, {"reason": "test"}, key=service.admin.key)

    kinds = (issue, issue, onboard, suspend, places[1].ask)
    with service.load(lambda client, turn: kinds[turn % 5](client, turn // 5)) as load:
        load.go_on(100)
    assert load.lost == 0
    assert set(load.statuses) == {200, 201, 409}
