"""Reads the CPU time of processes from the Linux scheduler, and pins processes to cores."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path


def family(pid: int | None) -> list[int]:
    """Return the process and its descendants, or an empty list for None."""
    if pid is None:
        return []
    pids = [pid]
    for task in _tasks(pid):
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                pids += family(int(child))
    return pids


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def seconds(pids: Iterable[int]) -> float:
    """Return the CPU time of these processes so far, in seconds, summed over their threads."""
    total = 0
    for pid in pids:
        for task in _tasks(pid):
            with contextlib.suppress(OSError):  # a thread that ended meanwhile
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def keep_on(cores: Iterable[int], pids: Iterable[int]) -> None:
    """Pin these processes, with all their threads, to these cores. Their children inherit that."""
    for pid in pids:
        for task in _tasks(pid):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), cores)


def _tasks(pid: int) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(Path(f"/proc/{pid}/task").iterdir())
    return []
