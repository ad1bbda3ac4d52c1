"""Deputy and its sandbox on one machine: starts the processes, waits for them, and stops them.

The sandbox keeps AWS in memory, so it starts fresh each time. The embedded database then starts
fresh too. Otherwise it would hold connections to roles that no longer exist. A database of your own
(DEPUTY_DATABASE_URL) is never changed.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from app.ids import stack_name

ROOT = Path(__file__).resolve().parent.parent
VENDOR_ACCOUNT = "111122223333"
_READY_SECONDS = 120
_BROKER = re.compile(r"arn:aws:iam::(?P<account>[0-9]{12}):role/(?P<name>[A-Za-z0-9_+=,.@-]{1,64})")
# With these, an AWS SDK uses only the credentials in its environment.
ONLY_THESE_CREDENTIALS = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
NOT_RUNNING = (
    "make run is not running here. Start it in another terminal, in this folder. If it runs with a"
    " DEPUTY_DATA_DIR of its own, set that variable in this terminal as well."
)
_QUOTE = "'\"'\"'"  # ends the shell's quotes, writes a quote, and begins them again


class StackError(Exception):
    """A part can't start. The message is one line with the reason."""


@dataclass(frozen=True)
class Settings:
    """The ports and the data folder, from PORT, SANDBOX_PORT and DEPUTY_DATA_DIR."""

    port: int
    sandbox_port: int
    data: Path

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> "Settings":
        data = Path(env.get("DEPUTY_DATA_DIR") or ROOT / ".data").absolute()
        port, sandbox_port = _port(env, "PORT", 8000), _port(env, "SANDBOX_PORT", 4566)
        if port == sandbox_port:
            raise StackError(f"PORT and SANDBOX_PORT are both {port}; each needs its own port.")
        return cls(port, sandbox_port, data)

    @classmethod
    def of_running(cls, env: Mapping[str, str]) -> "Settings":
        """Return the data folder alone. A running service records its own ports there."""
        return cls.from_environment({"DEPUTY_DATA_DIR": env.get("DEPUTY_DATA_DIR", "")})

    @property
    def publish_request(self) -> Path:
        """The file by which `make publish` sends a request to `make run`, which removes it."""
        return self.data / "publish"

    @property
    def publish_answer(self) -> Path:
        return self.data / "published"

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def sandbox_url(self) -> str:
        return f"http://localhost:{self.sandbox_port}"


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text) < 65536:
        raise StackError(f"{name}={text} is not a port; choose one from 1 to 65535.")
    return int(text)


class Stack:
    """The running processes. Use it in a `with`, which stops all of them at its end."""

    web_processes = 2

    def __init__(self, settings: Settings, env: Mapping[str, str]) -> None:
        self.settings = settings
        self.admin_key = (
            setting(env, "DEPUTY_BOOTSTRAP_KEY")
            or f"dpk_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"
        )
        self.embedded = setting(env, "DEPUTY_DATABASE_URL") is None
        self.fresh_from = False
        self._given = env
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._lock: IO[str] | None = None
        self._doubts: list[str] = []
        self.onboarding_url: str | None = None
        self._of_sandbox: dict[str, str] = {}  # filled in once the vendor's stack exists

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def prepare(self) -> None:
        """Check ports, data folder and database, the cheapest check first."""
        for name, port in (
            ("PORT", self.settings.port),
            ("SANDBOX_PORT", self.settings.sandbox_port),
        ):
            _ensure_free(name, port)
        self._take_data_dir()
        if self.embedded:
            for old in self.settings.data.glob("deputy.sqlite3*"):
                old.unlink()
                self.fresh_from = True
        self._commands("templates check", "migrate", "keys bootstrap")

    def start_sandbox(self) -> None:
        port = str(self.settings.sandbox_port)
        self._spawn("sandbox", "-m", "sandbox", "--port", port, *vendor_arguments(self.environment))
        self._await("sandbox", f"{self.settings.sandbox_url}/_sandbox/broker-credentials")
        url = f"{self.settings.sandbox_url}/_sandbox/vendor"
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            vendor = json.load(answer)
        self._of_sandbox = {
            "DEPUTY_REGISTRATION_TOPIC_ARN": vendor["registration_topic_arn"],
            "DEPUTY_REGISTRATION_QUEUE_URL": vendor["registration_queue_url"],
            "DEPUTY_CANARY_ROLE_ARN": vendor["canary_role_arn"],
            "DEPUTY_STRANGER_ROLE_ARN": vendor["stranger_role_arn"],
        }

    def publish(self) -> int:
        """Publish the templates with the vendor's own credentials, as its deploy pipeline would."""
        return len(self._published().splitlines())

    def _published(self) -> str:
        return self._commands("templates publish", extra=self._publisher())

    def answer_publish_request(self) -> None:
        """Publish if `make publish` asks for it, and restart the web processes and the worker.

        They read permission sets only at their start.
        """
        if not self.settings.publish_request.exists():
            return
        try:
            answer = f"published\n{self._published()}"
            for name, start in (("worker", self.start_worker), ("web", self.start_web)):
                end_process(self._children.pop(name))
                start()
            answer += "Deputy runs with these permission sets now."
        except StackError as error:
            answer = f"failed\n{error}"
        self.settings.publish_answer.write_text(answer)
        self.settings.publish_request.unlink(missing_ok=True)

    def _publisher(self) -> dict[str, str]:
        """Return an access key of twelve digits: in the sandbox the root of that account."""
        account, _ = broker(self.environment)
        return {"AWS_ACCESS_KEY_ID": account, "AWS_SECRET_ACCESS_KEY": "sandbox"}

    def start_web(self) -> None:
        bind = f"127.0.0.1:{self.settings.port}"
        self._spawn(
            "web",
            "-m",
            "gunicorn",
            "--bind",
            bind,
            "--workers",
            str(self.web_processes),
            "wsgi:app",
        )
        self._await("web", f"{self.settings.url}/readyz")
        note = {
            "url": self.settings.url,
            "sandbox_url": self.settings.sandbox_url,
            "admin_key": self.admin_key,
        }
        _write_private(self.settings.data / "run.json", json.dumps(note))
        _write_private(self.environment_file, exports(self.environment))

    def onboard(self) -> None:
        """Create a first customer with an onboarding link, but not in a user's own database."""
        if self.embedded:
            tenant = self._ask("/v1/tenants", {"name": "Acme"})
            self.onboarding_url = self._ask(f"/v1/tenants/{tenant['id']}/onboarding-links", {})[
                "url"
            ]

    def _ask(self, path: str, body: dict[str, str]) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self.admin_key}", "Content-Type": "application/json"}
        request = urllib.request.Request(  # noqa: S310  http, ours
            self.settings.url + path, json.dumps(body).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            found: dict[str, str] = json.load(answer)
        return found

    def start_worker(self) -> None:
        self._spawn("worker", "-m", "flask", "--app", "wsgi", "worker")

    @property
    def environment_file(self) -> Path:
        """The file to source before `flask --app wsgi …`. It exists while the service runs."""
        return self.settings.data / "env"

    def log(self, name: str) -> Path:
        return self.settings.data / f"{name}.log"

    def dead(self) -> str | None:
        """Return the name of a process that ended by itself."""
        return next(
            (name for name, child in self._children.items() if child.poll() is not None), None
        )

    def stop(self) -> None:
        """Stop the processes, the last one first: SIGTERM, then SIGKILL."""
        for child in reversed(self._children.values()):
            end_process(child)
        self._children.clear()
        if self._lock is not None:
            self._remove_notes()
            self._lock.close()
            self._lock = None

    def _remove_notes(self) -> None:
        questions = self.settings.publish_request, self.settings.publish_answer
        for note in (self.settings.data / "run.json", self.environment_file, *questions):
            note.unlink(missing_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """The service's environment, without the user's own AWS variables."""
        settings = self.settings
        clean = {k: v for k, v in self._given.items() if not k.startswith(("AWS_", "DEPUTY_"))}
        deputy = {
            "DEPUTY_DATABASE_URL": f"sqlite:///{settings.data / 'deputy.sqlite3'}",
            "DEPUTY_SECRET_KEYS": self._secret_key(),
            "DEPUTY_BROKER_PRINCIPAL_ARN": f"arn:aws:iam::{VENDOR_ACCOUNT}:role/DeputyBroker",
            "DEPUTY_VENDOR_NAME": "Example Vendor",
            "DEPUTY_TEMPLATE_BUCKET": f"deputy-templates-{VENDOR_ACCOUNT}",
            "DEPUTY_PUBLIC_URL": settings.url,
            "DEPUTY_CONSOLE_URL": f"{settings.sandbox_url}/console",
            **self._of_sandbox,
            # The data folder is a setting of `make run`; the service has no such setting.
            **{
                k: v
                for k, v in self._given.items()
                if k.startswith("DEPUTY_") and k != "DEPUTY_DATA_DIR"
            },
            "DEPUTY_BOOTSTRAP_KEY": self.admin_key,
        }
        return clean | deputy | ONLY_THESE_CREDENTIALS | self._aws()

    def _aws(self) -> dict[str, str]:
        """Return the variables that select the service's AWS and its credentials."""
        return {
            "AWS_ENDPOINT_URL": self.settings.sandbox_url,
            "AWS_REGION": "us-east-1",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": (
                f"{self.settings.sandbox_url}/_sandbox/broker-credentials"
            ),
        }

    def _take_data_dir(self) -> None:
        """Allow one run per data folder: a second one would remove the first one's database."""
        data = self.settings.data
        try:
            # Other users must not read the database and the logs.
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = (data / "run.lock").open("w")
        except OSError as error:
            raise StackError(f"DEPUTY_DATA_DIR={data} can't be used: {error.strerror}.") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            self._lock = None
            raise StackError(
                f"Another run uses {data}; stop it, or set DEPUTY_DATA_DIR to another folder."
            ) from None
        self._remove_notes()  # notes of a run that was killed
        for name in ("sandbox", "web", "worker"):
            self.log(name).unlink(missing_ok=True)

    def _secret_key(self) -> str:
        path = self.settings.data / "secret-key"
        if not path.exists():
            _write_private(path, secrets.token_urlsafe(48))
        return path.read_text()

    def _commands(
        self,
        *commands: str,
        extra: Mapping[str, str] | None = None,
        may_exit: tuple[int, ...] = (0,),
    ) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dev.commands", *commands],
            cwd=ROOT,
            env=self.environment | dict(extra or {}),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in may_exit:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            first = next(
                (n for n, line in enumerate(said) if line.startswith("Error: ")),
                max(0, len(said) - 8),
            )
            raise StackError("\n".join(line.removeprefix("Error: ") for line in said[first:]))
        self._pass_on(done.stderr)
        return done.stdout

    def _pass_on(self, said: str) -> None:
        """Print the service's warnings about its settings, each once.

        Every process logs the same warnings.
        """
        for line in said.splitlines():
            found = json.loads(line) if line.startswith("{") else {}
            if found.get("event") == "settings.doubtful" and found["detail"] not in self._doubts:
                self._doubts.append(found["detail"])
                print(f"note      {found['detail']}", flush=True)

    def _spawn(self, name: str, *arguments: str) -> None:
        with self.log(name).open("ab") as output:
            # In its own session, because Ctrl-C must reach only this process, which ends the others
            # in order.
            self._children[name] = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
                # one C call, before any thread of ours exists
                preexec_fn=end_with_parent,  # noqa: PLW1509
            )

    def _await(self, name: str, url: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if self._children[name].poll() is not None:
                break
            # http, ours
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):  # noqa: S310
                return
            time.sleep(0.1)
        tail = self.log(name).read_text(errors="replace").strip().splitlines()[-8:]
        raise StackError(
            f"The {name} process does not start. The end of its log:\n" + "\n".join(tail)
        )


def running(settings: Settings) -> dict[str, str] | None:
    """Return the addresses and the key of this data folder's `make run`, if it still runs."""
    try:
        found: dict[str, str] = json.loads((settings.data / "run.json").read_text())
        with urllib.request.urlopen(f"{found['url']}/healthz", timeout=2):  # noqa: S310  http, ours
            return found
    except OSError:
        return None


def setting(env: Mapping[str, str], name: str) -> str | None:
    """Return a setting as the service reads it: from the file in NAME_FILE, or from NAME.

    A file that can't be read is left for the service to report.
    """
    if path := env.get(f"{name}_FILE"):
        with contextlib.suppress(OSError):
            return Path(path).read_text().strip()
    return env.get(name)


def broker(env: Mapping[str, str]) -> tuple[str, str]:
    """Return the account and the name of the role that the service acts as.

    Raises StackError for a role that broker.yaml can't create.
    """
    found = _BROKER.fullmatch(setting(env, "DEPUTY_BROKER_PRINCIPAL_ARN") or "")
    if found is None:
        raise StackError(
            "DEPUTY_BROKER_PRINCIPAL_ARN: the sandbox makes the broker from"
            " cloudformation/broker.yaml, a role without a path; set"
            " arn:aws:iam::<account>:role/<name>, or remove the setting."
        )
    return found["account"], found["name"]


def vendor_arguments(env: Mapping[str, str]) -> list[str]:
    """Return the sandbox's arguments for a vendor's stack that matches the service's settings.

    The settings become broker.yaml's parameters.
    """
    account, name = broker(env)
    prefix = setting(env, "DEPUTY_ROLE_PREFIX")
    twins = {
        "BrokerRoleName": name,
        "RolePrefix": prefix,
        "TemplateBucketName": setting(env, "DEPUTY_TEMPLATE_BUCKET"),
        "VendorAccountIds": setting(env, "DEPUTY_VENDOR_ACCOUNT_IDS"),
    }
    stack = stack_name("deputy-" if prefix is None else prefix, "broker")
    arguments = ["--vendor-account", account, "--vendor-stack", stack]
    for parameter, value in twins.items():
        if value is not None:
            arguments += ["--vendor-parameter", f"{parameter}={value}"]
    return arguments


def exports(env: Mapping[str, str]) -> str:
    """Return the service's settings and AWS's variables for the shell, with every value quoted."""
    names = (name for name in sorted(env) if re.fullmatch(r"(DEPUTY|AWS)_[A-Za-z0-9_]+", name))
    return "".join(
        "export {}='{}'\n".format(name, env[name].replace("'", _QUOTE)) for name in names
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ensure_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            why = (
                "is taken"
                if error.errno == errno.EADDRINUSE
                else f"can't be used ({error.strerror})"
            )
            raise StackError(f"Port {port} {why}; choose another: {name}=… make run") from error


def end_with_parent() -> None:
    """Ask Linux to end this child process if its parent is killed (PR_SET_PDEATHSIG).

    On other systems it continues to run.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def end_process(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)
    # Then its children, if any are left: gunicorn's web processes, if gunicorn itself was killed.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
