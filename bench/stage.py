"""The servers that measurements share. Each starts when first needed, and all stop at the end."""

import contextlib
import dataclasses
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import psycopg

from bench import cpu, machine, other_commit, peer
from bench.goals import Findings
from bench.load import Question, Wrk
from bench.population import KeyedConnection, onboard
from bench.servers import HOME, Deputy, InstantSts, Process, Workers, bare_flask
from dev.postgres import Postgres

Server = TypeVar("Server", bound=contextlib.AbstractContextManager[Any])


@dataclass(frozen=True, slots=True)
class Scale:
    """The sizes of all measurements: of a full run, or of a quick one during development."""

    tenants: int = 100
    connections: int = 10
    rounds: int = 6
    seconds: int = 3
    revokes: int = 6
    kills: int = 4
    growth: tuple[int, ...] = (1_000, 100_000, 1_000_000)
    credentials: int = 20_000
    accounts: tuple[int, ...] = (200, 1_000)

    @classmethod
    def quick(cls) -> "Scale":
        return cls(
            tenants=10,
            rounds=2,
            seconds=1,
            revokes=1,
            kills=1,
            growth=(1_000, 10_000),
            credentials=2_000,
            accounts=(20,),
        )


@dataclass(frozen=True, slots=True)
class Populated:
    """A Deputy with proven connections, and PostgreSQL's first process if it uses one."""

    server: Deputy
    places: list[KeyedConnection]
    database: int | None

    def hot(self) -> list[Question]:
        return [Question("POST", place.credentials, place.key) for place in self.places]


class Stage:
    """The shared servers. Use it in a `with`, which stops all of them at its end."""

    def __init__(self, scale: Scale, against: str | None = None) -> None:
        """Create a stage. Row 1 is also measured at the commit `against`."""
        self.scale = scale
        self.against = against
        self.findings = Findings()
        self._began = time.monotonic()
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        HOME.mkdir(exist_ok=True)
        if machine.file_system(Path(tempfile.gettempdir())) == "tmpfs":
            # PostgreSQL's files belong on a disk, so that fsync has its real cost.
            tempfile.tempdir = "/var/tmp"  # noqa: S108
        self.folder = Path(
            self._open.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=HOME))
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def say(self, text: str) -> None:
        print(f"[{self.seconds:4} s] {text}", flush=True)

    @property
    def seconds(self) -> int:
        """The seconds since the beginning."""
        return round(time.monotonic() - self._began)

    def start(self, server: Server) -> Server:
        """Keep a started server until the end."""
        self._open.enter_context(server)
        return server

    @cached_property
    def wrk(self) -> Wrk:
        return Wrk()

    @cached_property
    def workers(self) -> Workers:
        return Workers.of_deputy()

    @cached_property
    def sts(self) -> InstantSts:
        return self.start(InstantSts())

    @cached_property
    def postgres(self) -> Postgres:
        self.say("PostgreSQL: starting, with fsync and synchronous_commit on")
        return self.start(Postgres(durable=True))

    @cached_property
    def postmaster(self) -> int:
        with psycopg.connect(self.postgres.url().replace("+psycopg", "")) as connection:
            return cpu.parent(connection.info.backend_pid)

    @cached_property
    def machine(self) -> dict[str, Any]:
        folder = Path(f"/proc/{self.postmaster}/cwd").resolve()
        return machine.facts(self.postgres.url(), folder, self.workers)

    @property
    def about(self) -> dict[str, Any]:
        """The machine and the settings of this run."""
        run = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": self.seconds}
        return {"machine": self.machine, "run": run | {"scale": dataclasses.asdict(self.scale)}}

    @cached_property
    def on_postgres(self) -> Populated:
        server = self.start(Deputy.on("deputy-postgresql", self.postgres.url(), self.sts))
        with contextlib.closing(server.admin()) as admin:  # an endpoint must not slow issuing
            endpoint = {"url": "https://93.184.215.14/", "types": ["*"]}
            admin.must("POST", "/v1/webhook-endpoints", endpoint, expect=201)
        return Populated(server, self._onboard(server, self.scale.tenants), self.postmaster)

    @cached_property
    def at_other_commit(self) -> Populated:
        """Deputy at the commit `against`, with its own database and as many connections."""
        self.say(f"Deputy at {self.against}: building")
        checkout = other_commit.build(self.against or "")
        with psycopg.connect(
            self.postgres.url().replace("+psycopg", ""), autocommit=True
        ) as server:
            server.execute("CREATE DATABASE other_commit")
        deputy = self.start(
            Deputy.on("deputy-other-commit", self.postgres.url("other_commit"), self.sts, checkout)
        )
        return Populated(deputy, self._onboard(deputy, self.scale.tenants), self.postmaster)

    @cached_property
    def bare(self) -> Process:
        """Flask alone, with the bytes of an answer of Deputy's."""
        place = self.on_postgres.places[0]
        with contextlib.closing(self.on_postgres.server.client(place.key)) as client:
            answer = client.ask("POST", place.credentials)
        return self.start(bare_flask(answer.body.decode(), self.workers))

    def peer(self, *, cold: bool) -> Process:
        self.say("metadataproxy: starting" + (", cold" if cold else ", hot"))
        return self.start(peer.start(self.sts, self.workers, cold=cold))

    def _onboard(self, server: Deputy, tenants: int) -> list[KeyedConnection]:
        count = tenants * self.scale.connections
        self.say(f"{server.name}: proving {count} connections of {tenants} tenants through the API")
        return onboard(server, self.sts, tenants, self.scale.connections)
