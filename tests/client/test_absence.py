"""Deputy is away for ten minutes, and no call fails in a program whose session has at least 21
minutes left.

docs/workers.md has the table: the least life that a session needs for that, by SDK and way. An SDK
that refuses to use the last N seconds of a session needs ten minutes and N. Here Deputy goes,
simulated time passes, and each program calls AWS at each step until its SDK gives up.
"""

import os
import re
import time
from contextlib import ExitStack
from datetime import datetime
from itertools import pairwise
from types import SimpleNamespace

import pytest

from app.clock import now
from dev.stack import ONLY_THESE_CREDENTIALS
from sandbox.vendor import VENDOR_ACCOUNT
from tests.client.absence import (
    HeldAws,
    Programs,
    cli_programs,
    javascript_programs,
    last_calls,
    python_programs,
)
from tests.client.javascript_sdks import SOURCE
from tests.client.people import DOCUMENT, Ways, served
from tests.honesty.deployment import Deployment
from tests.support.node import installed
from tests.support.waiting import until

LEFT = 21 * 60
STEPS = [LEFT, 615, 595, 310, 295, 25, 10, -3]  # seconds left: around what SDKs refuse to use
AFTER = dict(pairwise(STEPS))  # the step at which a program failed, by the last that it passed


def languages(ways, request):
    """Return those of both languages, whose retries take real time beside each other."""
    return [*python_programs(ways), *javascript(ways, request)]


def javascript(ways, request):
    return javascript_programs(ways, installed(SOURCE, request.config.cache.mkdir("javascript")))


def cli(ways, _request):
    ways.place.fill(len(STEPS) + 1)
    return cli_programs(ways)


@pytest.mark.parametrize("kind", [languages, pytest.param(cli, marks=pytest.mark.soak)])
def test_a_program_goes_on_as_long_as_the_table_says(kind, request, tmp_path, place):
    aws, worker = HeldAws(place.world.aws), place.world.admin.with_key(place.key)
    with ExitStack() as deputy, ExitStack() as stack:
        url = f"http://127.0.0.1:{deputy.enter_context(served(worker.app))}"
        aws_url = f"http://localhost:{stack.enter_context(served(aws))}"
        programs = Programs(tmp_path, kind(Ways(tmp_path, place, url), request), aws_url)
        path = f"/v1/tenants/{place.ids[0]}/connections/{place.ids[1]}/credentials"
        ends_at = datetime.fromisoformat(
            worker("POST", path)["Expiration"]
        ).timestamp()  # all get this session
        stack.enter_context(programs)
        stack.callback(aws.answer)  # no thread of AWS's shall wait for those that are killed
        last = last_calls(programs, aws, ends_at, STEPS, deputy.close)
        said = {name: programs.said(name) for name in programs.clocks}
    for name, text in said.items():
        assert last[name] <= LEFT - 600, f"{name} did not outlast ten minutes: {text}"
        assert AFTER[last[name]] < table()[name] - 600 <= last[name], (
            f"{name} made its last call at {last[name]}: {text}"
        )


class PacedAws:
    """The sandbox's AWS, where each call takes a second."""

    def __init__(self, aws):
        self._aws = aws
        self.calls = 0

    def __call__(self, environ, start_response):
        self.calls += 1
        time.sleep(1)
        return self._aws(environ, start_response)


def as_the_broker(aws):
    """The environment of a deployment's processes."""
    names = (
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        *ONLY_THESE_CREDENTIALS,
    )
    return SimpleNamespace(environment={name: os.environ[name] for name in names}, url=aws.url)


@pytest.mark.soak
def test_ten_minutes_without_any_process_of_deputy(request, tmp_path, place):
    """Ten real minutes, in which programs of every kind call AWS each second, with 21 minutes
    left at the beginning.
    """
    aws, app = PacedAws(place.world.aws), place.world.admin.app
    place.fill(720)
    url = str(app.extensions["deputy"].db.engine.url)
    broker = f"arn:aws:iam::{VENDOR_ACCOUNT}:role/DeputyBroker"
    with ExitStack() as stack:
        deputy = Deployment(
            tmp_path, url, as_the_broker(place.world.aws), BROKER_PRINCIPAL_ARN=broker
        )
        stack.enter_context(deputy)
        ways = Ways(tmp_path, place, f"http://127.0.0.1:{deputy.port}")
        programs = [*languages(ways, request), *cli_programs(ways)]
        running = Programs(
            tmp_path, programs, f"http://localhost:{stack.enter_context(served(aws))}"
        )
        ends_at = datetime.fromisoformat(
            deputy.admin.ask(
                "POST",
                f"/v1/tenants/{place.ids[0]}/connections/{place.ids[1]}/credentials",
                {},
                key=place.key,
            ).json["Expiration"]
        ).timestamp()
        stack.enter_context(running)
        until(lambda: aws.calls > 4 * len(programs), "every program calls")
        running.clock.advance(ends_at - now().timestamp() - LEFT)
        deputy.kill()
        before = aws.calls
        time.sleep(600)
        failed = {
            program.name: running.said(program.name)
            for program in programs
            if program.name not in running.running
        }
        assert failed == {}
        assert aws.calls - before > 450 * len(programs)
        deputy.start()
        time.sleep(30)
        assert len(running.running) == len(programs)


def table():
    """docs/workers.md: the least life in seconds, by program."""
    lines = DOCUMENT.split("## When Deputy is away")[1].split("\n## ")[0].splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("| ")
    ][1:]
    needs = {
        (sdk, way): cell
        for sdk, _, *cells in rows
        for way, cell in zip(("process", "container"), cells, strict=True)
    }
    return {
        f"{sdk.strip('`')}, {way}": _seconds(cell) for (sdk, way), cell in needs.items() if cell
    }


def _seconds(text):
    minutes, seconds = re.fullmatch(r"(\d+) min(?: (\d+) s)?", text).groups()
    return int(minutes) * 60 + int(seconds or 0)
