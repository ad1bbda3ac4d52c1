"""The database's server and the cache are killed with SIGKILL in the middle of a rotation, which
goes on where it was.

tests/honesty/test_rotation_kills.py kills Deputy's own processes.
"""

import contextlib
import shlex
from collections.abc import Callable, Iterator

import psutil
import pytest
from flask import Flask

from app.errors import StoreUnavailableError
from app.factory import create_app
from app.proofs import verification
from dev.postgres import Postgres
from tests.conftest import make_config
from tests.rotation.conftest import accepting
from tests.support.databases import migrate
from tests.support.valkey import Valkey


class Servers:
    """PostgreSQL, which keeps what it said to have committed, and a cache."""

    def __init__(self, postgres, valkey):
        self._postgres, self._valkey = postgres, valkey
        self._options = shlex.split((postgres._data / "postmaster.opts").read_text())[1:]

    def die(self):
        postmaster = psutil.Process(
            int((self._postgres._data / "postmaster.pid").read_text().split()[0])
        )
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=30)
        self._valkey.kill()

    def come_back(self):
        data, log = str(self._postgres._data), str(self._postgres._home / "log")
        self._postgres._run(
            "pg_ctl", "-D", data, "-w", "-l", log, "-o", shlex.join(self._options), "start"
        )
        self._valkey.start()


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Postgres, Valkey]]:
    valkey = Valkey()
    with Postgres(durable=True) as postgres:
        migrate(postgres.url())
        yield postgres, valkey
    valkey.kill()


@pytest.fixture
def servers(running) -> Servers:
    return Servers(*running)


@pytest.fixture(scope="module")
def deployed(running, aws, vendor) -> Iterator[Flask]:
    postgres, valkey = running
    app = create_app(make_config(postgres.url(), cache_url=valkey.url))
    yield app
    services = app.extensions["deputy"]
    services.rates._sts._shared.client.close()
    services.db.engine.dispose()


def and_then(inner, die):
    def both(*args):
        done = inner(*args)
        die()
        return done

    return both


CALLED, OPEN, COMMITTED = "the calls were made", "the transaction is open", "it is committed"


@pytest.fixture
def prove_and_die(servers, tenant, monkeypatch) -> Callable[[str], bool]:
    """The proof that is due, in which the servers die at a moment, and come back. Returns whether
    it is stored.
    """
    places = {
        CALLED: (verification.Verification, "_prove_patiently"),
        OPEN: (verification, "settle"),
        COMMITTED: (verification.Verification, "_store"),
    }
    queue = tenant.services.proof_queue

    def proven(moment):
        [claim] = queue.claim(10) + queue.claim_routine(10)
        stored = moment == COMMITTED
        with (
            monkeypatch.context() as patch,
            contextlib.nullcontext() if stored else pytest.raises(StoreUnavailableError),
        ):
            place, name = places[moment]
            patch.setattr(place, name, and_then(getattr(place, name), servers.die))
            queue.prove(claim)
        servers.come_back()
        with contextlib.suppress(StoreUnavailableError):  # the first connection is one of before
            queue.oldest_due()
        return stored

    return proven


def test_a_rotation_goes_on_where_it_was(tenant, prove_and_die):
    connection = tenant.connection()
    old, following = tenant.first_id, tenant.start()["next_external_id"]
    tenant.reprove(connection)
    for moment, pause in ((OPEN, 121), (COMMITTED, 600)):  # of the proof that switches
        tenant.clock.shift(pause)
        stored = prove_and_die(moment)
        assert tenant.state() == (("ready", 1, 0) if stored else ("open", 0, 1))
        assert tenant.id_of(connection) == (following if stored else old)
        assert ("connection.external_id_switched" in tenant.actions()) == stored
        tenant.issue(connection)
    tenant.after(minutes=5)
    assert tenant.state() == ("ready", 1, 0)
    tenant.complete()
    tenant.reprove(connection, accepting(tenant.trust, following))
    tenant.clock.shift(61)
    prove_and_die(CALLED)  # in the proof that retires
    assert tenant.state()[0] == "retiring"
    tenant.issue(connection)
    tenant.after(minutes=5)
    assert tenant.state()[0] == "retired"
    assert tenant.actions().count("connection.external_id_switched") == 1
    assert tenant.actions().count("external_id.retired") == 1
