"""Programs that hold a session and call AWS again and again, in step, while Deputy is away."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from app.clock import now
from tests.client.javascript_sdks import SOURCE
from tests.client.people import CLIENT, Clock, beside_python, environment
from tests.support.node import NODE
from tests.support.waiting import until

CLOCK = Path(__file__).parent / "clock"
BOTO3 = "import boto3, sys\nsts = boto3.client('sts')\nwhile True:\n    sts.get_caller_identity()\n"
CLIENTS = BOTO3.replace("import boto3", "import deputy_client").replace(
    "boto3.", "deputy_client.session(*sys.argv[1:])."
)


class HeldAws:
    """The sandbox's AWS. It holds its answers until it is told to give them: so its callers go
    step by step.
    """

    def __init__(self, aws):
        self._aws = aws
        self._turn = threading.Condition()
        self._turns = 0
        self.held = 0

    def __call__(self, environ, start_response):
        began = []
        body = b"".join(self._aws(environ, lambda *given, **_: began.extend(given)))
        with self._turn:
            self.held += 1
            mine = self._turns
            assert self._turn.wait_for(lambda: self._turns > mine, 120)
        start_response(*began)
        return [body]

    def answer(self):
        with self._turn:
            self.held = 0
            self._turns += 1
            self._turn.notify_all()


@dataclass(frozen=True)
class Program:
    """Its name is "SDK, way", as docs/workers.md has them."""

    name: str
    words: tuple
    variables: dict


class Programs:
    """They run as long as the `with` lasts, each with a clock of its own to follow."""

    def __init__(self, home, programs, aws_url):
        self.clocks = {
            program.name: home / f"clock-{number}" for number, program in enumerate(programs)
        }
        self._programs = programs
        self._aws_url = aws_url

    def __enter__(self):
        self._stack = ExitStack()
        for folder in self.clocks.values():
            folder.mkdir()
        self.clock = self._stack.enter_context(Clock(*self.clocks.values()))
        self._running = {program.name: self._started(program) for program in self._programs}
        return self

    def __exit__(self, *_):
        self._stack.close()

    @property
    def running(self):
        return {name for name, process in self._running.items() if process.poll() is None}

    def runs(self, clock):
        return any(self.clocks[name] == clock for name in self.running)

    def said(self, name):
        return self._log(name).read_text()

    def _log(self, name):
        return self.clocks[name].with_suffix(".log")

    def _started(self, program):
        clock = self.clocks[program.name]
        env = environment(
            AWS_ENDPOINT_URL=self._aws_url,
            TEST_CLOCK=str(clock),
            PYTHONPATH=f"{CLOCK}:{CLIENT}",
            NODE_OPTIONS=f"--require {CLOCK / 'clock.cjs'}",
            **program.variables,
        )
        with self._log(program.name).open("wb") as output:
            process = subprocess.Popen(
                program.words,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._stack.callback(process.wait)
        self._stack.callback(
            lambda: process.poll() is None and os.killpg(process.pid, signal.SIGKILL)
        )
        return process


def python_programs(ways):
    boto3 = (sys.executable, "-c", BOTO3)
    return [
        Program("boto3, process", boto3, ways.process()),
        Program("boto3, container", boto3, ways.container()),
        Program(
            "deputy_client.session, process",
            (sys.executable, "-c", CLIENTS, *ways.place.ids),
            ways.client(),
        ),
    ]


def cli_programs(ways):
    """One command that goes through a bucket, page by page."""
    words = (
        "s3api",
        "list-objects-v2",
        "--bucket",
        ways.place.bucket,
        "--page-size",
        "1",
        "--query",
        "length(Contents)",
    )
    command = (beside_python("aws"), *words)
    return [
        Program("AWS CLI, process", command, ways.process()),
        Program("AWS CLI, container", command, ways.container()),
    ]


def javascript_programs(ways, node_home):
    node = {"NODE_PATH": str(node_home / "node_modules"), "AWS_SDK_LOAD_CONFIG": "1"}
    node["AWS_SDK_JS_SUPPRESS_MAINTENANCE_MODE_MESSAGE"] = "1"
    calls = (NODE, SOURCE / "calls.cjs")
    return [
        Program("JavaScript v3, process", (*calls, "fromProcess"), node | ways.process()),
        Program("JavaScript v3, container", (*calls, "fromHttp"), node | ways.container()),
        Program("JavaScript v2, process", (*calls, "v2"), node | ways.process()),
        Program("JavaScript v2, container", (*calls, "v2"), node | ways.container()),
    ]


def last_calls(programs, aws, ends_at, steps, go):
    """With how many seconds left each program made its last call. At the first step Deputy goes."""
    last = {}
    for left in steps:
        until(lambda: aws.held >= len(programs.running), "every program calls")
        programs.clock.advance(ends_at - now().timestamp() - left, programs.runs)
        if left == steps[0]:
            go()
        aws.answer()
        until(lambda: aws.held >= len(programs.running), "every program calls, or fails")
        last |= dict.fromkeys(programs.running, left)
    return last
