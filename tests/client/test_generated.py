"""docs/clients.md, word for word: both generators read the served document without a warning, and
both programs compile in what they write, and run.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.people import ROOT, environment, run
from tests.support.cast import Customer
from tests.support.node import NODE, installed

DOCUMENT = (ROOT / "docs" / "clients.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", DOCUMENT, re.DOTALL)
TYPESCRIPT = Path(__file__).parent / "typescript"
# What a type must refuse, by what stands in the program instead
MISTAKES = {
    "py": {
        "ConnectionStatus.BROKEN": "ConnectionStatus.BROKE",
        'NewTenant(name="Acme")': "NewTenant()",
        "scopes=[Scope.CREDENTIALS_ISSUE]": 'scopes=["credentials:issue"]',
        "connection.verification.checks": "connection.verification.chekcs",
    },
    "ts": {
        '"verified", "broken"': '"verified", "broke"',
        'body: { name: "Acme" }': "body: {}",
        "connection.verification?.checks": "connection.verification.checks",
        "event.details.access_key_id": "event.details.access_key_id.length",
    },
}


def block(language, having):
    [code] = [code for name, code in BLOCKS if name == language and having in code]
    return code


def generate(folder, url, command):
    """Run a command of the document in a folder; returns what it says."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", "-euc", command],
        cwd=folder,
        env=environment(DEPUTY_URL=url, PATH=path, npm_config_loglevel="error"),
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert not re.search("warn|error|unsupported|skipp", said, re.IGNORECASE), said
    return said


def write(folder, language, suffix):
    """Write the document's program, and one for each mistake. Return the names of the latter."""
    program = block(language, "credentials.issued")
    (folder / f"tour.{suffix}").write_text(program)
    mistaken = []
    for number, (right, wrong) in enumerate(MISTAKES[suffix].items()):
        assert program.count(right) == 1, right
        mistaken.append(f"mistake_{number}.{suffix}")
        (folder / mistaken[-1]).write_text(program.replace(right, wrong))
    return mistaken


@pytest.fixture(scope="module")
def python_client(_door, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("python")
    generate(folder, _door.url, block("sh", "openapi-python-client generate"))
    return folder


@pytest.fixture(scope="module")
def typescript_client(_door, request, tmp_path_factory) -> Path:
    home = installed(TYPESCRIPT, request.config.cache.mkdir("javascript"))
    folder = tmp_path_factory.mktemp("typescript")
    for path in home.iterdir():
        (folder / path.name).symlink_to(path)
    generate(folder, _door.url, block("sh", "npx openapi-typescript"))
    return folder


def tour(words, world, **variables):
    """Run a program, with a customer who opens the link that it prints. Return its lines."""
    given = environment(DEPUTY_API_KEY=world.admin.key, **variables)
    with subprocess.Popen(words, env=given, stdout=subprocess.PIPE, text=True) as running:
        try:
            tenant_id, link = running.stdout.readline().split()
            assert link.startswith("https://us-east-1.console.aws.amazon.com/cloudformation/")
            customer = Customer(world.aws)
            made = world.connect({"id": tenant_id}, world.role({"id": tenant_id}, customer))
            lines = running.stdout.read().splitlines()
        finally:
            running.kill()
    checks = [f"{check['name']} {check['outcome']}" for check in made["verification"]["checks"]]
    assert lines[:-2] == checks
    access_key_id, expires_at = lines[-2].split()
    issued_at, actor, issued = lines[-1].split()
    assert access_key_id == issued
    assert issued_at < expires_at
    assert actor == "tour"


def test_python(python_client, deputy, world):
    mistaken = write(python_client, "python", "py")
    words = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"]
    words += ["--cache-dir", os.devnull]
    done = subprocess.run(
        [*words, "tour.py", *mistaken, "deputy_api"],
        cwd=python_client,
        capture_output=True,
        text=True,
        check=False,
    )
    refused = {line.partition(": ")[0] for line in done.stdout.splitlines() if ": error: " in line}
    places = [place.rpartition(":") for place in sorted(refused)]
    assert [file for file, _, _ in places if not file.startswith("deputy_api/")] == mistaken
    # The same in each client of this generator
    generators = [place for place in places if place[0].startswith("deputy_api/")]
    assert [file for file, _, _ in generators] == ["deputy_api/client.py"] * 4, done.stdout
    tour(
        [sys.executable, python_client / "tour.py"],
        world,
        DEPUTY_URL=deputy.url,
        PYTHONPATH=str(python_client),
    )


def test_typescript(typescript_client, deputy, world):
    mistaken = write(typescript_client, "ts", "ts")
    tsc = typescript_client / "node_modules" / "typescript" / "bin" / "tsc"
    done = run(NODE, tsc, "--project", typescript_client, env=environment())
    assert sorted(set(re.findall(r"(\w+\.ts)\(\d+,\d+\): error", done.stdout))) == (mistaken), (
        done.stdout
    )
    tour([NODE, typescript_client / "tour.js"], world, DEPUTY_URL=deputy.url)


def test_no_name_is_made_of_a_position(python_client):
    """Such as `ConnectionFromType2`, `StatementsItem`, `CreateTenantResponse201` or `VALUE_0`."""
    text = "\n".join(path.read_text() for path in python_client.glob("deputy_api/**/*.py"))
    names = set(
        re.findall(r"^(?:class|def|async def) (\w+)|^    ([A-Z_0-9]+) = ", text, re.MULTILINE)
    )
    placed = re.compile(r"Type\d|Item$|Response\d|VALUE_|\d$")
    assert [name for pair in names for name in pair if placed.search(name)] == []
    assert len(names) > 100


def test_the_clients_versions_are_the_documents():
    lock = (TYPESCRIPT / "package-lock.json").read_text()
    pins = (ROOT / "requirements-dev.in").read_text()
    assert re.search(r"^openapi-python-client~=0\.29\.", pins, re.MULTILINE)
    assert re.search(r'"openapi-typescript": "7\.13\.', lock)
    assert re.search(r'"typescript": "5\.', lock)
    rows = re.findall(r"^\| (?:Python|TypeScript) \| .*? \| ([\d.]+) \|", DOCUMENT, re.MULTILINE)
    assert rows == ["0.29", "7.13"]
