"""Who plays in these tests: a Deputy over HTTP, its workers as programs of their own, and the
clock they share.
"""

import datetime as dt
import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import time_machine
from werkzeug.serving import WSGIRequestHandler, make_server

from dev.stack import ONLY_THESE_CREDENTIALS
from tests.support.cast import Customer, path_of, root_client, without_external_id

ROOT = Path(__file__).parent.parent.parent
CLIENT = ROOT / "client"
DOCUMENT = (ROOT / "docs" / "workers.md").read_text()
COMMAND = f"{sys.executable} -m deputy_client.cli"
# The document's ids
EXAMPLE = ("01890a5d-ac96-774b-bcce-b302099a8057", "01890a5d-b1f2-7c41-9d6f-2a6c1d0e4f88")
MAY_LIST = """{"Version": "2012-10-17", "Statement": {"Effect": "Allow",
    "Action": ["s3:ListAllMyBuckets", "s3:ListBucket"], "Resource": "*"}}"""


class _Quiet(WSGIRequestHandler):
    def log(self, *args, **kwargs):
        pass


def issued(expiration):
    """Deputy's answer to a request for credentials."""
    keys = {"AccessKeyId": "a", "SecretAccessKey": "b", "SessionToken": "c"}
    return 200, {}, json.dumps(keys | {"Expiration": expiration}).encode()


@contextmanager
def served(app, port=0, **options):
    """A WSGI application over HTTP; gives its port."""
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=_Quiet, **options)
    server.daemon_threads = True
    # It stops at once
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Deputy:
    """The real service behind a door that counts who comes in, and may answer in its stead."""

    def __init__(self, app):
        self._app = app
        self._lock = threading.Lock()
        self.requests = []
        self.instead = lambda: None
        self.url = ""

    def __call__(self, environ, start_response):
        with self._lock:
            self.requests.append({k: v for k, v in environ.items() if isinstance(v, str)})
            answer = self.instead()
        if answer is None:
            return self._app(environ, start_response)
        status, headers, body = answer
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(f"{status} x", list(headers.items()))
        return [body]

    def answer_first(self, *answers):
        """The next answers; the service gives those after them."""
        left = list(answers)
        self.instead = lambda: left.pop(0) if left else None


class CustomerAccount:
    """A customer's account with a verified connection, and a worker's key for it."""

    def __init__(self, world):
        self.world = world
        self.customer = Customer(world.aws)
        self.tenant = world.tenant()
        self.connection = world.connection(self.tenant, self.customer)
        self.role_name = self.connection["role_arn"].rsplit("/", 1)[1]
        iam = root_client(world.aws, "iam", self.customer.account)
        iam.put_role_policy(RoleName=self.role_name, PolicyName="list", PolicyDocument=MAY_LIST)
        self.ids = (self.tenant["id"], self.connection["id"])
        self.bucket = f"things-of-{self.customer.account}"
        self.key = world.worker(self.tenant).key or ""

    def session(self, **options):
        """The client's, with the worker's key."""
        import deputy_client  # noqa: PLC0415  conftest.py makes it importable

        return deputy_client.session(*self.ids, key=self.key, **options)

    def fill(self, objects):
        s3 = root_client(self.world.aws, "s3", self.customer.account)
        s3.create_bucket(Bucket=self.bucket)
        for number in range(objects):
            s3.put_object(Bucket=self.bucket, Key=f"{number:03}", Body=b"")

    def open_the_role(self):
        """The customer takes the External ID out of the role's trust policy."""
        trust = self.world.kit(self.tenant)["trust_policy"]
        self.customer.retrust(self.role_name, without_external_id(trust))

    def admin(self, path, body=None):
        return self.world.admin("POST", path_of(self.connection, path), body or {})


class Ways:
    """How programs get their credentials: the variables of each way."""

    def __init__(self, home, place, url):
        self.home, self.place, self.url = home, place, url
        self.key_file = home / "deputy-key"
        self.key_file.write_text(place.key)  # no newline: see "The newline trap"

    def process(self, *options):
        """A profile with deputy-credential-process, which test_wheel.py has as it is installed."""
        tenant, connection = self.place.ids
        words = f"{COMMAND} --url {self.url} --key-file {self.key_file} --tenant {tenant}"
        words += f" --connection {connection} {' '.join(options)}"
        return self.profile("acme", f"[profile acme]\ncredential_process = {words}\n")

    def container(self):
        """The document's variables."""
        text = self.filled_in(block("sh", "export AWS_CONTAINER_CREDENTIALS_FULL_URI"))
        lines = [line.removeprefix("export ").partition("=") for line in text.splitlines()]
        return {name: value for name, _, value in lines}

    def client(self):
        return {"DEPUTY_URL": self.url, "DEPUTY_API_KEY_FILE": str(self.key_file)}

    def profile(self, name, text):
        config = self.home / "config"
        config.write_text(text)
        return {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": name}

    def filled_in(self, text):
        """A text of the document, with this worker's own values."""
        assert all(example in text for example in EXAMPLE)
        for example, own in {
            "deputy-credential-process": COMMAND,
            "https://deputy.example.com": self.url,
            "/run/secrets/deputy-key": str(self.key_file),
            **dict(zip(EXAMPLE, self.place.ids, strict=True)),
        }.items():
            text = text.replace(example, own)
        return text


class Clock:
    """Simulated time for this process (service, sandbox) and for workers with a folder each,
    which confirm each step.
    """

    def __init__(self, *folders):
        self.folders = folders
        self.passed = 0.0
        self._publish()

    def __enter__(self):
        self._travel = time_machine.travel(dt.datetime.now(dt.UTC))
        self._coordinates = self._travel.start()
        return self

    def __exit__(self, *_):
        self._travel.stop()

    def advance(self, seconds, running=lambda _: True):
        """`running`: whether the worker with this folder still runs."""
        self.passed += seconds
        self._coordinates.shift(seconds)
        self._publish()
        latest = time.monotonic() + 10
        for seen in [folder / "seen" for folder in self.folders if running(folder)]:
            while not seen.exists() or float(seen.read_text()) != self.passed:
                assert time.monotonic() < latest, "the worker's clock does not follow"
                time.sleep(0.001)

    def _publish(self):
        for folder in self.folders:
            new = folder / "offset.new"
            new.write_text(str(self.passed))
            new.replace(folder / "offset")


class TickingAws:
    """The sandbox's AWS, where each answer takes minutes of simulated time. Remembers who asked
    with which key.
    """

    def __init__(self, aws, clock, seconds):
        self._aws = aws
        self._clock = clock
        self._seconds = seconds
        self.seen = []  # when, with which access key, with what answer

    def __call__(self, environ, start_response):
        began = []
        body = b"".join(self._aws(environ, lambda *given, **_: began.extend(given)))
        key = re.search(r"Credential=(\w+)/", environ.get("HTTP_AUTHORIZATION", ""))
        self.seen.append((self._clock.passed, key[1] if key else "", int(began[0].split()[0])))
        # Only now: what was valid when it was signed shall not expire on its way.
        self._clock.advance(self._seconds)
        start_response(*began)
        return [body]


def environment(**variables):
    """A worker's: nothing of AWS or Deputy that is not given here."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "DEPUTY_", "CURL_"))}
    given = {
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",  # the AWS CLI's
        **ONLY_THESE_CREDENTIALS,
        "PYTHONPATH": str(CLIENT),
        "PYTHONWARNINGS": "error::ResourceWarning",
    }
    return clean | given | variables


def run(*words, env, timeout=60):
    return subprocess.run(
        words, env=env, capture_output=True, text=True, timeout=timeout, check=False
    )


def secret_of(key):
    """The part of an API key that nobody may see; what is before it is its id."""
    return key.split("_", 2)[-1]


def beside_python(name):
    found = Path(sys.executable).parent / name
    assert found.exists(), f"{name} is in requirements-dev.txt; it must be beside {sys.executable}"
    return found


def block(language, having):
    """The code of docs/workers.md that has this text in it, exactly as people copy it."""
    (found,) = [
        code
        for code in re.findall(rf"```{language}\n(.*?)```", DOCUMENT, flags=re.DOTALL)
        if having in code
    ]
    return str(found)
