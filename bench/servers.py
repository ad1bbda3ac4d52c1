"""The servers that the bench starts, and stops when the `with` ends, also on Ctrl-C."""

import contextlib
import http.client
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench import cpu
from bench.client import BenchError, Client
from bench.instant_sts import ACCOUNT, BROKER_ARN, BROKER_KEY
from dev.ports import free_port
from dev.stack import ROOT, end_process, end_with_parent

# Files kept between runs: the peer's environment, a fetched wrk, logs, the last result.
HOME = ROOT / ".bench"
_READY_SECONDS = 60


class Process:
    """A server on a port of its own. `arguments` may name the port as `{port}`."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        env: Mapping[str, str],
        *,
        ready: str,
        cwd: Path = ROOT,
    ) -> None:
        self.name = name
        self.port = free_port()
        self._log = HOME / "logs" / f"{name}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as output:
            # A new session, because Ctrl-C must reach only the bench, which stops its processes in
            # order.
            self._child = subprocess.Popen(
                [argument.replace("{port}", str(self.port)) for argument in arguments],
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                # one C call, before any thread of ours exists
                preexec_fn=end_with_parent,  # noqa: PLW1509
            )
        try:
            self._await(ready)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        end_process(self._child)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def pids(self) -> list[int]:
        return cpu.family(self._child.pid)

    def web_processes(self) -> list[int]:
        """Return the ids of its web processes."""
        return self.pids()[1:]

    def _await(self, ready: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and self._child.poll() is None:
            with (
                contextlib.suppress(OSError, http.client.HTTPException),
                contextlib.closing(Client(self.port, timeout=5)) as client,
            ):
                if client.ask("GET", ready).status < 500:
                    return
            time.sleep(0.05)
        tail = self._log.read_text(errors="replace").strip().splitlines()[-12:]
        raise BenchError(f"{self.name} does not start. The end of its log:\n" + "\n".join(tail))


class InstantSts(Process):
    """The local STS of bench/instant_sts.py."""

    def __init__(self) -> None:
        command = (sys.executable, "-m", "bench.instant_sts", "{port}")
        super().__init__("instant-sts", command, PLAIN, ready="/_bench/calls")

    def register(self, roles: Mapping[str, str]) -> None:
        self._control("POST", "roles", dict(roles))

    def deny(self, arn: str, statement: Mapping[str, Any]) -> None:
        """Add a statement to this role's trust policy."""
        self._control("POST", "denies", {arn: statement})

    def role_ids(self, arns: Sequence[str]) -> list[str]:
        """Return the roles' unique ids."""
        with contextlib.closing(Client(self.port)) as control:
            role_ids: list[str] = control.must("POST", "/_bench/role-ids", list(arns))
            return role_ids

    def answer_after(self, seconds: float) -> None:
        self._control("POST", "delay", {"seconds": seconds})

    def calls(self) -> dict[str, int]:
        return self._control("GET", "calls")

    def _control(self, method: str, path: str, body: Any = None) -> dict[str, int]:
        # One for each call, because several threads call.
        with contextlib.closing(Client(self.port)) as control:
            counted: dict[str, int] = control.must(method, f"/_bench/{path}", body)
            return counted

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which an AWS SDK calls this STS, as the broker."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": BROKER_KEY,
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


# Leaves out the user's own variables, such as AWS keys and DEPUTY_ settings.
PLAIN = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "DEPUTY_OPERATOR": "make bench",
}


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder with Deputy's files, and a Python with the libraries that it pins."""

    root: Path
    python: str


HERE = Checkout(ROOT, sys.executable)


class Deputy(Process):
    """The service exactly as it is deployed, with every limit on but raised by its setting."""

    def __init__(
        self, name: str, environment: Mapping[str, str], checkout: Checkout = HERE
    ) -> None:
        self.checkout = checkout
        self.environment = dict(environment) | {"DEPUTY_METRICS_BIND": f"127.0.0.1:{free_port()}"}
        self.admin_key = environment["DEPUTY_BOOTSTRAP_KEY"]
        self.database_url = environment["DEPUTY_DATABASE_URL"]
        command = (checkout.python, *_GUNICORN, "-c", "gunicorn.conf.py", "wsgi:app")
        super().__init__(name, command, self.environment, ready="/readyz", cwd=checkout.root)

    @classmethod
    def on(
        cls, name: str, database_url: str, sts: InstantSts, checkout: Checkout = HERE
    ) -> "Deputy":
        """Start a Deputy on this database, which gets its tables and an admin key.

        `checkout` selects the version of Deputy.
        """
        deputy = {
            "DEPUTY_DATABASE_URL": database_url,
            "DEPUTY_SECRET_KEYS": secrets.token_urlsafe(48),
            "DEPUTY_BROKER_PRINCIPAL_ARN": BROKER_ARN,
            "DEPUTY_VENDOR_NAME": "Example Vendor",
            "DEPUTY_TEMPLATE_BUCKET": f"deputy-templates-{ACCOUNT}",
            "DEPUTY_ISSUE_RATE": "100000",
            "DEPUTY_TENANT_MISS_RATE": "10000",
            "DEPUTY_CONNECTION_RATE": "6000",
            "DEPUTY_BOOTSTRAP_KEY": f"dpk_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}",
        }
        environment = PLAIN | sts.environment | deputy
        for words in (("migrate",), ("keys", "bootstrap")):
            command = ("-m", "flask", "--app", "wsgi", *words)
            run_python(command, environment, checkout=checkout)
        return cls(name, environment, checkout)

    def twin(self, name: str, extra: Mapping[str, str] | None = None) -> "Deputy":
        """Start another machine of the deployment, with the same database and keys."""
        return Deputy(name, self.environment | dict(extra or {}), self.checkout)

    def client(self, key: str) -> Client:
        return Client(self.port, key)

    def admin(self) -> Client:
        return self.client(self.admin_key)


_GUNICORN = ("-m", "gunicorn", "--bind", "127.0.0.1:{port}")


def run_python(
    arguments: Sequence[str], env: Mapping[str, str], given: str = "", checkout: Checkout = HERE
) -> str:
    """Run a Python in the checkout's folder, and return its output.

    Raises BenchError if it fails.
    """
    command = [checkout.python, *arguments]
    done = subprocess.run(
        command,
        cwd=checkout.root,
        env=dict(env),
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{' '.join(arguments)} failed:\n{done.stderr.strip()[-2000:]}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Workers:
    """gunicorn's settings that decide how a Flask application runs. The peers get the same."""

    worker_class: str
    workers: int
    threads: int
    keepalive: int

    @classmethod
    def of_deputy(cls) -> Self:
        """Read the settings of gunicorn.conf.py.

        A separate process reads the file, because the file may patch the process that reads it.
        """
        settings = json.loads(run_python(("-c", _READ_SETTINGS), PLAIN).splitlines()[-1])
        return cls("gevent", **settings)  # Deputy's own class is of no use to others

    @property
    def flags(self) -> tuple[str, ...]:
        return (
            *("--worker-class", self.worker_class),
            *("--workers", str(self.workers)),
            *("--threads", str(self.threads)),
            *("--keep-alive", str(self.keepalive)),
            "--no-control-socket",
        )


_READ_SETTINGS = """
import json, runpy
settings = runpy.run_path("gunicorn.conf.py")
names = {"workers": 1, "threads": 1, "keepalive": 2}
print(json.dumps({name: settings.get(name, default) for name, default in names.items()}))
"""


def bare_flask(answer: str, workers: Workers) -> Process:
    """Start Flask alone, with the bytes of this answer of Deputy's."""
    command = (sys.executable, *_GUNICORN, *workers.flags, "bench.bare:app")
    return Process("bare-flask", command, PLAIN | {"BENCH_ANSWER": answer}, ready="/")


def peer(python: Path, name: str, env: Mapping[str, str], workers: Workers) -> Process:
    """Start an application of another environment, under the same gunicorn settings."""
    command = (str(python), *_GUNICORN, *workers.flags, "metadataproxy:app")
    return Process(
        name,
        command,
        PLAIN | dict(env),
        ready="/latest/meta-data/iam/security-credentials/",
        cwd=HOME,
    )
