"""`make mutants`: mutation testing of the modules that decide who gets credentials.

pyproject.toml (`tool.mutmut`) lists the modules and their tests. mutmut changes one thing in one
function, for example an operator, an argument or a string. It runs the tests that reach this
function, and one of them must fail. All mutants would take an hour, so this program draws a sample.
The sample is the same while the code is the same. mutmut's own `run` draws no sample, does not
begin with the fastest tests, and runs all tests once more at its start.
"""

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import redirect_stdout
from math import ceil
from pathlib import Path

from mutmut.__main__ import create_mutants, run_stats_collection
from mutmut.configuration import config
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.stats import load_stats, status_by_exit_code
from mutmut.utils.file_utils import (
    copy_also_copy_files,
    copy_src_dir,
    setup_source_paths,
    walk_mutatable_files,
)
from mutmut.utils.format_utils import mangled_name_from_mutant_name
from mutmut.workers.isolation import MutantRunner, get_mutant_runner

ROOT = Path(__file__).resolve().parent.parent
# mutmut's folder: a copy of the checkout with every mutant in it, and the results.
MUTANTS = ROOT / "mutants"
SAMPLE = 400
GOAL = 95  # per cent
# Imported before the process of each mutant starts, because their import takes seconds. Each
# mutant's process imports app/ and the tests. It also imports pytest's plugins, because pytest
# rewrites no assertions in plugins that are already imported.
PRELOADED = """
alembic.command boto3 botocore.loaders cachetools flask flask_smorest gevent marshmallow
playwright.sync_api prometheus_client psycopg pytest redis sandbox.server sandbox.vendor
sqlalchemy.orm
"""
# This decorator runs before the first test, when views are imported. So its mutants are tested by
# the tests that present a key, and by those that check the views themselves.
DECORATOR = "app.api.kit.authentication.x_requires"
PRESENTING_A_KEY = "app.api.kit.authentication.x__presented_key"
ABOUT_VIEWS = ("tests/api/kit/test_openapi.py", "tests/test_architecture.py")
_NOT_DRAWN, _UNREACHED = 34, 33  # mutmut's exit codes for skipped and for unreached mutants
_KILLED = {"killed", "timeout"}  # timeout: an endless loop, or app/ can't be imported


def main(arguments: list[str]) -> None:
    """Run the mutants. `go-on` resumes an interrupted run, `seed=2` draws another sample."""
    seed = 1
    for argument in arguments:
        if not re.fullmatch("run|go-on|seed=[0-9]+", argument):
            sys.exit(f"make mutants does not know {argument}. ARGS may have: go-on, seed=<number>.")
        if argument.startswith("seed="):
            seed = int(argument.removeprefix("seed="))
    os.chdir(ROOT)
    if "run" in arguments:
        _run()
        return
    if "go-on" not in arguments:
        shutil.rmtree(MUTANTS, ignore_errors=True)
        MUTANTS.mkdir()
        _draw(seed)
    _run_with_databases()
    _report()


def _draw(seed: int) -> None:
    with redirect_stdout(io.StringIO()):
        copy_src_dir()
        copy_also_copy_files()
        create_mutants(1)
    (MUTANTS / "preload").write_text("\n".join(PRELOADED.split()))
    files = _files()
    names: list[str] = []
    for file in files:
        names += file.exit_code_by_key
        file.exit_code_by_key = dict.fromkeys(file.exit_code_by_key, _NOT_DRAWN)
    # a sample, not a secret
    drawn = random.Random(seed).sample(sorted(names), min(SAMPLE, len(names)))  # noqa: S311
    for file in files:
        file.exit_code_by_key |= dict.fromkeys(file.exit_code_by_key.keys() & drawn)
        file.save()
    print(
        f"{len(drawn)} of {len(names)} mutants of {len(files)} modules, drawn with the seed {seed}",
        flush=True,
    )


def _run_with_databases() -> None:
    """Run the mutants with a server that all of them share.

    They run in a separate process, which has imported nothing of app/.
    """
    # Imported lazily, because it imports app/
    from tests.support.databases import begin_run, end_run, new_database  # noqa: PLC0415

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # PostgreSQL is stopped below
    begin_run()
    try:
        with new_database():
            pass
        command = [sys.executable, "-m", "dev.mutants", "run"]
        if subprocess.run(command, check=False).returncode:
            sys.exit(
                "It stopped. If the tests do not pass without a mutant, see why: cd mutants;"
                " pytest …"
            )
    finally:
        end_run()


def _run() -> None:
    setup_source_paths()
    runner = get_mutant_runner(os.cpu_count() or 1)
    if not load_stats():
        with redirect_stdout(io.StringIO()):
            # This runs the tests, which must pass, and records what each test reaches
            run_stats_collection(runner)
    set_mutant_under_test("")
    files = {}
    for file in _files():
        for name, code in file.exit_code_by_key.items():
            if code is None:
                files[name] = file
    runner.startup()
    durations = state().duration_by_test
    runner.submit("nothing", [min(durations, key=durations.__getitem__)], 300, 0)
    if runner.wait_for_result().exit_code != 0:
        sys.exit("A test fails though nothing was changed.")
    # In random order, so that an interrupted run is a smaller sample
    for name in random.Random(1).sample(sorted(files), len(files)):  # noqa: S311
        _submit(runner, files, name)
    runner.signal_work_complete()
    while runner.pending_count():
        _note(runner, files)
    runner.shutdown()


def _submit(runner: MutantRunner, files: dict[str, SourceFileMutationData], name: str) -> None:
    function, durations = mangled_name_from_mutant_name(name), state().duration_by_test
    reaching = state().tests_by_mangled_function_name
    tests = reaching.get(function, set())
    if function == DECORATOR:
        about_views = {test for test in durations if test.startswith(ABOUT_VIEWS)}
        tests = reaching[PRESENTING_A_KEY] | about_views
    if not tests:
        _record(files[name], name, _UNREACHED)
        return
    seconds = sum(map(durations.__getitem__, tests))
    while not runner.has_capacity():
        _note(runner, files)
    limit = ceil((seconds + config().timeout_constant) * config().timeout_multiplier * 2)
    runner.submit(name, sorted(tests, key=durations.__getitem__), limit, seconds)


def _note(runner: MutantRunner, files: dict[str, SourceFileMutationData]) -> None:
    result = runner.wait_for_result()
    _record(files[result.mutant_name], result.mutant_name, result.exit_code)
    if status_by_exit_code[result.exit_code] not in _KILLED:
        print(f"{status_by_exit_code[result.exit_code]}: {result.mutant_name}", flush=True)


def _record(file: SourceFileMutationData, name: str, exit_code: int) -> None:
    file.exit_code_by_key[name] = exit_code
    file.save()


def _report() -> None:
    counts: dict[Path, Counter[str]] = {}
    for file in _files():
        path = Path(file.path)
        for name, code in file.exit_code_by_key.items():
            status = status_by_exit_code[code]
            if code in {_NOT_DRAWN, None}:
                continue
            counts.setdefault(path, Counter())[status] += 1
            if status not in _KILLED:
                print(f"\n{status}: {name}\n{get_diff_for_mutant(name, path=path)}")
    print()
    total = Counter[str]()
    for path, statuses in counts.items():
        _print_score(str(path), statuses)
        total += statuses
    if _print_score("all", total) < GOAL:
        sys.exit(f"Less than {GOAL} % were killed.")


def _print_score(name: str, statuses: Counter[str]) -> float:
    killed = statuses["killed"] + statuses["timeout"]
    score = 100 * killed / statuses.total()
    print(f"{name}: {killed} of {statuses.total()} killed, {score:.1f} %; {json.dumps(statuses)}")
    return score


def _files() -> list[SourceFileMutationData]:
    files = [SourceFileMutationData(path=path) for path in sorted(walk_mutatable_files())]
    for file in files:
        file.load()
    return files


if __name__ == "__main__":
    main(sys.argv[1:])
