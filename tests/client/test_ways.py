"""docs/workers.md, word for word: its script, its profile and its variables, with the real AWS CLI,
boto3 and curl.

A worker of each kind is one process that lists a bucket page by page. Each page takes ten minutes
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
from urllib.parse import urlsplit

import pytest

from tests.client.people import (
    CLIENT,
    Clock,
    CustomerAccount,
    TickingAws,
    Ways,
    beside_python,
    block,
    environment,
    run,
    secret_of,
    served,
)
from tests.support.cast import path_of

PAGES = 12  # two hours, on sessions of one
PAGE_SECONDS = 600
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
def filled_place(place) -> CustomerAccount:
    """With a bucket of so many pages."""
    place.fill(PAGES)
    return place


class Worker(Ways):
    """With the document's script too, which speaks TLS."""

    def __init__(self, home, place, deputy, secure):
        super().__init__(home, place, deputy.url)
        self._secure = secure

    def curl(self):
        script = self.home / "deputy-credentials"
        script.write_text(block("sh", "#!/bin/sh"))
        script.chmod(0o700)
        text = self.filled_in(block("ini", "[profile acme]"))
        return {
            **self.profile("acme", text.replace("/opt/deputy/deputy-credentials", str(script))),
            "DEPUTY_URL": self._secure.url,
            "DEPUTY_API_KEY_FILE": str(self.key_file),
            "CURL_CA_BUNDLE": str(self._secure.ca),
        }


@pytest.fixture
def worker(tmp_path, place, deputy, secure) -> Worker:
    return Worker(tmp_path, place, deputy, secure)


@pytest.fixture
def hours(tmp_path, aws) -> Iterator[tuple[TickingAws, dict[str, str]]]:
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


each_way = pytest.mark.parametrize("way", ["curl", "process", "container", "client"])


def program(way, place):
    """Return one for each way. The AWS CLI and boto3 have the same code for credentials."""
    if way == "curl":
        words = ("s3api", "list-objects-v2", "--bucket", place.bucket, "--page-size", "1")
        return [beside_python("aws"), *words, "--query", "length(Contents)", "--output", "json"]
    if way == "client":
        return [sys.executable, "-c", CLIENTS, place.bucket, *place.ids]
    return [sys.executable, "-c", BOTO3, place.bucket]


def assert_two_hours_of_sessions(done, aws, deputy):
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(PAGES), done.stdout
    assert [answer for _, _, answer in aws.seen] == [200] * PAGES
    used = {}
    for when, key, _ in aws.seen:
        used.setdefault(key, []).append(when)
    assert 3 <= len(used) <= 4, used
    assert all(times[-1] - times[0] < 3600 for times in used.values())
    assert len(deputy.requests) == len(used)


@each_way
def test_a_program_runs_for_hours(worker, filled_place, deputy, hours, way):
    aws, there = hours
    env = environment(**there, **getattr(worker, way)())
    assert_two_hours_of_sessions(run(*program(way, filled_place), env=env), aws, deputy)


@each_way
def test_a_program_stops_at_a_refusal_and_shows_why(worker, place, aws, way):
    place.admin("/suspend", {"reason": "unpaid"})
    env = environment(AWS_ENDPOINT_URL=aws.url, **getattr(worker, way)())
    done = run(*program(way, place), env=env)
    assert done.returncode != 0
    assert done.stdout.strip() == ""
    assert "uspended" in done.stderr
    assert secret_of(place.key) not in done.stderr


def test_the_script_tries_again_and_prints_one_answer(worker, deputy, place):
    deputy.answer_first((503, {"Retry-After": "1", "Content-Length": "2"}, b"{}"))
    done = run(worker.home / "deputy-credentials", *place.ids, env=environment(**worker.curl()))
    assert done.returncode == 0
    assert json.loads(done.stdout)["Version"] == 1
    assert len(deputy.requests) == 2


def test_the_script_tells_one_refusal_from_another_without_a_secret(worker, deputy, place):
    env = environment(**worker.curl())

    def said(connection):
        done = run(worker.home / "deputy-credentials", place.ids[0], connection, env=env)
        assert done.returncode == 22
        assert done.stdout == ""
        assert place.key not in done.stderr
        return done.stderr

    assert "Deputy answered 404 not_found, request " in said(place.ids[0])
    place.open_the_role()
    place.admin("/verify")
    assert "Deputy answered 409 connection_not_verified, request " in said(place.ids[1])
    place.admin("/suspend", {"reason": "unpaid"})
    assert "Deputy answered 409 suspended, request " in said(place.ids[1])


def test_the_script_speaks_http_to_this_machine_past_a_proxy(worker, deputy, place):
    """As `make run` serves it."""
    nowhere = "http://127.0.0.1:9"
    env = environment(**worker.curl(), http_proxy=nowhere, ALL_PROXY=nowhere)
    for host in ("127.0.0.1", "localhost"):
        done = run(
            worker.home / "deputy-credentials",
            *place.ids,
            env=env | {"DEPUTY_URL": deputy.url.replace("127.0.0.1", host)},
        )
        assert done.returncode == 0
        assert done.stderr == ""
        assert json.loads(done.stdout)["AccountId"] == place.customer.account


def test_the_script_sends_the_key_to_other_machines_over_https_only(worker, deputy, place):
    """These all lead to the service, as another machine would be out of a test's reach."""
    for host in ("localhost:1@127.0.0.1", "127.0.0.1:1@127.0.0.1", "127.1", "x@127.0.0.1"):
        env = environment(**worker.curl() | {"DEPUTY_URL": deputy.url.replace("127.0.0.1", host)})
        done = run(worker.home / "deputy-credentials", *place.ids, env=env)
        assert done.returncode == 1, host
        assert done.stdout == "", host
        assert deputy.requests == [], host
        assert "http" in done.stderr


def test_the_check_before_the_first_write_stops_in_any_other_account(worker, place, aws):
    path = f"{beside_python('aws').parent}:{os.environ['PATH']}"
    env = environment(AWS_ENDPOINT_URL=aws.url, PATH=path, **worker.process())
    script = block("sh", "get-caller-identity") + "echo writes\n"

    def wrote(account):
        done = run("sh", "-euc", script, env=env | {"CUSTOMER_ACCOUNT": account})
        return done.stdout == "writes\n"

    assert wrote(place.customer.account)
    assert not wrote("555500001111")


def test_the_newline_trap(worker, place, deputy, aws):
    """The document says what happens; should an SDK begin to strip, the document may say less."""
    worker.key_file.write_text(f"{place.key}\n")
    env = environment(AWS_ENDPOINT_URL=aws.url, **worker.container())
    done = run(sys.executable, "-c", BOTO3, place.bucket, env=env)
    assert "Auth token value is not a legal header value" in done.stderr
    assert deputy.requests == []


def test_the_key_may_stand_in_the_variable(worker, place, aws):
    """JavaScript's SDK takes it without "Bearer" (test_javascript.py)."""
    variables = worker.container()
    del variables["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]
    variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = f"Bearer {place.key}"
    env = environment(AWS_ENDPOINT_URL=aws.url, **variables)
    place.fill(1)
    done = run(*program("container", place), env=env)
    assert done.stdout.strip() == "1", done.stderr


def test_a_sign_up_service_has_no_key_that_issues(world, deputy, tmp_path):
    command = block("sh", "keys create --name sign-up").replace("\\\n", "")
    words = shlex.split(command.removeprefix("flask --app wsgi "))
    made = json.loads(world.admin.app.test_cli_runner().invoke(args=[*words, "--json"]).stdout)
    key_file = tmp_path / "sign-up-key"
    key_file.write_text(made["key"])
    program = {}
    # it is ours
    exec(block("python", "def sign_up").replace("/run/secrets/sign-up-key", str(key_file)), program)  # noqa: S102
    for _ in range(2):  # the answer to the first one was lost
        link, worker = program["sign_up"]("Acme", "customer-42", "attempt-1")
    assert world.admin.with_key(None).raw("GET", urlsplit(link).path).status_code == 200
    (tenant,) = world.admin("GET", "/v1/tenants?reference=customer-42")["items"]
    issue = path_of(world.connection(tenant), "/credentials")
    world.admin.with_key(worker)("POST", issue)
    world.admin.with_key(made["key"]).refused("POST", issue, expect=403, code="forbidden")
