"""docs/workers.md, word for word: its script, its profile and its variables, with the real AWS CLI,
boto3 and curl.

A worker of each kind is one process that lists a bucket page by page. Each page takes five minutes
of simulated time, on one clock for the worker, the service and AWS, which refuses credentials that
have expired.
"""

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from sandbox.server import Sandbox
from tests.client.people import (
    CLIENT,
    EXAMPLE,
    Clock,
    CustomerAccount,
    Deputy,
    TickingAws,
    beside_python,
    block,
    environment,
    run,
    secret_of,
    served,
)
from tests.support.cast import World, path_of

PAGES = 24  # two hours, on sessions of one
PAGE_SECONDS = 300
BOTO3 = """
import sys
import boto3
pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(
    Bucket=sys.argv[1], PaginationConfig={"PageSize": 1})
print(sum(len(page["Contents"]) for page in pages))
"""
CLIENTS = BOTO3.replace("import boto3", "import deputy_client").replace(
    "boto3.client", "deputy_client.session(*sys.argv[2:]).client"
)


@pytest.fixture
def filled_place(place: CustomerAccount) -> CustomerAccount:
    """With a bucket of so many pages."""
    place.fill(PAGES)
    return place


@pytest.fixture
def aws_cli() -> Path:
    return beside_python("aws")


class Worker:
    """Sets up the three ways in a home of its own."""

    def __init__(self, home: Path, place: CustomerAccount, deputy: Deputy, secure) -> None:
        self.home = home
        self.place = place
        self._deputy = deputy
        self._secure = secure
        self.key_file = home / "deputy-key"
        self.key_file.write_text(place.key)  # no newline: see "The newline trap"
        self._script: Path | None = None

    def profile_with_curl(self) -> dict[str, str]:
        script = self.home / "deputy-credentials"
        script.write_text(block("sh", "#!/bin/sh"))
        script.chmod(0o700)
        config = self.home / "config"
        config.write_text(
            self._with_own_ids(block("ini", "[profile acme]")).replace(
                "/opt/deputy/deputy-credentials", str(script)
            )
        )
        return {
            "AWS_CONFIG_FILE": str(config),
            "AWS_PROFILE": "acme",
            "DEPUTY_URL": self._secure.url,
            "DEPUTY_API_KEY_FILE": str(self.key_file),
            "CURL_CA_BUNDLE": str(self._secure.ca),
        }

    def profile_with_the_command(self) -> dict[str, str]:
        config = self.home / "config"
        tenant, connection = self.place.ids
        # test_wheel.py has the command as it is installed
        program = f"{sys.executable} -m deputy_client.cli"
        config.write_text(
            f"[profile acme]\ncredential_process = {program} --url {self._deputy.url}"
            f" --key-file {self.key_file} --tenant {tenant} --connection {connection}\n"
        )
        return {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "acme"}

    def container_variables(self) -> dict[str, str]:
        text = self._with_own_ids(block("sh", "export AWS_CONTAINER_CREDENTIALS_FULL_URI"))
        text = text.replace("https://deputy.example.com", self._deputy.url)
        text = text.replace("/run/secrets/deputy-key", str(self.key_file))
        lines = [line.removeprefix("export ").partition("=") for line in text.splitlines()]
        return {name: value for name, _, value in lines}

    def client(self) -> dict[str, str]:
        return {"DEPUTY_URL": self._deputy.url, "DEPUTY_API_KEY_FILE": str(self.key_file)}

    def _with_own_ids(self, text: str) -> str:
        for example, own in zip(EXAMPLE, self.place.ids, strict=True):
            assert example in text
            text = text.replace(example, own)
        return text


@pytest.fixture
def worker(tmp_path: Path, place: CustomerAccount, deputy: Deputy, secure) -> Worker:
    return Worker(tmp_path, place, deputy, secure)


@pytest.fixture
def hours(tmp_path: Path, aws: Sandbox) -> Iterator[tuple[TickingAws, dict[str, str]]]:
    """An AWS where time flies, and what a worker needs to live there."""
    folder = tmp_path / "clock"
    folder.mkdir()
    with ExitStack() as stack:
        clock = stack.enter_context(Clock(folder))
        ticking = TickingAws(aws, clock, PAGE_SECONDS)
        port = stack.enter_context(served(ticking))
        path = f"{Path(__file__).parent / 'clock'}:{CLIENT}"
        yield (
            ticking,
            {
                "AWS_ENDPOINT_URL": f"http://localhost:{port}",
                "TEST_CLOCK": str(folder),
                "PYTHONPATH": path,
            },
        )


def cli(place: CustomerAccount) -> list[str]:
    query = ["--query", "length(Contents)", "--output", "json"]
    return ["s3api", "list-objects-v2", "--bucket", place.bucket, "--page-size", "1", *query]


def check_two_hours(done, aws: TickingAws, deputy: Deputy) -> None:
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(PAGES), done.stdout
    assert [answer for _, _, answer in aws.seen] == [200] * PAGES
    used: dict[str, list[float]] = {}
    for when, key, _ in aws.seen:
        used.setdefault(key, []).append(when)
    assert 3 <= len(used) <= 4, used
    assert all(times[-1] - times[0] < 3600 for times in used.values())
    assert len(deputy.requests) == len(used)


@pytest.mark.usefixtures("filled_place")
@pytest.mark.parametrize(
    "way", ["profile_with_curl", "container_variables", "profile_with_the_command"]
)
def test_the_aws_cli_runs_for_hours(way, aws_cli, worker: Worker, deputy: Deputy, hours):
    aws, there = hours
    done = run(aws_cli, *cli(worker.place), env=environment(**there, **getattr(worker, way)()))
    check_two_hours(done, aws, deputy)


@pytest.mark.parametrize("way", ["profile_with_curl", "container_variables"])
def test_a_boto3_program_runs_for_hours(
    way, worker: Worker, filled_place: CustomerAccount, deputy: Deputy, hours
):
    aws, there = hours
    env = environment(**there, **getattr(worker, way)())
    check_two_hours(run(sys.executable, "-c", BOTO3, filled_place.bucket, env=env), aws, deputy)


def test_a_program_with_the_client_runs_for_hours(
    worker: Worker, filled_place: CustomerAccount, deputy: Deputy, hours
):
    aws, there = hours
    done = run(
        sys.executable,
        "-c",
        CLIENTS,
        filled_place.bucket,
        *filled_place.ids,
        env=environment(**there, **worker.client()),
    )
    check_two_hours(done, aws, deputy)


def test_without_refreshing_they_would_have_expired(
    worker: Worker, filled_place: CustomerAccount, deputy: Deputy, hours
):
    """The proof that the tests above prove something: AWS keeps time, and a session of an hour
    ends.
    """
    aws, there = hours
    issued = filled_place.admin("/credentials")
    fixed = {
        "AWS_ACCESS_KEY_ID": issued["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": issued["SecretAccessKey"],
        "AWS_SESSION_TOKEN": issued["SessionToken"],
    }
    done = run(sys.executable, "-c", BOTO3, filled_place.bucket, env=environment(**there, **fixed))
    assert "ExpiredToken" in done.stderr
    assert [answer for _, _, answer in aws.seen] == [200] * 12 + [403]


def test_the_script_tries_again_and_prints_one_answer(
    worker: Worker, deputy: Deputy, place: CustomerAccount
):
    deputy.answer_first((503, {"Retry-After": "1", "Content-Length": "2"}, b"{}"))
    done = run(
        worker.home / "deputy-credentials",
        *place.ids,
        env=environment(**worker.profile_with_curl()),
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["Version"] == 1
    assert len(deputy.requests) == 2


def test_the_script_fails_without_a_secret(worker: Worker, deputy: Deputy, place: CustomerAccount):
    env = environment(**worker.profile_with_curl())
    done = run(worker.home / "deputy-credentials", place.ids[0], place.ids[0], env=env)
    assert (done.returncode != 0, done.stdout) == (True, "")
    assert "Deputy answered 404 not_found, request " in done.stderr
    assert place.key not in done.stderr


def test_the_script_tells_one_refusal_from_another(
    worker: Worker, deputy: Deputy, place: CustomerAccount, aws: Sandbox
):
    place.open_the_role()
    place.admin("/verify")
    env = environment(**worker.profile_with_curl())

    def said() -> str:
        done = run(worker.home / "deputy-credentials", *place.ids, env=env)
        assert (done.returncode, done.stdout) == (22, "")
        return done.stderr

    assert "Deputy answered 409 connection_not_verified, request " in said()
    place.admin("/suspend", {"reason": "unpaid"})
    assert "Deputy answered 409 suspended, request " in said()
    deputy.answer_first((409, {"X-Deputy-Code": "role_refused", "Content-Length": "2"}, b"{}"))
    assert "Deputy answered 409 role_refused, request " in said()


def test_the_script_speaks_http_to_this_machine_past_a_proxy(
    worker: Worker, deputy: Deputy, place: CustomerAccount
):
    """As `make run` serves it."""
    nowhere = "http://127.0.0.1:9"
    env = environment(**worker.profile_with_curl(), http_proxy=nowhere, ALL_PROXY=nowhere)
    for host in ("127.0.0.1", "localhost"):
        done = run(
            worker.home / "deputy-credentials",
            *place.ids,
            env=env | {"DEPUTY_URL": deputy.url.replace("127.0.0.1", host)},
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["AccountId"] == place.customer.account


def test_the_script_sends_the_key_to_other_machines_over_https_only(
    worker: Worker, deputy: Deputy, place: CustomerAccount
):
    """These all lead to the service, as another machine would be out of a test's reach."""
    for host in ("localhost:1@127.0.0.1", "127.0.0.1:1@127.0.0.1", "127.1", "x@127.0.0.1"):
        env = environment(
            **worker.profile_with_curl() | {"DEPUTY_URL": deputy.url.replace("127.0.0.1", host)}
        )
        done = run(worker.home / "deputy-credentials", *place.ids, env=env)
        assert (done.returncode, done.stdout, deputy.requests) == (1, "", []), host
        assert "http" in done.stderr


def test_the_check_before_the_first_write_stops_in_any_other_account(
    aws_cli, worker: Worker, place: CustomerAccount, aws: Sandbox
):
    path = f"{aws_cli.parent}:{os.environ['PATH']}"
    env = environment(AWS_ENDPOINT_URL=aws.url, PATH=path, **worker.profile_with_the_command())
    script = block("sh", "get-caller-identity") + "echo writes\n"

    def wrote(account: str) -> bool:
        return (
            run("sh", "-euc", script, env=env | {"CUSTOMER_ACCOUNT": account}).stdout == "writes\n"
        )

    assert wrote(place.customer.account)
    assert not wrote("555500001111")
    place.admin("/suspend", {"reason": "unpaid"})
    assert not wrote(place.customer.account)


def test_the_aws_cli_and_boto3_stop_at_a_refusal_and_show_why(
    aws_cli, worker: Worker, place: CustomerAccount, aws: Sandbox
):
    place.admin("/suspend", {"reason": "unpaid"})
    for way in (
        worker.profile_with_curl,
        worker.container_variables,
        worker.profile_with_the_command,
    ):
        env = environment(AWS_ENDPOINT_URL=aws.url, **way())
        for words in ([aws_cli, *cli(place)], [sys.executable, "-c", BOTO3, place.bucket]):
            done = run(*words, env=env)
            assert (done.returncode != 0, done.stdout.strip()) == (True, ""), way
            assert "suspended" in done.stderr
            assert secret_of(place.key) not in done.stderr


def test_the_newline_trap(worker: Worker, place: CustomerAccount, deputy: Deputy, aws: Sandbox):
    """The document says what happens; should an SDK begin to strip, the document may say less."""
    worker.key_file.write_text(f"{place.key}\n")
    env = environment(AWS_ENDPOINT_URL=aws.url, **worker.container_variables())
    done = run(sys.executable, "-c", BOTO3, place.bucket, env=env)
    assert "Auth token value is not a legal header value" in done.stderr
    assert deputy.requests == []


def test_the_key_may_stand_in_the_variable(
    worker: Worker, filled_place: CustomerAccount, deputy: Deputy, aws: Sandbox
):
    variables = worker.container_variables()
    del variables["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]
    for token in (filled_place.key, f"Bearer {filled_place.key}"):
        variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = token
        env = environment(AWS_ENDPOINT_URL=aws.url, **variables)
        done = run(sys.executable, "-c", BOTO3, filled_place.bucket, env=env)
        assert done.stdout.strip() == str(PAGES), done.stderr


def test_a_sign_up_service_has_no_key_that_issues(world: World, deputy: Deputy, tmp_path: Path):
    command = block("sh", "keys create --name sign-up").replace("\\\n", "")
    words = shlex.split(command.removeprefix("flask --app wsgi "))
    made = json.loads(world.admin.app.test_cli_runner().invoke(args=[*words, "--json"]).stdout)
    key_file = tmp_path / "sign-up-key"
    key_file.write_text(made["key"])
    program: dict[str, Any] = {}
    # it is ours
    exec(block("python", "def sign_up").replace("/run/secrets/sign-up-key", str(key_file)), program)  # noqa: S102
    link, worker = program["sign_up"]("Acme", "customer-42")
    assert world.admin.with_key(None).raw("GET", urlsplit(link).path).status_code == 200
    (tenant,) = world.admin("GET", "/v1/tenants?reference=customer-42")["items"]
    issue = path_of(world.connection(tenant), "/credentials")
    world.admin.with_key(worker)("POST", issue)
    world.admin.with_key(made["key"]).refused("POST", issue, expect=403, code="forbidden")
