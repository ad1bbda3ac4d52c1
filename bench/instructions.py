"""The number of instructions of one hot request in a web process, counted by callgrind.

On a busy machine counts repeat to 0.1 %, and times do not. So a commit that costs 2 % is
detectable. The counts exclude system calls and PostgreSQL's own work.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

from bench.client import BenchError
from bench.servers import HOME, Checkout
from bench.stage import Populated, Stage

_TIMES = 40  # requests of each client
_CLIENTS = 16
_NO_VALGRIND = (
    "Counting instructions needs valgrind, which is not on PATH. Install it:\n"
    "  Debian, Ubuntu   apt-get install valgrind\n"
    "  Fedora           dnf install valgrind"
)


def measure(stage: Stage) -> None:
    if not shutil.which("valgrind"):
        raise BenchError(_NO_VALGRIND)
    own = count(stage, stage.on_postgres)
    facts = {"here": own}
    if stage.against:
        before = count(stage, stage.at_other_commit)
        facts |= {f"at {stage.against}": before, "here / there": own / before}
    stage.findings.facts["instructions of one hot request, thousands"] = facts


def count(stage: Stage, populated: Populated) -> float:
    """Return the thousands of instructions of one request."""
    server = populated.server
    stage.say(f"instructions: {server.name} below callgrind")
    questions = [
        {"path": place.credentials, "key": place.key} for place in populated.places[:_CLIENTS]
    ]
    given = json.dumps({"questions": questions, "times": _TIMES})
    # Metrics are in files, as in web processes, which share them.
    environment = {
        **server.environment,
        "PROMETHEUS_MULTIPROC_DIR": str(stage.folder),
        "PYTHONHASHSEED": "0",
    }
    return _collected(server.checkout, environment, given) / (_TIMES * len(questions)) / 1000


def _collected(checkout: Checkout, environment: dict[str, str], given: str) -> int:
    """Run the web process under callgrind, and return the instructions that it counted."""
    profile = HOME / "callgrind.out"  # for callgrind_annotate
    command = [
        "valgrind",
        "--tool=callgrind",
        "--instr-atstart=no",
        f"--callgrind-out-file={profile}",
    ]
    command += [checkout.python, str(Path(__file__).with_name("hot_request.py"))]
    path = {"PYTHONPATH": str(checkout.root)}
    done = subprocess.run(
        command,
        cwd=checkout.root,
        env=environment | path,
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    counted = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or counted is None:
        raise BenchError(f"Counting instructions failed:\n{done.stderr.strip()[-2000:]}")
    return int(counted[1])
