"""PostgreSQL is gone, fails over, hangs or is full. docs/reliability.md has the table."""

import time
from contextlib import ExitStack

import psutil
import pytest

from dev.postgres import Postgres
from tests.faults.conftest import SmallDisk, named
from tests.faults.users import LASTS, OPERATOR, assert_served_meanwhile, during
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
