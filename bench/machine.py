"""The machine of a run, for the report: figures mean nothing without it."""

import importlib.metadata
import os
import platform
import sqlite3
from pathlib import Path
from typing import Any

import psycopg

from bench.servers import HOME, Workers

_PACKAGES = ("flask", "gunicorn", "gevent", "sqlalchemy", "psycopg", "boto3", "cryptography")


def facts(postgres_url: str, postgres_folder: Path, workers: Workers) -> dict[str, Any]:
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        shown = {
            name: connection.execute(f"SHOW {name}").fetchone()
            for name in ("server_version", "fsync", "synchronous_commit")
        }
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu(),
        "load_before": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "postgresql": {name: row[0] if row else None for name, row in shown.items()},
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "workers": f"{workers.workers} of {workers.worker_class}",
        "file_systems": {"postgresql": file_system(postgres_folder), "sqlite": file_system(HOME)},
    }


def file_system(folder: Path) -> str:
    """Return the type of a folder's file system. On a tmpfs a durable commit would cost nothing."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [(point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(inside, key=lambda mount: len(mount[0]))[1]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
