"""PostgreSQL and SQLite are gone, fail over, hang or are full. docs/reliability.md has the
table.
"""

import sqlite3
import time
from contextlib import ExitStack, closing

import psutil
import pytest

from dev.postgres import Postgres
from tests.faults.conftest import SmallDisk, named
from tests.faults.users import KNOWN, LASTS, OPERATOR, assert_served_meanwhile, during
from tests.honesty.deployment import Deployment
from tests.honesty.test_database_away import options_of, start, stop, stopped
from tests.support.databases import migrate

pytestmark = pytest.mark.faults


def test_the_database_is_gone(service, postgres):
    def trouble():
        options = stop(postgres, "fast")
        time.sleep(LASTS)
        start(postgres, options)

    assert_served_meanwhile(service, "PostgreSQL is stopped and started again", trouble)


def test_the_database_fails_over(service, postgres):
    def trouble():
        for _ in range(3):
            start(postgres, stop(postgres, "immediate"))
            time.sleep(2)

    assert_served_meanwhile(
        service,
        "PostgreSQL crashes, recovers, and takes over at the same address, 3 times",
        trouble,
    )


def test_the_database_hangs(service, postgres):
    assert_served_meanwhile(service, "PostgreSQL hangs (SIGSTOP)", during(stopped(postgres)))


def test_the_databases_disk_is_full(front, inside, tmp_path):
    with ExitStack() as stack:
        disk = stack.enter_context(SmallDisk(400))
        server = stack.enter_context(Postgres(disk.path, durable=True))
        migrate(server.url())
        service = stack.enter_context(
            Deployment(tmp_path, server.url(), front, environment=inside.environment | named(front))
        )

        def trouble():
            options = options_of(server)
            with disk.full():
                time.sleep(LASTS)
            if not _accepts(
                server
            ):  # it stops by itself when it can't write its log; its supervisor starts it again
                (server._data / "postmaster.pid").unlink(missing_ok=True)
                start(server, options)

        row = assert_served_meanwhile(service, "the disk of PostgreSQL is full", trouble)
        assert row.seen[OPERATOR].statuses[503] > 0, "nobody met the full disk"


def _accepts(server):
    pid = server._data / "postmaster.pid"
    return pid.exists() and psutil.pid_exists(int(pid.read_text().split()[0]))


def test_the_disk_of_sqlite_is_full(front, inside):
    with ExitStack() as stack:
        disk = stack.enter_context(SmallDisk(40))
        url = f"sqlite:///{disk.path}/deputy.sqlite3"
        migrate(url)
        service = stack.enter_context(
            Deployment(disk.path, url, front, environment=inside.environment | named(front))
        )
        row = assert_served_meanwhile(
            service, "the disk of SQLite and of the log is full", during(disk.full())
        )
        assert row.seen[KNOWN].statuses[503] > 0, "nobody met the full disk"
        with closing(sqlite3.connect(f"{disk.path}/deputy.sqlite3")) as file:
            assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
