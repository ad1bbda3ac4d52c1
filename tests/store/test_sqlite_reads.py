"""In a gevent worker a long look at SQLite holds up its own request and no other."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import new_database

# As gunicorn's gevent worker: patched before anything is imported. A long look, and another request's greenlet beside
# it, which counts its turns; with `write`, one that writes beside more long looks than there are threads for them.
_WEB_PROCESS = """
import gevent.monkey; gevent.monkey.patch_all()
import sys, gevent
from sqlalchemy import text
from app.store.database import SYSTEM, Database

LONG = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {}) SELECT {} FROM n"
database = Database(sys.argv[1])
over, turns = [], 0

def look(what, rows):
    with database.read(long=True) as db:
        over.append(db.execute(text(LONG.format(rows, what))).all())

def others():
    global turns
    while not over:
        turns += 1
        gevent.sleep(0.001)

if sys.argv[2] == "write":
    looks = [gevent.spawn(look, "sum(x)", 500_000) for _ in range(16)]
    gevent.sleep(0.01)
    with database.write(SYSTEM) as db:
        db.execute(text("UPDATE configuration SET epoch = epoch + 1"))
    print(len(over))
    gevent.joinall(looks, raise_error=True)
else:
    gevent.joinall([gevent.spawn(look, *sys.argv[2:]), gevent.spawn(others)], raise_error=True)
    print(turns)
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with new_database("sqlite") as url:
        yield url


def web_process(url: str, *words: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _WEB_PROCESS, url, *words],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize(("what", "rows"), [("sum(x)", "1000000"), ("x", "200000")], ids=["at once", "row by row"])
def test_other_requests_go_on_beside_a_long_look(url, what, rows):
    """`at once`: all the time goes by until the first row. `row by row`: until the last."""
    assert web_process(url, what, rows) >= 10


def test_a_writer_does_not_wait_for_long_reads(url):
    assert web_process(url, "write") < 6
