"""Waiting for a condition: tests never wait a fixed time for something to have happened."""

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 120.0  # seconds; a machine may stall for several of them


def until(truth: Callable[[], Any], what: str = "it", seconds: float = PATIENCE) -> Any:
    """What `truth` returns once it is true. Fails when that takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := truth()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.005)
    return found
