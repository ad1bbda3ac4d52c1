"""`make run` and `make demo` as a person runs them: real processes, real ports, real signals."""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urljoin, urlsplit

import boto3
import pytest
import requests

from dev.stack import Settings, Stack, StackError, free_port

ROOT = Path(__file__).parents[2]
ACME = "444455556666"
PATIENCE = 240  # seconds until a start has failed; a start takes five, and more on a busy machine
STOPPED = 60  # seconds in which everything must have ended
LAST_LINE = "Ctrl-C stops everything."

on_linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")

# A person's own AWS credentials, which are nobody's business here.
PERSONS_AWS = {
    "AWS_ACCESS_KEY_ID": "AKIAREALREALREALREAL",
    "AWS_SECRET_ACCESS_KEY": "the-person's-own-secret",
    "AWS_SESSION_TOKEN": "the-person's-own-token",
    "AWS_PROFILE": "production",
    "AWS_ENDPOINT_URL_STS": "http://localhost:1/",
}


def new_key() -> str:
    return f"dpk_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"


class Run:
    """One `python -m dev.<module>`, with its own ports and data folder; ended by force if a test leaves it."""

    def __init__(self, module: str, data: Path, **env: str) -> None:
        self.data = data
        self.port, self.sandbox_port = int(env.get("PORT") or free_port()), free_port()
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(data.parent),  # where no AWS configuration is
            "PYTHONUNBUFFERED": "1",
            "PORT": str(self.port),
            "SANDBOX_PORT": str(self.sandbox_port),
            "DEPUTY_DATA_DIR": str(data),
            **env,
        }
        self._out = data.parent / f"{module}-{secrets.token_hex(4)}.out"
        self._module = module

    def __enter__(self) -> Self:
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"dev.{self._module}"],
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOPPED)
            self.process.kill()
            self.process.wait()

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def sandbox_url(self) -> str:
        return f"http://localhost:{self.sandbox_port}"

    @property
    def output(self) -> str:
        return self._out.read_text(errors="replace")

    def ready(self) -> Self:
        """Wait until it says that it is, and is."""
        until(lambda: LAST_LINE in self.output or self.process.poll() is not None, PATIENCE)
        assert self.process.poll() is None, self.output
        assert requests.get(f"{self.url}/readyz", timeout=30).json()["status"] == "ok"
        return self

    def ended(self) -> int:
        """Its exit code."""
        return self.process.wait(PATIENCE)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOPPED)


def until(truth: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not truth():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def processes(folder: Path) -> dict[int, Mapping[str, str]]:
    """Every process that has the folder in its command line or environment: its environment, by id."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            raw = (entry / "environ").read_bytes()
            if str(folder).encode() in raw + (entry / "cmdline").read_bytes():
                pairs = (line.partition("=") for line in raw.decode(errors="replace").split("\0") if line)
                found[int(entry.name)] = {name: value for name, _, value in pairs}
    return found


def assert_nothing_left(run: Run, seconds: float = 0) -> None:
    if Path("/proc").exists():
        assert until(lambda: not processes(run.data), seconds), processes(run.data).keys()
    for port in (run.port, run.sandbox_port):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


# --- the whole thing ---


def test_from_the_first_start_to_the_end_of_the_second(data: Path):
    key = new_key()
    with Run("run", data, DEPUTY_BOOTSTRAP_KEY=key, **PERSONS_AWS) as run:
        run.ready()
        assert_it_says_what_a_person_needs(run, key)
        assert_the_docs_are_served(run)
        assert_no_header_moves_it(run)
        assert_the_persons_aws_credentials_stay_theirs(run)
        assert_only_its_owner_can_read(data / "run.json", data / "secret-key")
        assert_the_story_works(run, key)
        assert_a_second_run_is_refused(run)
        assert_the_demo_uses_it(run)
        assert run.interrupt() == 0
        assert run.output.rstrip().endswith("stopping …")
        assert "Traceback" not in run.output
        assert_nothing_left(run)
        assert not (data / "run.json").exists()
    with Run("run", data) as again:
        again.ready()
        assert re.search(r"state +fresh: .*removed", again.output)
        (admin,) = re.findall(r"admin key +(dpk_\S+)", again.output)
        tenants = call(again, admin, "GET", "/v1/tenants")["items"]
        assert [tenant["name"] for tenant in tenants] == ["Acme"], "another one than the first run's"
        assert requests.get(f"{again.url}/v1/tenants", headers=bearer(key), timeout=30).status_code == 401
        assert_the_rest_stops_when_the_web_server_dies(again)


def assert_it_says_what_a_person_needs(run: Run, key: str) -> None:
    said = run.output
    assert re.search(rf"API +{run.url}/v1$", said, re.MULTILINE)
    assert re.search(rf"API docs +{run.url}/docs/$", said, re.MULTILINE)
    assert re.search(rf"console +{run.sandbox_url}/console/", said)
    assert re.search(rf"admin key +{key}$", said, re.MULTILINE)
    assert "make demo" in said
    starting = re.findall(r"^starting +(.+) …$", said, re.MULTILINE)
    assert starting == [
        "database and admin key",
        "sandbox (a local AWS)",
        "CloudFormation templates",
        "background worker",
        "web",
        "a first customer's onboarding link",
    ]
    assert re.search(rf"onboarding +{run.url}/onboard/[A-Za-z0-9_-]{{43}}$", said, re.MULTILINE)


def assert_the_docs_are_served(run: Run) -> None:
    page = requests.get(f"{run.url}/docs/", timeout=30)
    assert page.status_code == 200
    for asset in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert not urlsplit(asset).netloc, "an asset from another host"
        assert requests.get(urljoin(page.url, asset), timeout=30).status_code == 200, asset
    assert requests.get(f"{run.url}/openapi.json", timeout=30).json()["servers"] == [{"url": run.url}]
    assert requests.get(f"{run.sandbox_url}/console/", timeout=30).status_code == 200


def assert_no_header_moves_it(run: Run) -> None:
    for name in ("SCRIPT_NAME", "PATH_INFO"):
        answer = requests.get(f"{run.url}/healthz", headers={name: "/elsewhere"}, timeout=30)
        assert answer.status_code == 200, answer.text


def assert_the_persons_aws_credentials_stay_theirs(run: Run) -> None:
    if not Path("/proc").exists():
        return
    children = {pid: env for pid, env in processes(run.data).items() if pid != run.process.pid}
    assert len(children) >= 4, "the sandbox, gunicorn and its two workers"
    for env in children.values():
        assert not set(PERSONS_AWS) & set(env)
        assert "AKIAREAL" not in json.dumps(dict(env))
        assert env["AWS_ENDPOINT_URL"] == run.sandbox_url


def assert_only_its_owner_can_read(*paths: Path) -> None:
    for path in paths:
        assert path.stat().st_mode & 0o077 == 0, path


def assert_the_story_works(run: Run, key: str) -> None:
    tenant = call(run, key, "POST", "/v1/tenants", {"name": "Acme"}, expect=201)
    kit = call(run, key, "GET", f"/v1/tenants/{tenant['id']}/onboarding")
    create_the_stack(run, kit["launch_stack_url"])
    path = f"/v1/tenants/{tenant['id']}/connections"
    assert until(lambda: [c["status"] for c in call(run, key, "GET", path)["items"]] == ["verified"], PATIENCE)
    [connection] = call(run, key, "GET", path)["items"]
    issued = call(run, key, "POST", f"{path}/{connection['id']}/credentials")
    session = boto3.session.Session(issued["AccessKeyId"], issued["SecretAccessKey"], issued["SessionToken"])
    with closing(session.client("s3", endpoint_url=run.sandbox_url, region_name="us-east-1")) as s3:
        assert "deputy-shared-acme" in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]


def create_the_stack(run: Run, link: str) -> None:
    """What the console's page does for the person who opened the link."""
    parts = urlsplit(link)
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{run.sandbox_url}/console/cloudformation/home"
    wanted = dict(parse_qsl(parts.fragment.partition("?")[2]))
    launch = {
        "account": ACME,
        "region": "us-east-1",
        "template_url": wanted["templateURL"],
        "stack_name": wanted["stackName"],
        "parameters": {k.removeprefix("param_"): v for k, v in wanted.items() if k.startswith("param_")},
        "capabilities": ["CAPABILITY_NAMED_IAM"],
    }
    made = requests.post(f"{run.sandbox_url}/console/api/stacks", json=launch, timeout=30)
    assert made.status_code == 201, made.text


def assert_a_second_run_is_refused(run: Run) -> None:
    with Run("run", run.data) as second:
        assert second.ended() == 1
        assert complaint(second) == (f"Another run uses {run.data}; stop it, or set DEPUTY_DATA_DIR to another folder.")
    assert requests.get(f"{run.url}/readyz", timeout=30).status_code == 200


def assert_the_demo_uses_it(run: Run) -> None:
    with Run("demo", run.data, **PERSONS_AWS) as demo:
        assert demo.ended() == 0, demo.output
    assert f"Using the service that runs at {run.url}." in demo.output
    assert_the_demo_tells_everything(demo.output)


def assert_the_demo_tells_everything(said: str) -> None:
    assert "deputy-shared-acme: hello.txt" in said
    assert said.count("credentials:  refused: connection_not_verified") == 2
    assert "both attacks refused" in said.splitlines()[-1 if "Stopping" not in said else -3]
    assert "Traceback" not in said
    steps = [int(number) for number in re.findall(r"^(\d+)\. ", said, re.MULTILINE)]
    assert steps == list(range(1, 10))


def assert_the_rest_stops_when_the_web_server_dies(run: Run) -> None:
    if not Path("/proc").exists():
        assert run.interrupt() == 0
        return
    os.kill(pid_of("gunicorn", run), signal.SIGKILL)
    assert run.ended() == 1
    assert run.output.rstrip().endswith(f"The web process ended by itself; see {run.data / 'web.log'}")
    assert_nothing_left(run)


def test_the_demo_alone_starts_its_own_service_and_leaves_nothing(data: Path, tmp_path: Path):
    with Run("demo", data, TMPDIR=str(tmp_path)) as demo:
        assert demo.ended() == 0, demo.output
    assert "No service runs; starting one for the demo" in demo.output
    assert_the_demo_tells_everything(demo.output)
    assert_nothing_left(demo)
    assert not data.exists()
    assert list(tmp_path.glob("deputy-demo-*")) == []


@on_linux
def test_killed_outright_it_leaves_nothing_running_either(data: Path):
    with Run("run", data) as run:
        run.ready()
        run.process.kill()
        run.process.wait()
        assert_nothing_left(run, STOPPED)


def pid_of(word: str, run: Run) -> int:
    """The process of ours with this word in its command line: the oldest, which is the parent of the others."""
    return min(pid for pid in processes(run.data) if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes())


# --- what can't work is one clear line ---


def complaint(run: Run) -> str:
    """The one line that is not about a step."""
    lines = [line for line in run.output.splitlines() if not line.startswith("starting ")]
    assert len(lines) == 1, run.output
    return lines[0]


@pytest.mark.parametrize("name", ["PORT", "SANDBOX_PORT"])
def test_a_taken_port(data: Path, taken_port: int, name: str):
    with Run("run", data, **{name: str(taken_port)}) as run:
        assert run.ended() == 1
        said = complaint(run)
        assert said.startswith(f"Port {taken_port} is taken")
        assert f"{name}=" in said
    assert not data.exists()


def test_a_port_that_is_none(data: Path):
    with Run("run", data, SANDBOX_PORT="http") as run:
        assert run.ended() == 1
        assert complaint(run) == "SANDBOX_PORT=http is not a port; choose one from 1 to 65535."


@pytest.mark.parametrize("name", ["PORT", "SANDBOX_PORT"])
@pytest.mark.parametrize("value", ["0", "65536", "-1", "8000.5", " ", "٣٣٣"])
def test_every_port_that_is_none(name: str, value: str):
    with pytest.raises(StackError, match=f"^{name}={value} is not a port"):
        Settings.from_environment({name: value})


def test_the_same_port_twice(data: Path):
    port = str(free_port())
    with Run("run", data, PORT=port, SANDBOX_PORT=port) as run:
        assert run.ended() == 1
        assert port in complaint(run)


@pytest.mark.parametrize(
    "key",
    [
        "hunter2",
        f"dpk_{'0' * 16}_{'A' * 43}",
    ],
    ids=["a password", "all the same"],
)
def test_a_weak_key(data: Path, key: str):
    with Run("run", data, DEPUTY_BOOTSTRAP_KEY=key) as run:
        assert run.ended() == 1
        said = complaint(run)
        assert said.startswith("DEPUTY_BOOTSTRAP_KEY: ")
        assert key not in said
        assert_nothing_left(run)


def test_a_bad_setting(data: Path):
    with Run("run", data, DEPUTY_MAX_SESSION_SECONDS="1") as run:
        assert run.ended() == 1
        assert "DEPUTY_MAX_SESSION_SECONDS: must be between" in run.output
        assert "Traceback" not in run.output


def test_a_data_folder_that_is_a_file(data: Path):
    data.write_text("")
    with Run("run", data) as run:
        assert run.ended() == 1
        assert complaint(run).startswith(f"DEPUTY_DATA_DIR={data} can't be used: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_data_folder_that_is_read_only(data: Path):
    data.mkdir()
    data.chmod(0o500)
    with Run("run", data) as run:
        assert run.ended() == 1
        assert complaint(run).startswith(f"DEPUTY_DATA_DIR={data} can't be used: ")


def call(run: Run, key: str, method: str, path: str, body: Any = None, *, expect: int = 200) -> Any:
    answer = requests.request(method, f"{run.url}{path}", json=body, headers=bearer(key), timeout=30)
    assert answer.status_code == expect, answer.text
    return answer.json()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_what_the_service_doubts_is_told_to_the_person_once(tmp_path, capsys):
    """Each process says it in its own log, which nobody reads who just typed make run."""
    env = {
        "PATH": os.environ["PATH"],
        "PORT": str(free_port()),
        "SANDBOX_PORT": str(free_port()),
        "DEPUTY_DATA_DIR": str(tmp_path / "data"),
        "DEPUTY_ISSUE_RAET": "1",
    }
    with Stack(Settings.from_environment(env), env) as stack:
        stack.prepare()
    assert capsys.readouterr().out == (
        "note      DEPUTY_ISSUE_RAET is no setting, so nothing reads it. Is DEPUTY_ISSUE_RATE meant?\n"
    )
