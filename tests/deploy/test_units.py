"""deploy/systemd/: the units' commands, started in the guide's order with what systemd would
give each of them.
"""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import requests

from dev.ports import free_port
from dev.postgres import Postgres
from dev.stack import ROOT, end_process
from tests.deploy.compose import BROKERS, make_roles
from tests.deploy.conftest import commands, of_gunicorn, open_folder
from tests.support.waiting import until

UNITS = {path.stem: path.read_text() for path in sorted((ROOT / "deploy" / "systemd").iterdir())}


def values(unit, name):
    return re.findall(rf"^{name}=(.*)$", UNITS[unit], re.MULTILINE)


PUBLISH = ["flask", "--app", "wsgi", "templates", "publish"]


def steps(name):
    """Return the units that the guide's commands start, restart or reload, and "publish", in their
    order.
    """
    found = []
    for line in commands(name).splitlines():
        match shlex.split(line):
            case ["systemctl", "start" | "restart" | "reload", *units]:
                found += units
            case ["systemctl", "enable", "--now", *units]:
                found += units
            case [".venv/bin/flask", *words]:
                assert ["flask", *words] == PUBLISH
                found.append("publish")
            case other:
                raise AssertionError(other)
    return found


class Machine:
    """Without systemd: `etc` stands for /etc/deputy, and an image's root for the machine's."""

    def __init__(self, folder, server, images, settings):
        self.folder, self.etc, self._server, self._images = folder, folder / "etc", server, images
        self.port = free_port()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._make_files(settings)
        logins = {
            "OWNER_PASSWORD_FILE": self.etc / "owner_password",
            "WEB_PASSWORD_FILE": self.etc / "web_password",
        }
        login = f"host=127.0.0.1 port={server.port} user=postgres dbname=deputy"
        make_roles(login, logins)

    def _make_files(self, settings):
        """By the guide's own commands; then settings.env and broker.env as an operator fills
        them in.
        """
        script = commands("files without containers").replace("/etc/deputy", str(self.etc))
        script = script.replace("/opt/deputy", str(ROOT)).replace(
            ":5432/", f":{self._server.port}/"
        )
        subprocess.run(["sh", "-eu", "-c", script], check=True)
        assert {path.stat().st_mode & 0o777 for path in self.etc.iterdir()} == {0o600}
        broker = {name: value for name, value in settings.items() if name in BROKERS}
        own = {name: value for name, value in settings.items() if name not in BROKERS}
        for name, given in (("settings.env", own), ("broker.env", broker)):
            (self.etc / name).write_text(
                "".join(f"{key}={json.dumps(value)}\n" for key, value in given.items())
            )

    def walk(self, publisher):
        for step in steps("without containers"):
            if step == "publish":
                self.publish(publisher)
            elif step == "deputy-migrate":
                assert self.start(step).wait(120) == 0
            else:
                self._running[step] = self.start(step)

    def publish(self, publisher):
        self._images["publish"].output(PUBLISH, self._read("settings.env") | publisher)

    def start(self, unit):
        [command] = values(unit, "ExecStart")
        words = shlex.split(command.replace("127.0.0.1:8000", f"127.0.0.1:{self.port} --workers 1"))
        assert values(unit, "WorkingDirectory") == ["/opt/deputy"]
        with (self.folder / f"{unit}.log").open("ab") as log:
            return self._images["deputy"].start(
                words, self.environment(unit), stdout=log, stderr=log
            )

    def environment(self, unit):
        """The environment files, the credentials that the unit loads, and its own variables."""
        found = {}
        for file in values(unit, "EnvironmentFile"):
            found |= self._read(Path(file.removeprefix("-")).name)
        loaded = self.folder / "credentials" / unit
        loaded.mkdir(parents=True, exist_ok=True)
        for credential in values(unit, "LoadCredential"):
            name, _, path = credential.partition(":")
            shutil.copy(self.etc / Path(path).name, loaded / name)
            (loaded / name).chmod(0o444)  # systemd gives it to the unit's user alone
        for line in values(unit, "Environment"):
            found |= dict(pair.replace("%d", str(loaded)).split("=", 1) for pair in line.split())
        return found

    def _read(self, name):
        lines = (self.etc / name).read_text().splitlines()
        return {key: json.loads(value) for key, _, value in (line.partition("=") for line in lines)}

    def operate(self):
        """The operator's commands, in a shell: what the first one printed, and what doctor did."""
        script = commands("commands without containers").replace("/etc/deputy", str(self.etc))
        script = script.replace("doctor", "doctor --json || true")
        script, image = script.replace(".venv/bin/", ""), self._images["deputy"]
        words, folder = ["sh", "-eu", "-c", script], image.here("/opt/deputy")
        given = image._variables() | {"DEPUTY_OPERATOR": "ruth"}  # there is no terminal here
        done = subprocess.run(
            words, cwd=folder, env=given, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        printed, brace, report = done.stdout.partition("{")
        return printed, json.loads(brace + report)

    def ask(self, path, key):
        url, headers = f"http://127.0.0.1:{self.port}{path}", {"Authorization": f"Bearer {key}"}
        return requests.get(url, headers=headers, timeout=10).json()

    def end(self):
        for process in self._running.values():
            end_process(process)
        return [process.returncode for process in self._running.values()]


@pytest.fixture
def machine(image, publish_image, settings) -> Iterator[Machine]:
    with open_folder() as folder, Postgres() as server:
        with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as db:
            db.execute("CREATE DATABASE deputy")
        made = Machine(folder, server, {"deputy": image, "publish": publish_image}, settings)
        yield made
        made.end()


def test_the_guide_migrates_and_publishes_before_units_start():
    order = ["deputy-migrate", "publish", "deputy-worker", "deputy-web"]
    assert steps("without containers") == steps("without containers, later") == order
    assert "systemctl reload deputy-web" in commands("without containers, later")


def test_the_guides_commands_start_the_units(machine, publisher):
    machine.walk(publisher)
    printed, report = machine.operate()
    key = printed.split()[-1]
    until(
        lambda: is_healthy(machine, key), "the web process answers and sees the background worker"
    )
    states = {check["name"]: check["status"] for check in report["checks"]}
    assert (states["rights"], states["aws"]) == ("ok", "ok")
    until(
        lambda: machine.ask("/v1/permission-sets/inventory/versions", key)["items"],
        "the version is recorded",
    )
    assert machine.end() == [0, 0]
    assert key not in "".join(path.read_text() for path in machine.folder.glob("*.log"))


def is_healthy(machine, key):
    try:
        checks = {check["name"]: check["status"] for check in machine.ask("/readyz", key)["checks"]}
    except OSError:
        return False
    return (checks["workers"], checks["templates"]) == ("ok", "ok")


def test_each_unit_has_the_secrets_and_credentials_that_it_needs():
    databases = {unit: values(unit, "LoadCredential")[0] for unit in UNITS}
    assert databases == {
        "deputy-migrate": "database_url:/etc/deputy/owner_database_url",
        "deputy-web": "database_url:/etc/deputy/web_database_url",
        # it owns the months of the audit log
        "deputy-worker": "database_url:/etc/deputy/owner_database_url",
    }
    with_broker = [
        unit for unit in UNITS if "-/etc/deputy/broker.env" in values(unit, "EnvironmentFile")
    ]
    assert with_broker == ["deputy-web", "deputy-worker"]
    assert values("deputy-migrate", "IPAddressDeny") == ["169.254.169.254 fd00:ec2::254"]


@pytest.mark.parametrize("unit", UNITS)
def test_a_units_process_can_write_nothing_and_gain_nothing(unit):
    for line in (
        "DynamicUser=yes",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "UMask=0077",
    ):
        name, _, value = line.partition("=")
        assert values(unit, name) == [value]
    if unit != "deputy-migrate":
        assert int(*values(unit, "TimeoutStopSec")) > of_gunicorn("graceful_timeout")


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze on this machine"
)
def test_systemd_understands_the_units(tmp_path):
    """The programs are not where the units say."""
    for name, text in UNITS.items():
        (tmp_path / f"{name}.service").write_text(re.sub(r"/opt/deputy/\S+", "/bin/true", text))
    files = [str(tmp_path / f"{name}.service") for name in UNITS]
    words = ["systemd-analyze", "verify", *files]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if str(tmp_path) in line] == []
