"""A real deployment, and the table of what its users saw; `make faults` runs these tests and
nothing else does.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from dev.postgres import Postgres
from tests.faults.users import ROWS
from tests.honesty.deployment import Deployment
from tests.honesty.front import Aws
from tests.support.databases import migrate
from tests.support.valkey import Valkey

_HEADER = """\
| injected | workers, session known | workers, session unknown \
| operators | customers' page | back after | lost |
|---|---|---|---|---|---|---|"""


def pytest_terminal_summary(terminalreporter):
    if ROWS:
        terminalreporter.write_line("\n".join(["", _HEADER, *map(str, ROWS), ""]))


class Inside:
    """The clock and the DNS inside a deployment's processes: see inside/sitecustomize.py."""

    def __init__(self, folder):
        self._folder = folder
        self.clock_ahead(0)
        self.environment = {
            "TEST_FAULTS": str(folder),
            "PYTHONPATH": str(Path(__file__).parent / "inside"),
        }

    def clock_ahead(self, seconds):
        self._write("ahead", seconds)

    @contextmanager
    def dead_dns(self, seconds):
        """DNS keeps silent for so many seconds, and then fails."""
        self._write("dns", seconds)
        try:
            yield
        finally:
            (self._folder / "dns").unlink()

    def _write(self, name, seconds):
        new = self._folder / f"{name}.new"
        new.write_text(str(seconds))
        new.replace(self._folder / name)


class SmallDisk:
    """A file system of its own, in memory, that can be filled. Only root can make one."""

    def __init__(self, megabytes):
        if os.geteuid() != 0:
            pytest.skip("only root can mount a small disk, so nobody saw a full one")
        self.path = Path(tempfile.mkdtemp(prefix="deputy-disk-", dir="/var/tmp"))
        self._options = f"size={megabytes}m,mode=755"

    def __enter__(self):
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", self._options, "tmpfs", self.path], check=True
        )
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "--lazy", self.path], check=True)
        self.path.rmdir()

    @contextmanager
    def full(self):
        ballast = self.path / "ballast"
        with ballast.open("wb") as file:
            for size in (1 << 20, 4096):
                while shutil.disk_usage(self.path).free >= size:
                    file.write(bytes(size))
                    file.flush()
        try:
            yield
        finally:
            ballast.unlink()


@pytest.fixture(scope="session")
def front() -> Iterator[Aws]:
    with Aws() as front:
        yield front


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres(durable=True) as server:
        migrate(server.url())
        yield server


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """The one of the service, which all these tests share."""
    server = Valkey()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def inside(tmp_path_factory) -> Inside:
    return Inside(tmp_path_factory.mktemp("inside"))


def named(aws):
    """AWS by a name, that DNS must know."""
    return {
        "AWS_ENDPOINT_URL": aws.environment["AWS_ENDPOINT_URL"].replace("127.0.0.1", "aws.test")
    }


@pytest.fixture(scope="session")
def service(front, postgres, valkey, inside, tmp_path_factory) -> Iterator[Deployment]:
    """gunicorn with two web processes and a background worker, on PostgreSQL, with a shared
    cache.
    """
    with ExitStack() as stack:
        deployment = Deployment(
            tmp_path_factory.mktemp("service"),
            postgres.url(),
            front,
            environment=inside.environment | named(front),
            CACHE_URL=valkey.url,
        )
        stack.enter_context(deployment)
        worker = deployment.start_background_worker()
        stack.callback(worker.wait)
        stack.callback(worker.kill)
        yield deployment
