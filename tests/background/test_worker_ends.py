"""A worker works in a checkout that it can't write to, ends when a part of it ends, and leaves
no process behind.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from app import services as composition
from app.factory import create_app
from app.store.models import ConnectionStatus
from tests.background.test_workers import ROOT, crowd, environment, services, statuses
from tests.conftest import with_settings
from tests.support.rows import ByHand
from tests.support.waiting import until

__all__ = ["crowd", "services"]  # fixtures

SETPRIV = shutil.which("setpriv")
CHECKOUT = ("app", "cloudformation", "migrations", "alembic.ini", "wsgi.py")


def unprivileged():
    """Before a command: it runs as a user who can't override permissions. Root stays root, as
    another user may not be able to enter the folder of this checkout or of Python, but has no
    capability left.
    """
    if os.geteuid() != 0:
        return []
    if SETPRIV is None:
        pytest.skip("there is no setpriv on this machine (util-linux)")
    return [SETPRIV, "--bounding-set=-all", "--inh-caps=-all"]


@pytest.fixture(scope="module")
def readonly():
    """A copy whose files and folders can't be written to; with what is compiled, or each process
    would do that again.
    """
    folder = Path(tempfile.mkdtemp())
    for name in CHECKOUT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy(source, folder / name)
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def listening(services, vendor):
    """The services of a deployment with a registration queue."""
    topic, queue = vendor.registration_topic_arn, vendor.registration_queue_url
    config = with_settings(
        services.config, registration_topic_arns=(topic,), registration_queue_url=queue
    )
    made = composition.Services(config)
    yield made
    made.db.engine.dispose()


@pytest.fixture
def started(listening, aws):
    """Starts a worker's process, the leader of its group."""

    @contextlib.contextmanager
    def start(arguments, *, cwd=ROOT, before=()):
        process = subprocess.Popen(
            [*before, sys.executable, *arguments],
            cwd=cwd,
            env=environment(listening, aws),
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()

    return start


def workers(services):
    return ByHand(services.config.database.database_url).rows("SELECT pid FROM background_workers")


def test_an_unprivileged_worker_proves_in_a_read_only_checkout_and_ends_well_when_it_is_told_to(
    services, crowd, started, readonly
):
    crowd.pending(3)
    files = sorted(readonly.rglob("*"))
    assert subprocess.call([*unprivileged(), "touch", readonly / "app" / "new"]) != 0
    with started(
        ["-m", "flask", "--app", "wsgi", "worker"], cwd=readonly, before=unprivileged()
    ) as process:
        until(lambda: statuses(services) == {ConnectionStatus.VERIFIED: 3}, seconds=120)
        until(lambda: workers(services) == [(process.pid,)], seconds=60)
        process.terminate()
        assert process.wait(60) == 0
        assert workers(services) == []
        assert b"Ctrl-C" in process.stdout.read()
    assert sorted(readonly.rglob("*")) == files


def test_the_background_worker_of_one_machine_fails_when_a_part_of_it_ends(listening, monkeypatch):
    def leave(*_):
        raise SystemExit

    monkeypatch.setattr("app.cli.deployment.signal.signal", lambda *_: None)
    application = create_app(listening.config)
    for part, end in (("_listen", lambda *_: None), ("_beat", leave)):
        with monkeypatch.context() as patch:
            patch.setattr(f"app.background.worker.{part}", end)
            done = application.test_cli_runner().invoke(args=["worker"])
        assert done.exit_code == 1
        assert "start it again" in done.output
    application.extensions["deputy"].db.engine.dispose()
