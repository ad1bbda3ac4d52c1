"""`make run` and `make demo` as a person runs them: real processes, real ports, real signals.

Those who only look share one run, the fixture `run`; how a run ends is in conftest.py and in
test_example.py.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
import requests

from app import VERSION
from dev.ports import free_port
from dev.publish import ask
from dev.run import serve
from dev.run_settings import Settings, StackError
from dev.stack import NOT_RUNNING, Stack
from tests.dev.make_run import (
    PATIENCE,
    PERSONS_AWS,
    ROOT,
    Run,
    assert_nothing_left,
    assert_the_story_works,
    call,
    processes,
)
from tests.support.cast import path_of
from tests.support.waiting import until

on_linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")


@pytest.fixture
def data(tmp_path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


# --- what runs ---


def test_make_run_says_what_a_person_needs(run):
    said = run.output
    assert re.search(rf"API +{run.url}/v1$", said, re.MULTILINE)
    assert re.search(rf"API docs +{run.url}/docs/$", said, re.MULTILINE)
    assert re.search(rf"console +{run.sandbox_url}/console/", said)
    assert re.search(rf"admin key +{run.admin_key}$", said, re.MULTILINE)
    assert "make demo" in said
    starting = re.findall(r"^starting +(.+) …$", said, re.MULTILINE)
    assert starting == [
        "database and admin key",
        "sandbox (a local AWS)",
        "CloudFormation templates",
        "background worker",
        "web",
        "receiver of webhooks",
        "a first customer's onboarding link",
    ]
    assert re.search(rf"onboarding +{run.url}/onboard/[A-Za-z0-9_-]{{43}}$", said, re.MULTILINE)


def test_each_process_logs_at_its_start_which_release_it_is(run):
    for name, kind, count in (("web", "web", 2), ("worker", "worker", 1)):
        lines = (run.data / f"{name}.log").read_text().splitlines()
        started = [json.loads(line) for line in lines if '"process.started"' in line]
        assert {(line["kind"], line["version"]) for line in started} == {(kind, VERSION)}
        assert len(started) % count == 0, "some tests restart them"
    for path in ("/healthz", "/readyz"):
        assert VERSION not in requests.get(f"{run.url}{path}", timeout=30).text, "both are public"


def test_the_docs_are_served(run):
    page = requests.get(f"{run.url}/docs/", timeout=30)
    assert page.status_code == 200
    for asset in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert not urlsplit(asset).netloc, "an asset from another host"
        assert requests.get(urljoin(page.url, asset), timeout=30).status_code == 200, asset
    assert requests.get(f"{run.url}/openapi.json", timeout=30).json()["servers"] == [
        {"url": run.url}
    ]
    assert requests.get(f"{run.sandbox_url}/console/", timeout=30).status_code == 200


def test_no_header_moves_the_service(run):
    for name in ("SCRIPT_NAME", "PATH_INFO"):
        answer = requests.get(f"{run.url}/healthz", headers={name: "/elsewhere"}, timeout=30)
        assert answer.status_code == 200, answer.text


@on_linux
def test_a_second_version_is_published_beside_it_and_the_local_aws_goes_on(run):
    file = run.data.parent / "sets" / "inventory.json"
    sandbox = sandbox_of(run)
    assert_the_story_works(run, run.admin_key)
    connection, *_ = call(run, run.admin_key, "GET", "/v1/connections")["items"]
    second = json.loads(file.read_text())
    second["statements"][0]["Action"].append("s3:GetBucketAcl")

    file.write_text(json.dumps(second))
    with Run("publish", run.data) as publish:
        assert publish.ended() == 1
    assert "Raise version to 2." in publish.output
    assert [one["version"] for one in sets_of(run) if one["name"] == "inventory"] == [1]

    file.write_text(json.dumps(second | {"version": 2}))
    with Run("publish", run.data) as publish:
        assert publish.ended() == 0, publish.output
    assert publish.output.endswith("Deputy runs with these permission sets now.\n")
    assert [one["version"] for one in sets_of(run) if one["name"] == "inventory"] == [2]
    again = call(run, run.admin_key, "GET", path_of(connection))
    assert (again["status"], again["permission_set_version"], again["update_available"]) == (
        "verified",
        1,
        True,
    )
    assert call(run, run.admin_key, "POST", path_of(connection, "/verify"))["status"] == "verified"
    assert sandbox_of(run) == sandbox


def sandbox_of(run):
    """Return the ids of the processes of the local AWS."""
    return [
        pid
        for pid in processes(run.data)
        if "sandbox" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    ]


def sets_of(run):
    return call(run, run.admin_key, "GET", "/v1/permission-sets")["items"]


@on_linux
def test_the_persons_aws_credentials_stay_theirs(run):
    children = {pid: env for pid, env in processes(run.data).items() if pid != run.process.pid}
    assert len(children) >= 4, "the sandbox, gunicorn and its two workers"
    for env in children.values():
        assert not set(PERSONS_AWS) & set(env)
        assert "AKIAREAL" not in json.dumps(dict(env))
        assert env["AWS_ENDPOINT_URL"] == run.sandbox_url


def test_only_its_owner_can_read_its_secrets(run):
    for name in ("run.json", "secret-key", "env"):
        assert (run.data / name).stat().st_mode & 0o077 == 0, name


def test_a_second_run_is_refused(run):
    assert refusal(DEPUTY_DATA_DIR=str(run.data)) == (
        f"Another run uses {run.data}; stop it, or set DEPUTY_DATA_DIR to another folder."
    )
    assert requests.get(f"{run.url}/readyz", timeout=30).status_code == 200


def test_the_demo_uses_the_service_that_runs_and_tells_everything(run):
    with Run("demo", run.data, **PERSONS_AWS) as demo:
        assert demo.ended() == 0, demo.output
    assert f"Using the service that runs at {run.url}." in demo.output
    assert "deputy-shared-acme: hello.txt" in demo.output
    assert demo.output.count("credentials:  refused: connection_not_verified") == 3
    assert "both attacks refused, and a loosened role stopped" in demo.output.splitlines()[-1]
    assert "Traceback" not in demo.output
    steps = [int(number) for number in re.findall(r"^(\d+)\. ", demo.output, re.MULTILINE)]
    assert steps == list(range(1, 11))


DROPPED = """
import sys, time
from dev import demo

class Finalized:
    def __del__(self):
        raise KeyboardInterrupt

sys.unraisablehook = demo._interrupt_again
Finalized()
time.sleep(30)
"""


def test_a_ctrl_c_that_python_drops_in_a_finalizer_interrupts_the_demo_all_the_same():
    done = subprocess.run(
        [sys.executable, "-c", DROPPED], cwd=ROOT, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGINT
    assert done.stderr.rstrip().endswith(b"KeyboardInterrupt")


def test_the_demo_alone_starts_its_own_service_and_leaves_nothing_after_ctrl_c(data, tmp_path):
    with Run("demo", data, TMPDIR=str(tmp_path)) as demo:
        until(
            lambda: "\n2. " in demo.output or demo.process.poll() is not None,
            "it tells the story",
            PATIENCE,
        )
        assert demo.interrupt() == 130, demo.output
    assert "No service runs; starting one for the demo" in demo.output
    assert "note  " not in demo.output, "its settings leave nothing to doubt"
    assert "Traceback" not in demo.output
    assert_nothing_left(demo)
    assert not data.exists()
    assert list(tmp_path.glob("deputy-demo-*")) == []


def test_make_run_stops_when_make_ended_while_it_was_starting(data):
    stack = Stack(Settings(free_port(), free_port(), data), {})
    assert serve(stack, threading.Event(), parent=os.getppid() + 1) == 0


@on_linux
def test_the_rest_stops_when_the_web_server_dies(data, capsys):
    """Other programs in the places of ours, which start at once; the web server leaves a process
    of its own behind.
    """
    with Stack(Settings(free_port(), free_port(), data), {"RUN_BELOW": str(data)}) as stack:
        data.mkdir()
        stack._spawn("worker", "-c", "import time; time.sleep(600)")
        stack._spawn("web", "-c", "import os, time; os.fork() or time.sleep(600)")
        until(lambda: stack.dead() == "web", "the web server has ended")
        assert len(processes(data)) == 2, "the worker, and what the web server left"
        assert serve(stack, threading.Event(), os.getppid()) == 1
    assert capsys.readouterr().err == f"The web process ended by itself; see {data / 'web.log'}\n"
    until(lambda: not processes(data), "what was killed has ended")


# --- what can't work is one clear line ---


def complaint(run):
    """The one line that is not about a step."""
    lines = [line for line in run.output.splitlines() if not line.startswith("starting ")]
    assert len(lines) == 1, run.output
    return lines[0]


def test_a_taken_port(data, taken_port):
    with Run("run", data, PORT=str(taken_port)) as run:
        assert run.ended() == 1
        assert complaint(run).startswith(f"Port {taken_port} is taken")
        assert "PORT=" in complaint(run)
    assert not data.exists()


def refusal(**env):
    with pytest.raises(StackError) as refused:
        Stack(Settings.from_environment(env), env).prepare()
    return str(refused.value)


def test_ports_that_are_none_or_taken_or_the_same(data, taken_port):
    for value in ("http", "0", "65536", "-1", "8000.5", " ", "٣٣٣"):
        for name in ("PORT", "SANDBOX_PORT"):
            assert refusal(**{name: value}).startswith(f"{name}={value} is not a port")
    taken = {"PORT": str(free_port()), "SANDBOX_PORT": str(taken_port)}
    assert "SANDBOX_PORT=" in refusal(**taken, DEPUTY_DATA_DIR=str(data))
    assert "both 8000" in refusal(SANDBOX_PORT="8000")


def test_a_data_folder_that_is_a_file_or_can_not_be_written(data):
    free = {"PORT": str(free_port()), "SANDBOX_PORT": str(free_port())}
    data.write_text("")
    assert refusal(DEPUTY_DATA_DIR=str(data), **free).startswith(f"DEPUTY_DATA_DIR={data} can't be")
    data.unlink()
    data.mkdir()
    data.chmod(0o500)
    if os.geteuid() != 0:  # root can write everywhere
        assert "can't be used: " in refusal(DEPUTY_DATA_DIR=str(data), **free)


def test_without_make_run_publishing_names_the_variable_of_its_folder(data):
    with pytest.raises(StackError, match=re.escape(NOT_RUNNING)):
        ask(Settings.of_running({"DEPUTY_DATA_DIR": str(data)}))
    assert "DEPUTY_DATA_DIR" in NOT_RUNNING
