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
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import redis
from celery.platforms import EX_FAILURE
from celery.worker import state

from app import services as composition
from app.background import celery_app
from app.background.celery_app import create_celery
from app.factory import create_app
from app.store.models import ConnectionStatus
from tests.background.test_workers import (
    ROOT,
    crowd,
    environment,
    group_is_gone,
    services,
    statuses,
)
from tests.conftest import with_settings
from tests.support.rows import ByHand
from tests.support.waiting import until

__all__ = ["crowd", "services"]  # fixtures

SETPRIV = shutil.which("setpriv")
CHECKOUT = ("app", "cloudformation", "migrations", "alembic.ini", "celery_app.py", "wsgi.py")
COMMANDS = {
    "flask": ["-m", "flask", "--app", "wsgi", "worker"],
    "celery": ["-m", "celery", "--app", "celery_app", "worker", "--beat", "--loglevel", "WARNING"],
}


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
def celery_url(valkey) -> str:
    """The file's Valkey, without the messages of the test before."""
    with contextlib.closing(redis.Redis.from_url(valkey.url)) as broker:
        broker.flushall()
    return valkey.url


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
def started(listening, aws, celery_url):
    """Starts a worker's process, the leader of its group."""

    @contextlib.contextmanager
    def start(arguments, *, cwd=ROOT, before=()):
        process = subprocess.Popen(
            [*before, sys.executable, *arguments],
            cwd=cwd,
            env=environment(listening, aws, DEPUTY_CELERY_URL=celery_url),
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
    return ByHand(services.config.database.database_url).rows(
        "SELECT kind, pid FROM background_workers"
    )


@pytest.mark.parametrize("kind", COMMANDS)
def test_an_unprivileged_worker_proves_in_a_read_only_checkout_and_ends_well_when_it_is_told_to(
    services, crowd, started, readonly, kind
):
    crowd.pending(3)
    files = sorted(readonly.rglob("*"))
    assert subprocess.call([*unprivileged(), "touch", readonly / "app" / "new"]) != 0
    with started(COMMANDS[kind], cwd=readonly, before=unprivileged()) as process:
        until(lambda: statuses(services) == {ConnectionStatus.VERIFIED: 3}, seconds=120)
        until(lambda: workers(services) == [(kind, process.pid)], seconds=60)
        process.terminate()
        assert process.wait(60) == 0
        assert workers(services) == []
        assert (b"Ctrl-C" in process.stdout.read()) == (kind == "flask")
    assert sorted(readonly.rglob("*")) == files


def test_a_beat_of_its_own_ticks_in_a_read_only_checkout_too(started, celery_url, readonly):
    files = sorted(readonly.rglob("*"))
    beat = ["-m", "celery", "--app", "celery_app", "beat"]
    with (
        started(beat, cwd=readonly, before=unprivileged()),
        contextlib.closing(redis.Redis.from_url(celery_url)) as broker,
    ):
        until(lambda: broker.llen("deputy") > 0, seconds=120)
    assert sorted(readonly.rglob("*")) == files


BROKEN = """
import sys
import app.background.celery_app, app.background.worker
def broken(*_, **__):
    raise RuntimeError("this part is broken")
app.background.worker._listen = broken
from celery.__main__ import main
sys.argv = ["celery", *{arguments}]
main()
"""


def test_a_celery_worker_ends_with_an_error_when_a_part_of_it_ends(started):
    script = BROKEN.format(arguments=COMMANDS["celery"][2:])
    with started(["-c", script]) as process:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 1, output
        assert b"worker.part_ended" in output
        assert b"this part is broken" in output
        assert group_is_gone(process)


def test_a_beat_begins_a_new_schedule_when_the_clock_is_set_back(monkeypatch):
    """Celery's would do nothing until the clock is where it was."""
    schedules = Mock(return_value=SimpleNamespace(tick=lambda: 0.0))
    monkeypatch.setattr(celery_app, "timestamp", Mock(side_effect=[100, 50, 51]))
    monkeypatch.setattr(celery_app, "Scheduler", schedules)
    celery_app._tick(None, SimpleNamespace(wait=Mock(side_effect=[False] * 2 + [True])))
    assert schedules.call_count == 2


def test_the_end_of_its_beat_ends_a_celery_worker_too(services, monkeypatch):
    def broken(_):
        raise RuntimeError("this part is broken")

    monkeypatch.setattr("app.background.celery_app.Scheduler.tick", broken)
    monkeypatch.setattr(state, "should_stop", None)
    config = with_settings(services.config, celery_url="redis://127.0.0.1:1")
    celery = create_celery(config, lambda: services)
    [beside] = celery.steps["worker"]
    [beat] = beside(SimpleNamespace(app=celery), beat=True)._beat
    beat.run()
    assert state.should_stop == EX_FAILURE


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
