"""A pytest plugin: which tests a run has, and their order.

In the whole suite most tests run on one of the two databases, and each of xdist's workers has a share of the slow ones.
"""

import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

# Where a database's locks and statements are what is tested, each test runs on both.
_ON_BOTH = (
    *("tests/access/", "tests/audit/", "tests/background/", "tests/concurrency/", "tests/honesty/", "tests/limits/"),
    *("tests/store/", "tests/attacks/test_attack_races.py", "tests/issuing/test_other_processes.py"),
    *("tests/connections/test_listing.py", "tests/connections/test_proof_queue.py"),
)
# Tests that take long or wait for processes and stacks, the longest first.
_WAITING = ("model/", "honesty/", "dev/", "client/", "web/", "onboarding/test_organization", "background/", "deploy/")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Around pytest's own choice by marks, which must know the ones added here; the order is of what it leaves."""
    if [Path(argument).name for argument in config.args] == ["tests"]:
        _share_out_databases(items)
    yield
    _order(config, items)


def _share_out_databases(items: list[pytest.Item]) -> None:
    """In the whole suite most tests run on one database, by their name: half of them on each, the rest in `make soak`.

    What is named on the command line, a test or a folder, runs on both.
    """
    both: dict[str, dict[str, pytest.Item]] = defaultdict(dict)
    for item in items:
        params = item.callspec.params.values() if hasattr(item, "callspec") else ()
        for engine in {"sqlite", "postgresql"}.intersection(value for value in params if isinstance(value, str)):
            if not item.nodeid.startswith(_ON_BOTH):
                both[item.nodeid.replace(engine, "")][engine] = item
    for name, variants in both.items():
        if len(variants) == 2:
            other = ("sqlite", "postgresql")[zlib.crc32(name.encode()) % 2]
            variants[other].add_marker(pytest.mark.soak)


def _order(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each of xdist's workers begins with tests that wait for the same processes, which so are started once.

    What it has left is taken from the end, so the last tests are short ones.
    """
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    slow: list[list[pytest.Item]] = [[] for _ in range(workers)]
    turns = [*slow, *reversed(slow)]  # who has the longest folder has the shortest as well
    others: list[pytest.Item] = []
    for item in items:
        place = next((n for n, start in enumerate(_WAITING) if item.nodeid.startswith(f"tests/{start}")), None)
        (others if place is None else turns[place % len(turns)]).append(item)
    ordered: list[pytest.Item] = []
    for number, first in enumerate(slow, 1):
        ordered += first
        room = max(0, len(items) * number // workers - len(ordered))
        ordered += others[:room]
        del others[:room]
    items[:] = ordered + others
