"""A whole rotation while four workers are given credentials without a pause: none of them is
refused.

Also when web processes and the background worker are killed with SIGKILL at random moments. The
service has no clock that tests can move, so what it waits for is moved to the past in its database.
"""

import contextlib
import http.client
import os
import random
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from app.store.database import Database
from tests.honesty.deployment import Client, Load
from tests.support.rotations import PassingMinutes
from tests.support.waiting import until

HANDS = 4
_THINKS = (
    0.1  # seconds between two requests of a worker, so that the rest has some of the processor
)
PATIENCE = 120  # seconds, on a machine that stalls


class Rotating:
    """One tenant with a connection for each worker, and the background worker that proves them."""

    def __init__(self, service):
        self.service = service
        first = service.place()
        self.places = [first, *(self._another(first, number) for number in range(1, HANDS))]
        self.path = f"{first.tenant}/external-id/rotation"
        self.database = Database(service.database_url)
        self.minutes_pass = PassingMinutes(self.database)
        self.worker = service.start_background_worker()

    def end(self):
        self.worker.kill()
        self.worker.wait()
        self.database.engine.dispose()

    def _another(self, first, number):
        role_arn = f"{first.role_arn}-{number}"
        tenant = self.service.admin.must("GET", first.tenant)
        self.service.aws.register(role_arn, tenant["external_id"])
        made = self.service.admin.must(
            "POST", f"{first.tenant}/connections", {"role_arn": role_arn}, expect=201
        )
        return replace(first, connection_id=made["id"], role_arn=role_arn)

    def ask(self, method, what="", body=None, *, at="", expect=(200,)):
        """Again, when the web process was killed that had the request; `expect` holds what a
        second one is answered.
        """
        while True:
            with (
                contextlib.suppress(OSError, http.client.HTTPException),
                contextlib.closing(Client(self.service.port, self.service.admin.key)) as client,
            ):
                answer = client.ask(method, at or f"{self.path}{what}", body)
                break
        assert answer.status in expect, answer
        return answer.json

    def accept(self, *external_ids):
        for place in self.places:
            self.service.aws.accept(place.role_arn, *external_ids)

    def await_state(self, state):
        def there():
            self.minutes_pass()
            return bool(self.ask("GET")["state"] == state)

        until(there, f"the rotation is {state}", seconds=PATIENCE)

    def whole(self, load):
        """From its start to the retirement of the old External ID."""
        self.ask("POST", body={"reason": "it is old"}, expect=(201, 409))
        found = self.ask("GET")
        load.go_on(20)
        self.accept(found["external_id"], found["next_external_id"])
        self.await_state("ready")
        load.go_on(20)
        self.ask("POST", "/complete", expect=(200, 409))
        load.go_on(20)
        self.accept(found["next_external_id"])
        self.await_state("retired")
        load.go_on(20)
        for place in self.places:
            assert self.ask("GET", at=place.connection)["external_id"] == found["next_external_id"]


@dataclass
class Killer:
    """Kills web processes and the background worker in turn, at random moments, and starts the
    latter again.
    """

    rotating: Rotating
    kills: int
    done: int = 0

    def run(self, ended):
        chance = random.Random()  # noqa: S311
        while self.done < self.kills and not ended.wait(chance.uniform(0.2, 2.0)):
            if self.done % 2:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(self.rotating.service.web_processes()), signal.SIGKILL)
            else:
                self.rotating.worker.kill()
                self.rotating.worker.wait()
                self.rotating.worker = self.rotating.service.start_background_worker()
            self.done += 1
        ended.wait()  # what a thread started ends with it (dev.stack.end_with_parent)


@pytest.fixture
def rotating(service) -> Iterator[Rotating]:
    made = Rotating(service)
    yield made
    made.end()


def asking(rotating):
    """Each duration is a session of its own, so AWS is asked all the time and would refuse a
    wrong External ID.
    """
    clients, places = [Client(rotating.service.port) for _ in range(HANDS)], rotating.places
    ask = lambda client, turn: places[turn % HANDS].ask_uncached(client, 900 + turn % 2700)  # noqa: E731
    return Load(clients, ask, pause=_THINKS)


@pytest.mark.parametrize(
    "kills", [2, *(pytest.param(kills, marks=pytest.mark.soak) for kills in (0, 10))]
)
def test_no_worker_is_refused_also_when_processes_are_killed_at_random_moments(rotating, kills):
    killer, ended = Killer(rotating, kills), threading.Event()
    with asking(rotating) as load:
        thread = threading.Thread(target=killer.run, args=(ended,))
        thread.start()
        try:
            rotating.whole(load)
            until(lambda: killer.done == kills, "they were killed as often", seconds=PATIENCE)
        finally:
            ended.set()
            thread.join()
        rotating.service.await_web_processes()
        load.go_on(20)
    assert set(load.statuses) == {200}
    assert kills or not load.lost
