"""Row 6: revocations are effective at once, and every answer is recorded, under load.

The web processes are real. A request that begins after the answer to a revocation must not be
served, because the change is committed by then. A revocation revokes the key, suspends the tenant,
or deletes the connection. When every web process is killed with SIGKILL under load, each answer
that a client received must be in the audit log. It is matched by request id and access key id, not
only counted. A SIGKILL does not test a power cut, for which commits wait for fsync.
"""

import contextlib
import http.client
import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from bench.client import BenchError, Client
from bench.goals import HONESTY
from bench.population import KeyedConnection, connect, issuing_key, role_arn
from bench.servers import Deputy, InstantSts
from bench.stage import Stage

_HANDS = 16
_BEFORE, _AFTER = 0.4, 0.4  # seconds of load around a revocation
_A_WHILE = 100  # answers between two kills, because new web processes have to start first
_PATIENCE = 30


@dataclass(frozen=True, slots=True)
class Served:
    """One answer: the start of its request, and the contents of a 200."""

    began: float
    status: int
    request_id: str
    access_key_id: str | None


@dataclass(slots=True)
class Load:
    """Requests from several connections during a `with`. `served` has the answers."""

    port: int
    places: Sequence[KeyedConnection]
    served: list[Served] = field(default_factory=list)
    lost: int = 0  # connections that were cut: the client has no answer
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask, args=(hand,)) for hand in range(_HANDS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def go_on(self) -> None:
        """Return when another hundred requests were answered."""
        enough, deadline = len(self.served) + _A_WHILE, time.monotonic() + _PATIENCE
        while len(self.served) < enough:
            if time.monotonic() > deadline:
                raise BenchError(
                    f"No more answers come; {len(self.served)} came, {self.lost} were cut."
                )
            time.sleep(0.05)

    def _ask(self, hand: int) -> None:
        client = Client(self.port, timeout=10)
        for place in itertools.cycle((*self.places[hand:], *self.places[:hand])):
            if self._ended.is_set():
                break
            began = time.perf_counter()
            try:
                answer = client.ask("POST", place.credentials, key=place.key)
            except (OSError, http.client.HTTPException):
                self.lost += 1
                time.sleep(0.01)
                continue
            key = answer.json()["AccessKeyId"] if answer.status == 200 else None
            self.served.append(Served(began, answer.status, answer.headers["X-Request-Id"], key))
        client.close()


@dataclass(frozen=True, slots=True)
class Kills:
    """The result of the kills.

    `cut` counts requests whose web process was killed before the client got an answer.
    """

    killed: int
    cut: int
    answered: int
    unrecorded: int


@dataclass(frozen=True, slots=True)
class Late:
    """The requests that began after one kind of revocation, and how many of them were served."""

    asked: int
    served: int
    statuses: Counter[int]


def measure(stage: Stage) -> None:
    late, asked, server = 0, 0, stage.on_postgres.server
    facts: dict[str, Any] = {}
    stage.say(f"honesty: revoking under load, {stage.scale.revokes} times each way")
    for kind, requests in revokes(server, stage.sts, stage.scale.revokes).items():
        facts[f"began after {kind}"] = (
            f"{requests.served} served of {requests.asked} {dict(requests.statuses)}"
        )
        late, asked = late + requests.served, asked + requests.asked
    stage.say(f"honesty: killing every web process under load, {stage.scale.kills} times")
    shot = kills(server, stage.on_postgres.places[:64], stage.scale.kills)
    facts["without an audit row"] = (
        f"{shot.unrecorded} of {shot.answered} answers, {shot.killed} web processes killed,"
        f" {shot.cut} requests cut"
    )
    values = {"late": late, "began_after": asked}
    values |= {"unrecorded": shot.unrecorded, "answered": shot.answered}
    stage.findings.facts["honesty"] = facts
    text = f"{late} of {asked:,} · {shot.unrecorded} of {shot.answered:,}"
    stage.findings.results.append(HONESTY.judge(text, late, shot.unrecorded, values=values))


def revokes(deputy: Deputy, sts: InstantSts, times: int) -> dict[str, Late]:
    """Run each kind of revocation under load, `times` times."""
    return {kind: _revoked(deputy, sts, way, times) for kind, way in _WAYS.items()}


def _revoked(deputy: Deputy, sts: InstantSts, way: "Way", times: int) -> Late:
    statuses: Counter[int] = Counter()
    with contextlib.closing(deputy.admin()) as admin:
        for _ in range(times):
            place, key_id = _fresh(admin, sts)
            load = Load(deputy.port, [place])
            with load.running():
                time.sleep(_BEFORE)
                way.take(admin, place, key_id)
                committed = time.perf_counter()
                time.sleep(_AFTER)
            earlier: Counter[int] = Counter()
            for answer in load.served:
                counts = earlier if answer.began < committed else statuses
                counts[answer.status] += 1
            if not earlier[200]:
                raise BenchError(f"Nothing was served before a revoke: {load.served[:3]}")
    # A key that is refused more than 200 times a second gets 429 (app/limits/refusal_events.py).
    if odd := set(statuses) - {200, way.refusal, 429}:
        raise BenchError(
            f"After a revoke the answer is {way.refusal}, and here also {odd}: {statuses}"
        )
    return Late(statuses.total(), statuses[200], statuses)


@dataclass(frozen=True, slots=True)
class Way:
    """A kind of revocation, and the status that a later request gets."""

    take: Callable[[Client, KeyedConnection, str], Any]
    refusal: int


_WAYS = {
    "a key's revoke": Way(
        lambda admin, _, key_id: admin.must("DELETE", f"/v1/api-keys/{key_id}", expect=204), 401
    ),
    "a tenant's suspension": Way(
        lambda admin, place, _: admin.must(
            "POST", f"/v1/tenants/{place.tenant_id}/suspend", {"reason": "bench"}
        ),
        409,
    ),
    "a connection's deletion": Way(
        lambda admin, place, _: admin.must("DELETE", place.connection, expect=204), 404
    ),
}


def _fresh(admin: Client, sts: InstantSts) -> tuple[KeyedConnection, str]:
    """Create a tenant, a proven connection and a key, and return them with the key's id."""
    tenant = admin.must("POST", "/v1/tenants", {"name": "To be revoked"}, expect=201)
    arn = role_arn(tenant["id"], 0)
    sts.register({arn: tenant["external_id"]})
    key_id, key = issuing_key(admin, "to be revoked")
    return connect(admin, tenant["id"], arn, key), key_id


def kills(deputy: Deputy, places: Sequence[KeyedConnection], times: int) -> Kills:
    """Kill all web processes at once under load, `times` times.

    Before each kill the new processes have answered for a while.
    """
    killed = 0
    load = Load(deputy.port, places)
    with load.running():
        for _ in range(times):
            load.go_on()
            for pid in deputy.web_processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
        load.go_on()
    answered = {
        (answer.request_id, answer.access_key_id) for answer in load.served if answer.status == 200
    }
    missing = answered - recorded(deputy.database_url)
    return Kills(killed, load.lost, len(answered), len(missing))


def recorded(database_url: str) -> set[tuple[str, str | None]]:
    """Return (request id, access key id) of every issuance in the database's audit log."""
    with psycopg.connect(database_url.replace("+psycopg", "")) as server:
        return set(server.execute(_ISSUED).fetchall())


_ISSUED = (
    "SELECT request_id, details->>'access_key_id' FROM audit_events"
    " WHERE action = 'credentials.issued'"
)
