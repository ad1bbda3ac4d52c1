"""The image of deploy/Dockerfile, built once; the tests of this folder start what it runs."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dev.postgres import others_can_enter
from dev.stack import ROOT
from tests.honesty.front import Aws
from tests.support.image import Image


@contextmanager
def open_folder() -> Iterator[Path]:
    """One that the image's user can enter, which pytest's own folders are not."""
    usual = Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="deputy-image-", dir=usual if others_can_enter(usual) else "/var/tmp"))  # noqa: S108
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for path in (folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())):
            path.chmod(0o755)
        shutil.rmtree(folder)


@pytest.fixture(scope="package")
def image() -> Iterator[Image]:
    with open_folder() as folder:
        yield Image(folder).build()


@pytest.fixture(scope="package")
def front() -> Iterator[Aws]:
    with Aws() as front:
        yield front


@pytest.fixture(scope="package")
def settings(front: Aws) -> dict[str, str]:
    """What settings.env has, and what leads to the tests' AWS."""
    example = (ROOT / "deploy" / "settings.env.example").read_text()
    lines = [line for line in example.splitlines() if line and not line.startswith("#") and "…" not in line]
    return dict(re.sub("[<>]", "", line).split("=", 1) for line in lines) | front.environment
