"""The service as it is deployed: `python -m gunicorn` with gunicorn.conf.py, and clients that
know their web process.
"""

import contextlib
import copy
import http.client
import itertools
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psutil
import sqlalchemy

from app.identity.api_keys import ApiKeys
from app.identity.key_text import generate_key
from app.identity.key_uses import KeyUses
from app.limits.limits import KEYS
from app.store.database import Database
from bench.instant_sts import ACCOUNT, BROKER_ARN
from dev.ports import free_port
from dev.stack import ROOT
from tests.conftest import OPERATOR
from tests.honesty.client import PATIENCE, Answer, Client
from tests.support import logged_secrets
from tests.support.metrics import samples
from tests.support.processes import spawn
from tests.support.waiting import until

HANDS = 8
_accounts = itertools.count(444455556666)


@dataclass(frozen=True)
class ProvenConnection:
    """A connection that was proven through the API, and a worker's key for it."""

    tenant_id: str
    connection_id: str
    role_arn: str
    key_id: str
    key: str

    @property
    def tenant(self):
        return f"/v1/tenants/{self.tenant_id}"

    @property
    def connection(self):
        return f"{self.tenant}/connections/{self.connection_id}"

    @property
    def credentials(self):
        return f"{self.connection}/credentials"

    @property
    def container_credentials(self):
        return f"{self.connection}/container-credentials"

    def ask(self, client, turn=0):
        """Credentials in one of the two shapes; both give the same session."""
        if turn % 2:
            return client.ask("GET", self.container_credentials, key=self.key)
        return client.ask("POST", self.credentials, key=self.key)

    def ask_uncached(self, client, seconds):
        """A question of its own for each duration, so that nothing is cached for it yet."""
        return client.ask("POST", self.credentials, {"duration_seconds": seconds}, key=self.key)


class Deployment:
    """Use it in a `with`, on a migrated database. `flags` are gunicorn's; `settings` DEPUTY_
    variables without the prefix.

    `root`: the checkout whose code it runs. `admin_key`: one that is installed already.
    `environment` wins over what is made of them.
    """

    def __init__(
        self,
        folder,
        database_url,
        aws,
        *,
        workers=2,
        flags=(),
        root=ROOT,
        admin_key=None,
        environment=None,
        **settings,
    ):
        self.database_url = database_url
        self.root = root
        self.aws = aws
        self.port = free_port()
        self.metrics_port = free_port()
        self.log = folder / "service.log"
        self._workers = workers
        self._flags = flags
        self._installed = admin_key is not None
        self._admin_key = admin_key or generate_key()
        deputy = {
            "DATABASE_URL": database_url,
            "SECRET_KEYS": secrets.token_urlsafe(48),
            "BROKER_PRINCIPAL_ARN": BROKER_ARN,
            "VENDOR_NAME": "Example Vendor",
            "TEMPLATE_BUCKET": f"deputy-templates-{ACCOUNT}",
            "ISSUE_RATE": "100000",
            "TENANT_MISS_RATE": "10000",
            "CONNECTION_RATE": "6000",
            "METRICS_BIND": f"127.0.0.1:{self.metrics_port}",
            **settings,
        }
        self._env = {
            "PATH": os.environ["PATH"],
            "PYTHONWARNINGS": "error",  # gevent warns when it patches too late
            **aws.environment,
            **{f"DEPUTY_{name}": value for name, value in deputy.items()},
            **(environment or {}),
        }

    def twin(self):
        """Another machine of the same deployment, with one web process: the same database and
        keys.
        """
        other = copy.copy(self)
        other._workers = 1
        other.port, other.metrics_port = free_port(), free_port()
        other.log = self.log.with_suffix(f".{other.port}.log")
        other._env = self._env | {"DEPUTY_METRICS_BIND": f"127.0.0.1:{other.metrics_port}"}
        return other

    def __enter__(self):
        if not self._installed:
            database = Database(self.database_url)
            ApiKeys(database, KeyUses(database), KEYS, ()).install_key(
                OPERATOR, self._admin_key, name="admin"
            )
            database.engine.dispose()
        self.engine = sqlalchemy.create_engine(self.database_url)  # past the service
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        self.admin = Client(self.port, self._admin_key)
        return self

    def __exit__(self, *_):
        self.kill()
        self.engine.dispose()
        if hasattr(self, "admin"):
            self.admin.close()

    def start(self):
        """gunicorn; also after it ended. Returns when all web processes serve requests."""
        logged_secrets.watch(self.log)
        words = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}"]
        words += ["--workers", str(self._workers), *self._flags, "wsgi:app"]
        self._process = spawn(words, self.log, mode="wb", cwd=self.root, env=self._env)
        self.await_web_processes()

    def kill(self):
        """gunicorn's first process and all web processes, with SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def signal(self, number):
        """To gunicorn's first process."""
        self._process.send_signal(number)

    def await_end(self, seconds=PATIENCE * 2):
        """The exit status of gunicorn's first process."""
        return self._process.wait(seconds)

    def start_background_worker(self, command=("flask", "--app", "wsgi", "worker"), **environment):
        """Beside the service; the test that starts it ends it. `environment` as of the whole
        deployment.
        """
        log = self.log.with_suffix(".worker.log")
        logged_secrets.watch(log)
        env = self._env | {"DEPUTY_METRICS_BIND": f"127.0.0.1:{free_port()}"} | environment
        return spawn([sys.executable, "-m", *command], log, cwd=self.root, env=env)

    def command(self, *words, **environment):
        """`flask --app wsgi WORDS`, with the service's settings."""
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "wsgi", *words],
            cwd=self.root,
            env=self._env | {"DEPUTY_OPERATOR": "tests"} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def said(self):
        return self.log.read_text(errors="replace")

    def logged(self, event, since=0):
        """How many log lines of this event there are, from this offset of the log on."""
        return self.said[since:].count(f'"event": "{event}"')

    def metrics(self):
        """Each sample of Deputy's by its name and labels, as Prometheus reads it."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=PATIENCE
        ) as answer:
            return samples(answer.read().decode())

    def web_processes(self):
        return sorted(child.pid for child in psutil.Process(self._process.pid).children())

    def await_web_processes(self):
        """Return when all web processes serve requests."""

        def serving():
            assert self._process.poll() is None, self.said
            booted = set(re.findall(r"Booting worker with pid: (\d+)", self.said))
            return len(booted.intersection(map(str, self.web_processes()))) == self._workers

        until(serving, "the web processes start")
        with self.clients(1):  # one on each
            return self.web_processes()

    @contextmanager
    def clients(self, each):
        """So many clients on each web process, by its id."""
        found = {}
        spare = []
        with contextlib.ExitStack() as closing:

            def enough():
                with contextlib.suppress(OSError, http.client.HTTPException):
                    self._more(closing, found, spare, each)
                return len(found) == self._workers and all(
                    len(mine) == each for mine in found.values()
                )

            until(enough, "every web process takes connections")
            for client in spare:
                client.close()
            yield found

    @contextmanager
    def load(self, ask, pause=0.0, each=HANDS // 2):
        """Requests from so many clients on each web process."""
        with (
            self.clients(each) as by_process,
            Load([*itertools.chain(*by_process.values())], ask, pause) as load,
        ):
            yield load

    def _more(self, closing, found, spare, each):
        """Connect several at once, so that more than one web process wakes, and see who took
        them, which takes long.
        """
        new = [
            closing.enter_context(contextlib.closing(Client(self.port)))
            for _ in range(max(2 * self._workers, each))
        ]
        for client in new:
            client.connect()
        for client in new:
            client.must("GET", "/healthz")
        taken = self._taken()
        for client in new:
            mine = found.setdefault(taken[client.local_port], [])
            (mine if len(mine) < each else spare).append(client)

    def _taken(self):
        """Which web process has the connection from which port."""
        return {
            connection.raddr.port: pid
            for pid in self.web_processes()
            for connection in psutil.Process(pid).net_connections("tcp4")
            if connection.raddr and connection.laddr.port == self.port
        }

    def place(self):
        """A tenant, its role, the connection that was proven, and a key that may only issue."""
        self.admin.close()  # it connects again: the service has closed what was idle, or in the way
        tenant = self.admin.must("POST", "/v1/tenants", {"name": "Acme"}, expect=201)
        role_arn = f"arn:aws:iam::{next(_accounts):012d}:role/deputy-{secrets.token_hex(4)}"
        self.aws.register(role_arn, tenant["external_id"])
        path = f"/v1/tenants/{tenant['id']}/connections"
        connection = self.admin.must("POST", path, {"role_arn": role_arn}, expect=201)
        assert connection["status"] == "verified", connection
        wanted = {"name": "a worker", "scopes": ["credentials:issue"]}
        key = self.admin.must("POST", "/v1/api-keys", wanted, expect=201)
        return ProvenConnection(tenant["id"], connection["id"], role_arn, key["id"], key["key"])

    def sql(self, statement, **values):
        """Past the service, in a transaction of its own."""
        with self.engine.begin() as db:
            done = db.execute(sqlalchemy.text(statement), values)
            return list(done.all()) if done.returns_rows else []

    def events(self):
        """The audit log, in order."""
        columns = "id, action, request_id, tenant_id, details"
        return [Event(*row) for row in self.sql(f"SELECT {columns} FROM audit_events ORDER BY id")]  # noqa: S608

    def issued(self):
        """Every issuance in the audit log, as answers have it."""
        return [event.issued for event in self.events() if event.issued]


@dataclass
class Event:
    """An audit event."""

    id: Any
    action: str
    request_id: str
    tenant_id: Any
    details: Any

    @property
    def issued(self):
        if self.action != "credentials.issued":
            return None
        return self.request_id, self.details["access_key_id"]

    def is_of(self, place):
        """Of this tenant, or of its worker's key, which is bound to no tenant."""
        return (
            self.tenant_id == UUID(place.tenant_id)
            or self.details.get("api_key_id") == place.key_id
        )


@dataclass
class Load:
    """Requests from several threads for as long as the `with` lasts. `ask(client, turn)` makes one.

    `pause`: seconds between two of a client's, for a test that waits for time to pass and not for
    the service.
    """

    clients: Sequence[Client]
    ask: Callable[[Client, int], Answer]
    pause: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    lost: int = 0  # their connection was cut: the client knows nothing of such a request
    _errors: list[BaseException] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self):
        turns = itertools.count()
        self._threads = [
            threading.Thread(target=self._keep_asking, args=(client, turns))
            for client in self.clients
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for client in self.clients:
            client.close()
        if self._errors:
            raise self._errors[0]

    def go_on(self, count):
        """Return when so many more requests, that begin from now on, were answered."""
        now = time.monotonic()
        until(
            lambda: self._errors or sum(one.began > now for one in self.answers[:]) >= count,
            f"{count} more answers",
        )

    @property
    def statuses(self):
        return Counter(answer.status for answer in self.answers)

    def _keep_asking(self, client, turns):
        try:
            while not self._ended.is_set():
                try:
                    self.answers.append(self.ask(client, next(turns)))
                    self._ended.wait(self.pause)
                except (OSError, http.client.HTTPException):
                    self.lost += 1
                    time.sleep(0.01)
        except BaseException as error:
            self._errors.append(error)
            raise
