"""Deputy and its sandbox on one machine: starts the processes, waits for them, and stops them.

The sandbox keeps AWS in memory, so it starts fresh each time. PostgreSQL then starts fresh too.
Otherwise it would hold connections to roles that no longer exist. A database of your own
(DEPUTY_DATABASE_URL) is never emptied.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

import requests

from dev.ports import ensure_free, free_port
from dev.postgres import Postgres
from dev.run_settings import Settings, StackError, broker, exports, setting, vendor_arguments

ROOT = Path(__file__).resolve().parent.parent
CLIENT = str(ROOT / "client")  # its package deputy_client is not installed
VENDOR_ACCOUNT = "111122223333"
_READY_SECONDS = 120
_CREDENTIALS = "/_sandbox/broker-credentials"
# With these variables, an AWS SDK uses only the credentials in its environment.
ONLY_THESE_CREDENTIALS = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
NOT_RUNNING = (
    "make run is not running here. Start it in another terminal, in this folder. If it runs with a"
    " DEPUTY_DATA_DIR of its own, set that variable in this terminal as well."
)
_IN_USE = "Another run uses {}; stop it, or set DEPUTY_DATA_DIR to another folder."


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
        self._postgres: Postgres | None = None
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
        if running(self.settings):  # it has the ports too, but other ports would not help
            raise StackError(_IN_USE.format(self.settings.data))
        ensure_free(self.settings.port, "PORT=… make run")
        ensure_free(self.settings.sandbox_port, "SANDBOX_PORT=… make run")
        self._take_data_dir()
        if self.embedded:
            try:
                self._postgres = Postgres.in_folder(self.settings.data)
            except RuntimeError as error:
                raise StackError(str(error)) from error
        self._commands("templates check", "migrate", "keys bootstrap")

    def start_sandbox(self) -> None:
        port = str(self.settings.sandbox_port)
        self._spawn("sandbox", "-m", "sandbox", "--port", port, *vendor_arguments(self.environment))
        self._await("sandbox", f"{self.settings.sandbox_url}{_CREDENTIALS}")
        vendor = requests.get(f"{self.settings.sandbox_url}/_sandbox/vendor", timeout=5).json()
        self._of_sandbox = {
            "DEPUTY_REGISTRATION_TOPIC_ARN": ",".join(
                [vendor["registration_topic_arn"], *vendor["further_topic_arns"]]
            ),
            "DEPUTY_REGISTRATION_QUEUE_URL": vendor["registration_queue_url"],
            "DEPUTY_CANARY_ROLE_ARN": vendor["canary_role_arn"],
            "DEPUTY_STRANGER_ROLE_ARN": vendor["stranger_role_arn"],
        }

    def publish(self) -> str:
        """Publish the templates with the vendor's own credentials, as its deploy pipeline would.

        Return one line for each object.
        """
        return self._commands("templates publish", extra=self._publisher())

    def answer_publish_request(self) -> None:
        """Publish if `make publish` asks for it, and restart the web processes and the worker.

        They read permission sets only at their start.
        """
        if not self.settings.publish_request.exists():
            return
        try:
            answer = f"published\n{self.publish()}"
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
        bind = f"--bind=127.0.0.1:{self.settings.port}"
        self._spawn("web", "-m", "gunicorn", bind, f"--workers={self.web_processes}", "wsgi:app")
        self._await("web", f"{self.settings.url}/readyz")
        note = {
            "url": self.settings.url,
            "sandbox_url": self.settings.sandbox_url,
            "admin_key": self.admin_key,
            "receiver_log": str(self.log("receiver")),
        }
        _write_private(self.settings.data / "run.json", json.dumps(note))
        _write_private(self.environment_file, exports(self.environment))

    def onboard(self) -> None:
        """Create a first customer with an onboarding link, but not in a user's own database."""
        if self.embedded:
            tenant = self._post("/v1/tenants", {"name": "Acme"})
            link = self._post(f"/v1/tenants/{tenant['id']}/onboarding-links", {})
            self.onboarding_url = link["url"]

    def start_receiver(self) -> None:
        """Start a receiver of webhooks, with an endpoint of its own.

        Start none with a user's own database, which would keep the endpoint of each run.
        """
        if self.embedded:
            port = free_port()
            body = {"url": f"http://127.0.0.1:{port}/webhooks/deputy", "types": ["*"]}
            secret = self._post("/v1/webhook-endpoints", body)["secret"]
            self._spawn(
                "receiver",
                "-m",
                "dev.receiver",
                str(port),
                environment=self.environment | {"WEBHOOK_SECRET": secret, "PYTHONPATH": CLIENT},
            )

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self.admin_key}"}
        answer = requests.post(self.settings.url + path, json=body, headers=headers, timeout=10)
        if not answer.ok:
            raise StackError(f"POST {path} was refused: {answer.text}")
        return dict(answer.json())

    def start_worker(self) -> None:
        self._spawn("worker", "-m", "flask", "--app", "wsgi", "worker")

    @property
    def database(self) -> str:
        """Return the URL of the database, as psql takes it."""
        if self._postgres is None:
            return "yours (DEPUTY_DATABASE_URL)"
        return self._postgres.url().replace("+psycopg", "")

    @property
    def environment_file(self) -> Path:
        """The file to source before `flask --app wsgi …`. It exists while the service runs."""
        return self.settings.data / "env"

    def log(self, name: str) -> Path:
        return self.settings.data / f"{name}.log"

    def dead(self) -> str | None:
        """Return the name of a process that ended by itself."""
        for name, child in self._children.items():
            if child.poll() is not None:
                return name
        return None

    def stop(self) -> None:
        """Stop the processes, the last one first: SIGTERM, then SIGKILL. Then stop PostgreSQL."""
        for child in reversed(self._children.values()):
            end_process(child)
        self._children.clear()
        if self._postgres is not None:
            self._postgres.stop()
            self._postgres = None
        if self._lock is not None:
            self._remove_notes()
            self._lock.close()
            self._lock = None

    def _remove_notes(self) -> None:
        settings = self.settings
        settings.publish_request.unlink(missing_ok=True)
        settings.publish_answer.unlink(missing_ok=True)
        self.environment_file.unlink(missing_ok=True)
        (settings.data / "run.json").unlink(missing_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """The service's environment, without the user's own AWS variables."""
        settings, shell, given = self.settings, {}, {}
        for name, value in self._given.items():
            if name.startswith("DEPUTY_"):
                given[name] = value
            elif not name.startswith("AWS_"):
                shell[name] = value
        # The data folder is a setting of `make run`; the service has no such setting.
        given.pop("DEPUTY_DATA_DIR", None)
        deputy = {
            **({"DEPUTY_DATABASE_URL": self._postgres.url()} if self._postgres else {}),
            "DEPUTY_SECRET_KEYS": self._secret_key(),
            "DEPUTY_BROKER_PRINCIPAL_ARN": f"arn:aws:iam::{VENDOR_ACCOUNT}:role/DeputyBroker",
            "DEPUTY_VENDOR_NAME": "Example Vendor",
            "DEPUTY_TEMPLATE_BUCKET": f"deputy-templates-{VENDOR_ACCOUNT}",
            "DEPUTY_PUBLIC_URL": settings.url,
            "DEPUTY_RETURN_URLS": "http://localhost:8020/",  # a product on this machine
            "DEPUTY_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
            "DEPUTY_CONSOLE_URL": f"{settings.sandbox_url}/console",
            **self._of_sandbox,
            **given,
            "DEPUTY_BOOTSTRAP_KEY": self.admin_key,
        }
        return shell | deputy | ONLY_THESE_CREDENTIALS | self._aws()

    def _aws(self) -> dict[str, str]:
        """Return the variables that select the service's AWS and its credentials."""
        return {
            "AWS_ENDPOINT_URL": self.settings.sandbox_url,
            "AWS_REGION": "us-east-1",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.settings.sandbox_url}{_CREDENTIALS}",
        }

    def _take_data_dir(self) -> None:
        """Allow one run per data folder: a second one would remove the first one's database."""
        data = self.settings.data
        try:
            # Other users must not read the database and the logs.
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (data / "run.lock").open("w")
        except OSError as error:
            raise StackError(f"DEPUTY_DATA_DIR={data} can't be used: {error.strerror}.") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise StackError(_IN_USE.format(data)) from None
        self._lock = lock
        self._remove_notes()  # notes of a run that was killed
        for name in ("sandbox", "web", "worker", "receiver", "product"):
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
            _, error, reasons = f"\n{done.stderr}".partition("\nError: ")
            if not error:  # a traceback: show its end
                reasons = "\n".join(done.stderr.strip().splitlines()[-8:])
            raise StackError(reasons.replace("\nError: ", "\n").strip())
        self._pass_on(done.stderr)
        return done.stdout

    def _pass_on(self, lines: str) -> None:
        """Print each of the service's warnings about its settings once.

        Every process logs the same warnings.
        """
        for line in lines.splitlines():
            if line.startswith("{") and '"settings.doubtful"' in line:
                doubt = json.loads(line)["detail"]
                if doubt not in self._doubts:
                    self._doubts.append(doubt)
                    print(f"note      {doubt}", flush=True)

    def _spawn(
        self, name: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a process. `environment`: its variables; None: the service's."""
        with self.log(name).open("ab") as output:
            # A new session, because Ctrl-C must reach only this process, which ends the others in
            # order.
            self._children[name] = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=self.environment if environment is None else environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
                # This makes one C call, before any thread of ours exists
                preexec_fn=end_with_parent,  # noqa: PLW1509
            )

    def _await(self, name: str, url: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and self._children[name].poll() is None:
            if _answers(url):
                return
            time.sleep(0.1)
        tail = self.log(name).read_text(errors="replace").strip().splitlines()[-8:]
        raise StackError(
            f"The {name} process does not start. The end of its log:\n" + "\n".join(tail)
        )


def running(settings: Settings) -> dict[str, str] | None:
    """Return the addresses and the key of this data folder's `make run`, if it still runs."""
    try:
        run: dict[str, str] = json.loads((settings.data / "run.json").read_text())
    except (OSError, ValueError):  # absent, or cut off by the end of its writer
        return None
    return run if _answers(f"{run['url']}/healthz") else None


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


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
    # Then kill its remaining children: web processes of gunicorn, if gunicorn itself was killed.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(text)
