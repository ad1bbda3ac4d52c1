"""deploy/Dockerfile: its steps one by one, and what it then runs, as its user and without a file
that it could change.
"""

import re
import socket
import subprocess
from pathlib import PurePosixPath

import pytest

from dev.ports import free_port
from dev.stack import ROOT
from tests.deploy.conftest import exit_code_of_health_check, open_folder
from tests.support.image import DOCKERFILE, Ignored, Image, instructions

IGNORED = Ignored((ROOT / ".dockerignore").read_text())


def test_the_last_stage_installs_nothing_and_is_made_of_the_first():
    names = [name for name, _ in instructions(DOCKERFILE.read_text())]
    last = len(names) - names[::-1].index("FROM")
    assert names.count("FROM") == 3
    assert "RUN" in names[:last]
    assert "RUN" not in names[last:]
    assert re.findall(r"^COPY --from=(\S+)", DOCKERFILE.read_text(), re.MULTILINE) == ["build"]


def test_no_base_image_is_taken_by_its_tag():
    """Docker refuses a name that ends in @, so a build without the digest fails."""
    sources = [
        words.partition(" ")[0]
        for name, words in instructions(DOCKERFILE.read_text())
        if name == "FROM"
    ]
    assert sources == [
        python := "docker.io/library/python:3.11-slim@${PYTHON_DIGEST}",
        "build",
        python,
    ]
    assert ("ARG", "PYTHON_DIGEST") in instructions(DOCKERFILE.read_text())


def test_the_images_user_is_a_number_that_is_not_roots(image):
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", image.user)


def test_the_image_holds_what_the_service_needs_and_nothing_else(image):
    parts = {PurePosixPath(name).parts for name in image.files()}
    own = {"app", "cloudformation", "migrations", "alembic.ini", "gunicorn.conf.py"}
    assert {part[0] for part in parts} == own | {
        "wsgi.py",
        "requirements.txt",
        ".venv",
        "__pycache__",
    }
    tracked = subprocess.run(
        ["git", "ls-files", "app"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    assert {name for name in tracked.splitlines() if (ROOT / name).exists()} <= image.files().keys()
    assert {"flask", "gunicorn", "psycopg"} <= packages_of(image)
    assert not {"pytest", "moto", "pip"} & packages_of(image)


def packages_of(image):
    parts = {PurePosixPath(name).parts for name in image.files()}
    return {part[4] for part in parts if part[:2] == (".venv", "lib") and len(part) > 4}


def test_what_only_publishing_needs_is_in_the_image_that_publishes_alone(image, publish_image):
    publishing = {"policy_sentry", "bs4", "requests"}
    assert publishing <= packages_of(publish_image) - packages_of(image)
    assert "requirements-publish.txt" in publish_image.files()
    assert publish_image.user == image.user
    flask = ("flask", "--app", "wsgi", "templates")
    assert "stage `publish`" in image.output([*flask, "check"], TEMPLATES, ends=[1])[1]
    _, errors = image.output([*flask, "publish", "--check"], TEMPLATES, ends=[1])
    assert "The bucket can't be read" in errors, "to look is for every image"


TEMPLATES = {
    "AWS_REGION": "us-east-1",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "DEPUTY_BROKER_PRINCIPAL_ARN": "arn:aws:iam::111122223333:role/DeputyBroker",
    "DEPUTY_VENDOR_NAME": "Example Vendor",
    "DEPUTY_TEMPLATE_BUCKET": "example-deputy-templates",
}


def test_what_dockerignore_keeps_out():
    for path in ("app/factory.py", "cloudformation/permission-sets/inventory.json"):
        assert not IGNORED(PurePosixPath(path))
    for path in (".env", ".git/config", ".data/secret-key", "deploy/secrets/secret_keys"):
        assert IGNORED(PurePosixPath(path))
    for path in ("app/__pycache__/factory.cpython-311.pyc", "deploy/settings.env", "tests/x.py"):
        assert IGNORED(PurePosixPath(path))


def test_the_images_processes_can_write_no_file_of_it(image):
    assert image.volumes == ["/tmp"]  # noqa: S108
    code = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('x')"
    for path in ("x", "app/x", ".venv/x"):
        assert (
            image.start(["python", "-c", code, path], {}, stderr=subprocess.DEVNULL).wait(30) == 1
        )


def test_the_health_check_fails_without_a_server_and_gives_up_in_time(image):
    """A process that takes connections and answers none is not healthy."""
    assert exit_code_of_health_check(image, free_port()) == 1
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert exit_code_of_health_check(image, silent.getsockname()[1]) == 1
    limit = re.search(r"timeout=(\d+)\)", image.health[-1])[1]
    assert float(limit) < float(image.health_options["timeout"].rstrip("s"))


@pytest.mark.soak
def test_the_pinned_packages_install_from_the_index_and_start():
    with open_folder() as folder:
        image = Image(folder, full=True).build()
        for words in (["flask", "--app", "wsgi", "--help"], ["gunicorn", "--version"]):
            assert image.start(words, {}, stdout=subprocess.DEVNULL).wait(60) == 0
