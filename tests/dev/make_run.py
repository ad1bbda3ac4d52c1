"""`make run` and `make demo` as a person starts them: real processes, real ports, real signals."""

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import boto3
import requests

from dev.ports import free_port
from tests.support import logged_secrets
from tests.support.processes import spawn
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
ACME = "444455556666"
PATIENCE = 240  # seconds until a start has failed; a start takes five, and more on a busy machine
STOPPED = 60  # seconds in which everything must have ended
LAST_LINE = "Ctrl-C stops everything."

# A person's own AWS credentials, which are nobody's business here.
PERSONS_AWS = {
    "AWS_ACCESS_KEY_ID": "AKIAREALREALREALREAL",
    "AWS_SECRET_ACCESS_KEY": "the-person's-own-secret",
    "AWS_SESSION_TOKEN": "the-person's-own-token",
    "AWS_PROFILE": "production",
    "AWS_ENDPOINT_URL_STS": "http://localhost:1/",
}

# Settings of a person's own: all that broker.yaml has a parameter for, and one with a mistake in
# its name.
VENDOR = "555566667777"
OTHER = "123456789012"
TWINS = {
    "DEPUTY_ROLE_PREFIX": "Acme-",
    "DEPUTY_IMPORTED_ROLE_NAMES": "CrossAccount,Reader",
    "DEPUTY_VENDOR_ACCOUNT_IDS": f"{OTHER},210987654321",
    "DEPUTY_BROKER_PRINCIPAL_ARN": f"arn:aws:iam::{VENDOR}:role/AcmeBroker",
    "DEPUTY_TEMPLATE_BUCKET": "acme.templates",
}
DOUBTFUL = "DEPUTY_ISSUE_RAET"
ODD = 'it\'s $HOME `id` "quoted" \\ and more'


def database_url_of(data):
    """Read the database's URL of the Deputy that runs with this data folder."""
    return re.search(r"DEPUTY_DATABASE_URL='(.*)'", (data / "env").read_text())[1]


def new_key():
    return f"dpk_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"


class Run:
    """One `python -m dev.<module>`, with its own ports and data folder; ended by force if a test
    leaves it.
    """

    def __init__(self, module, data, **env):
        self.data = data
        self.port, self.sandbox_port = int(env.get("PORT") or free_port()), free_port()
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(data.parent),  # where no AWS configuration is
            "PYTHONUNBUFFERED": "1",
            "RUN_BELOW": str(data),  # by which `processes` knows all that it starts
            # gunicorn names its processes where setproctitle is installed, over their environment
            "SPT_NOENV": "1",
            "PORT": str(self.port),
            "SANDBOX_PORT": str(self.sandbox_port),
            "DEPUTY_DATA_DIR": str(data),
            **env,
        }
        self._out = data.parent / f"{module}-{secrets.token_hex(4)}.out"
        self._module = module

    def __enter__(self):
        for name in ("sandbox", "web", "worker"):
            logged_secrets.watch(self.data / f"{name}.log")
        self.process = spawn(
            [sys.executable, "-m", f"dev.{self._module}"], self._out, env=self._env
        )
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOPPED)
            self.process.kill()
            self.process.wait()

    @property
    def url(self):
        return f"http://localhost:{self.port}"

    @property
    def sandbox_url(self):
        return f"http://localhost:{self.sandbox_port}"

    @property
    def admin_key(self):
        (found,) = re.findall(r"admin key +(dpk_\S+)", self.output)
        return found

    @property
    def output(self):
        return self._out.read_text(errors="replace")

    def ready(self):
        """Wait until it says that it is, and is."""
        until(
            lambda: LAST_LINE in self.output or self.process.poll() is not None,
            "make run is up",
            PATIENCE,
        )
        assert self.process.poll() is None, self.output
        assert requests.get(f"{self.url}/readyz", timeout=30).json()["status"] == "ok"
        return self

    def ended(self):
        """Its exit code."""
        return self.process.wait(PATIENCE)

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOPPED)


def processes(folder):
    """Every process that has the folder in its command line or environment: its environment, by
    id.
    """
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            raw = (entry / "environ").read_bytes()
            if str(folder).encode() in raw + (entry / "cmdline").read_bytes():
                lines = raw.decode(errors="replace").split("\0")
                found[int(entry.name)] = dict(line.partition("=")[::2] for line in lines if line)
    return found


def assert_nothing_left(run, seconds=0):
    if Path("/proc").exists():
        until(lambda: not processes(run.data), "its processes have ended", seconds)
    for port in (run.port, run.sandbox_port):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))


def assert_the_story_works(run, key):
    tenant = call(run, key, "POST", "/v1/tenants", {"name": "Acme"}, expect=201)
    kit = call(run, key, "GET", f"/v1/tenants/{tenant['id']}/onboarding")
    create_the_stack(run, kit["launch_stack_url"])
    path = f"/v1/tenants/{tenant['id']}/connections"
    until(
        lambda: [c["status"] for c in call(run, key, "GET", path)["items"]] == ["verified"],
        "it is verified",
        PATIENCE,
    )
    [connection] = call(run, key, "GET", path)["items"]
    checks = {check["name"]: check["outcome"] for check in connection["verification"]["checks"]}
    assert set(checks.values()) == {"passed"}, checks
    assert "stranger_refused" in checks
    issued = call(run, key, "POST", f"{path}/{connection['id']}/credentials")
    session = boto3.session.Session(
        issued["AccessKeyId"], issued["SecretAccessKey"], issued["SessionToken"]
    )
    with closing(session.client("s3", endpoint_url=run.sandbox_url, region_name="us-east-1")) as s3:
        assert "deputy-shared-acme" in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]


def create_the_stack(run, link):
    """What the console's page does for the person who opened the link."""
    parts = urlsplit(link)
    assert link.startswith(f"{run.sandbox_url}/console/cloudformation/home?")
    wanted = dict(parse_qsl(parts.fragment.partition("?")[2]))
    launch = {
        "account": ACME,
        "region": "us-east-1",
        "template_url": wanted.pop("templateURL"),
        "stack_name": wanted.pop("stackName"),
        "parameters": {name.removeprefix("param_"): value for name, value in wanted.items()},
        "capabilities": ["CAPABILITY_NAMED_IAM"],
    }
    made = requests.post(f"{run.sandbox_url}/console/api/stacks", json=launch, timeout=30)
    assert made.status_code == 201, made.text


def call(run, key, method, path, body=None, *, expect=200):
    answer = requests.request(
        method, f"{run.url}{path}", json=body, headers=bearer(key), timeout=30
    )
    assert answer.status_code == expect, answer.text
    return answer.json()


def bearer(key):
    return {"Authorization": f"Bearer {key}"}
