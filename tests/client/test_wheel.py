"""The package as people get it: a wheel, installed where there is boto3 and nothing else."""

import json
import re
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.client.people import CLIENT, environment, run

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built with the flit_core of requirements-dev.txt: nothing comes from the network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-cache-dir",
        "--wheel-dir",
        str(folder),
    ]
    done = subprocess.run([*PIP, *build, str(CLIENT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def scratch(wheel, tmp_path_factory) -> Path:
    """The bin folder of a virtual environment with the wheel, boto3, and what boto3 needs."""
    home = tmp_path_factory.mktemp("scratch")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    (site,) = home.glob("lib/python*/site-packages")
    for name in closure("boto3"):
        link(name, site)
    for words in (["install", "--no-deps", "--no-index", str(wheel)], ["check"]):
        done = run(*PIP, "--python", str(python), *words, env=environment(PYTHONPATH=""))
        assert done.returncode == 0, done.stdout + done.stderr
    return home / "bin"


def closure(name, found=frozenset()):
    """The package and all that it requires, by name."""
    if name in found:
        return found
    found |= {name}
    for requirement in distribution(name).requires or ():
        if "extra ==" not in requirement:
            found = closure(re.split(r"[^\w.-]", requirement)[0], found)
    return found


def link(name, site):
    """Put an installed package into another environment."""
    for file in distribution(name).files or ():
        first = file.parts[0]
        if first not in {"..", "__pycache__"} and not (site / first).exists():
            (site / first).symlink_to(distribution(name).locate_file(first))


def test_the_wheel_holds_the_package_its_types_and_its_command(wheel):
    assert re.fullmatch(r"deputy_client-[\d.]+-py3-none-any\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [name for name in names if name.endswith("METADATA")]
        text = archive.read(metadata).decode()
    assert "deputy_client/py.typed" in names
    assert not [name for name in names if not name.startswith("deputy_client")]
    assert re.findall(r"^Requires-Dist: (.*)", text, flags=re.MULTILINE) == ["boto3>=1.37"]
    assert "Requires-Python: >=3.11" in text
    assert "# deputy-client" in text


def test_the_wheel_and_its_command_work_with_boto3_alone(scratch, deputy, place):
    program = """
import sys, deputy_client
print(deputy_client.__file__)
session = deputy_client.session(*sys.argv[1:], region_name="us-east-1")
who = session.client("sts").get_caller_identity()
print(who["Account"])
"""
    env = environment(
        DEPUTY_URL=deputy.url,
        DEPUTY_API_KEY=place.key,
        AWS_ENDPOINT_URL=place.world.aws.url,
        PYTHONPATH="",
        PYTHONWARNINGS="error",
    )
    done = run(scratch / "python", "-c", program, *place.ids, env=env)
    assert done.returncode == 0, done.stderr
    origin, account = done.stdout.split()
    assert Path(origin).is_relative_to(scratch.parent)
    assert account == place.customer.account
    assert re.fullmatch(r"deputy-client/[\d.]+", deputy.requests[0]["HTTP_USER_AGENT"])
    command = scratch / "deputy-credential-process"
    done = run(command, "--tenant", place.ids[0], "--connection", place.ids[1], env=env)
    assert json.loads(done.stdout)["Version"] == 1, done.stderr
