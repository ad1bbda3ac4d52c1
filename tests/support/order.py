"""A pytest plugin: the order of a run's tests. Each of xdist's workers has a share of the slow
ones.
"""

import pytest

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


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
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
