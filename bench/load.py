"""Load from wrk, which sends given requests in turn to one server of this machine."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.client import BenchError
from bench.servers import HOME

CONNECTIONS = 32
_DEBIAN = ("wrk", "libluajit-5.1-2", "libluajit-5.1-common")
_NO_WRK = (
    "The bench needs wrk. It is not on PATH, and apt-get could not install it. Install it:\n"
    "  Debian, Ubuntu   apt-get install wrk\n"
    "  Fedora           dnf install wrk\n"
    "  macOS            brew install wrk"
)


@dataclass(frozen=True, slots=True)
class Question:
    method: str
    path: str
    key: str = ""
    body: str = ""


@dataclass(frozen=True, slots=True)
class Answers:
    """The results of wrk. `sent` minus `answered` is the number of requests in flight."""

    answered: int
    sent: int
    seconds: float
    p50_us: float
    p99_us: float
    refused: int  # answers of status 400 and above
    lost: int  # connections refused or cut, and answers that took longer than 5 s

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds


class Timeline(NamedTuple):
    """Answers with status 200 in each tenth of a second, and the longest wait in seconds."""

    answered: list[int]
    longest: float
    refused: int


class Wrk:
    """The load generator: wrk on PATH, or Debian's, unpacked into .bench/ without installation."""

    def __init__(self) -> None:
        self._command, self._env = _find()
        self.name = self._command[0]
        self._folder = HOME / "wrk-scripts"
        self._folder.mkdir(parents=True, exist_ok=True)
        for name, script in (("ask", _SCRIPT + _DONE), ("watch", _SCRIPT + _WATCH)):
            (self._folder / f"{name}.lua").write_text(script)

    def ask(
        self,
        port: int,
        questions: Sequence[Question],
        seconds: int,
        *,
        connections: int = CONNECTIONS,
        once: bool = False,
    ) -> Answers:
        """Send these requests repeatedly, or each at most once with `once`.

        With `once`, raises BenchError if there are too few of them.
        """
        answers = Answers(**self._run("ask", port, questions, seconds, connections))
        if once and answers.sent > len(questions):
            raise BenchError(
                f"{answers.sent} questions were asked, of {len(questions)} that may be asked once."
            )
        return answers

    def watch(
        self, port: int, questions: Sequence[Question], seconds: int, connections: int
    ) -> Timeline:
        """Send these requests repeatedly, and count the answers in each tenth of a second."""
        counted = self._run("watch", port, questions, seconds, connections)
        return Timeline(counted["answered"], counted["longest"], counted["refused"])

    def _run(
        self, script: str, port: int, questions: Sequence[Question], seconds: int, connections: int
    ) -> dict[str, Any]:
        listed = self._folder / "questions.tsv"
        listed.write_text("".join(f"{q.method}\t{q.path}\t{q.key}\t{q.body}\n" for q in questions))
        command = [
            *self._command,
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--timeout",
            "5s",
            "--latency",
        ]
        command += [
            "-s",
            str(self._folder / f"{script}.lua"),
            f"http://127.0.0.1:{port}",
            "--",
            str(listed),
        ]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, check=False)
        _, marker, output = done.stdout.partition("BENCH ")
        if done.returncode or not marker:
            raise BenchError(f"wrk failed: {done.stderr or done.stdout}")
        result: dict[str, Any] = json.loads(output.splitlines()[0])
        return result


def _find() -> tuple[list[str], dict[str, str] | None]:
    """Return the command, and the environment that it needs (None: the bench's own)."""
    if path := shutil.which("wrk"):
        return [path], None
    unpacked = HOME / "wrk"
    if not (unpacked / "usr/bin/wrk").exists():
        _unpack(unpacked)
    libraries = ":".join(str(folder) for folder in unpacked.glob("usr/lib/*") if folder.is_dir())
    command, env = [str(unpacked / "usr/bin/wrk")], {"LD_LIBRARY_PATH": libraries}
    try:
        version = subprocess.run(
            [*command, "-v"], env=env, capture_output=True, text=True, check=False
        ).stdout
    except OSError as error:
        raise BenchError(_NO_WRK) from error
    if "wrk" not in version:
        raise BenchError(_NO_WRK)
    return command, env


def _unpack(into: Path) -> None:
    """Download and unpack Debian's packages without root. They are not installed."""
    folder = HOME / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(
            ["apt-get", "download", "-qq", *_DEBIAN], cwd=folder, capture_output=True, check=True
        )
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(into)], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchError(_NO_WRK) from error


# With one thread Lua has one state, so a plain counter selects the next request. Requests are
# formatted before the load starts, because the generator shares the machine with the server and
# must be cheap.
_SCRIPT = """
local asked = {}
local thread_of_it
sent = 0

function setup(thread) thread_of_it = thread end

function init(args)
  for line in io.lines(args[1]) do
    local method, path, key, body = line:match("^(.-)\\t(.-)\\t(.-)\\t(.*)$")
    local headers = {}
    if key ~= "" then headers["Authorization"] = "Bearer " .. key end
    if body ~= "" then headers["Content-Type"] = "application/json" end
    if body == "" then body = nil end
    if method == "POST" and body == nil then headers["Content-Length"] = "0" end
    asked[#asked + 1] = wrk.format(method, path, headers, body)
  end
end

function request()
  sent = sent + 1
  return asked[(sent - 1) % #asked + 1]
end
"""
_DONE = """
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'BENCH {"answered": %d, "sent": %d, "seconds": %f, "p50_us": %f, "p99_us": %f, ' ..
    '"refused": %d, "lost": %d}\\n',
    summary.requests, thread_of_it:get("sent"), summary.duration / 1e6, latency:percentile(50),
    latency:percentile(99), e.status, e.connect + e.read + e.write + e.timeout))
end
"""
# wrk's own median hides a pause of three seconds. So this records the longest wait, and the answers
# in each tenth of a second.
_WATCH = """
local ffi = require("ffi")
ffi.cdef("typedef struct { long s; long us; } tv; int gettimeofday(tv *t, void *zone);")
local clock = ffi.new("tv")
answered, refused = {}, 0
local began

local function now()
  ffi.C.gettimeofday(clock, nil)
  return tonumber(clock.s) + tonumber(clock.us) / 1e6
end

function response(status, headers, body)
  began = began or now()
  if status ~= 200 then refused = refused + 1 return end
  local tenth = math.floor((now() - began) * 10) + 1
  answered[tenth] = (answered[tenth] or 0) + 1
end

function done(summary, latency, requests)
  local counts, tenths = thread_of_it:get("answered"), {}
  for n = 1, math.floor(summary.duration / 1e5) do tenths[n] = counts[n] or 0 end
  io.write(string.format('BENCH {"answered": [%s], "longest": %f, "refused": %d}\\n',
    table.concat(tenths, ", "), latency.max / 1e6, thread_of_it:get("refused")))
end
"""
