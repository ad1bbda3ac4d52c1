"""The machine of a run, for the report: figures mean nothing without it."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import psycopg

from bench.servers import Workers

_PACKAGES = ("flask", "gunicorn", "gevent", "sqlalchemy", "psycopg", "boto3", "cryptography")


def facts(postgres_url: str, postgres_folder: Path, workers: Workers) -> dict[str, Any]:
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        shown = connection.execute(
            "SELECT name, setting FROM pg_settings"
            " WHERE name IN ('server_version', 'fsync', 'synchronous_commit')"
        ).fetchall()
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu(),
        "load_before": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "postgresql": dict(shown),
        "packages": {name: _version(name) for name in _PACKAGES},
        "workers": f"{workers.workers} of {workers.worker_class}",
        "file_system": file_system(postgres_folder),
    }


def file_system(folder: Path) -> str:
    """Return the type of a folder's file system. On a tmpfs a durable commit would cost nothing."""
    inside = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        point, kind = line.split()[1:3]
        if folder.resolve().is_relative_to(point):
            inside[point] = kind
    return inside[max(inside, key=len)]


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
