"""A pytest plugin: which tests a run has, and their order.

In the whole suite a test runs on the databases that are declared here for its folder. Each of
xdist's workers has a share of the slow tests.
"""

from collections import defaultdict
from pathlib import Path

import pytest

_BOTH = ("sqlite", "postgresql")
# The databases of a folder or a file; the first that matches. `make soak` has the other one.
_DATABASES = {
    **dict.fromkeys(
        (  # where a database's locks and statements are what is tested
            *(
                "identity/",
                "audit/",
                "background/",
                "concurrency/",
                "honesty/",
                "limits/",
                "store/",
            ),
            *("attacks/test_attack_races.py", "issuing/test_other_processes.py"),
            *("connections/test_listing.py", "proofs/test_proof_queue.py"),
        ),
        _BOTH,
    ),
    # SQLite where pages, commands and AWS are what is tested, PostgreSQL where requests are
    **dict.fromkeys(
        (
            "cli/",
            "client/",
            "connections/",
            "diagnosis/",
            "onboarding/",
            "proofs/",
            "rotation/",
            "web/",
        ),
        ("sqlite",),
    ),
    "": ("postgresql",),
}
# Tests that take long or wait for processes and stacks, the longest first.
_WAITING = (
    "model/",
    "honesty/",
    "dev/",
    "client/",
    "web/",
    "onboarding/test_organization",
    "background/",
    "deploy/",
)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config, items):
    """Around pytest's own choice by marks, which must know the ones added here; the order is of
    what it leaves.
    """
    if [Path(argument).name for argument in config.args] == ["tests"]:
        _leave_declared_databases(items)
    yield
    _order(config, items)


def _leave_declared_databases(items):
    """Leave the databases that are not declared for a test to `make soak`, in a run of the whole
    suite.

    What is named on the command line, a test or a folder, runs on both.
    """
    variants = defaultdict(dict)
    for item in items:
        params = [*item.callspec.params.values()] if hasattr(item, "callspec") else []
        for database in _BOTH:
            if database in params:
                variants[item.nodeid.replace(database, "")][database] = item
    for name, items_of in variants.items():
        declared = next(
            databases
            for start, databases in _DATABASES.items()
            if name.startswith(f"tests/{start}")
        )
        for database, item in items_of.items():
            if len(items_of) == len(_BOTH) and database not in declared:
                item.add_marker(pytest.mark.soak)


def _order(config, items):
    """Each of xdist's workers begins with tests that wait for the same processes, which so are
    started once.

    What it has left is taken from the end, so the last tests are short ones.
    """
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    slow = [[] for _ in range(workers)]
    turns = [*slow, *reversed(slow)]  # who has the longest folder has the shortest as well
    others = []
    for item in items:
        place = next(
            (n for n, start in enumerate(_WAITING) if item.nodeid.startswith(f"tests/{start}")),
            None,
        )
        (others if place is None else turns[place % len(turns)]).append(item)
    ordered = []
    for number, first in enumerate(slow, 1):
        ordered += first
        room = max(0, len(items) * number // workers - len(ordered))
        ordered += others[:room]
        del others[:room]
    items[:] = ordered + others
