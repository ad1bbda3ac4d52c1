"""In a gevent worker a long look at SQLite holds up its own request and no other."""

import subprocess
import sys
from pathlib import Path

from tests.support.databases import new_database

# As gunicorn's gevent worker: patched before anything is imported. A look ends once the greenlets
# beside it have run: its statement calls `held()`, which returns then, or after 30 seconds where it
# stops them. All the time goes by until the first row, or until the last. At the end there are more
# long looks than threads for them, beside a greenlet that writes.
_WEB_PROCESS = """
import gevent.monkey; gevent.monkey.patch_all()
import sys, time, gevent
from sqlalchemy import event, text
from app.store.database import SYSTEM, Database, _LONG_READS

sleep = gevent.monkey.get_original("time", "sleep")
database = Database(sys.argv[1])
begun, over, turns, free = [], [], 0, False

@event.listens_for(database.engine, "connect")
def connected(dbapi, _):
    dbapi.create_function("held", 0, held)

def held():
    begun.append(True)
    ends = time.monotonic() + 30
    while not free and time.monotonic() < ends:
        sleep(0.001)

def look(statement):
    with database.read(long=True) as db:
        over.append(db.execute(text(statement)).all())

def others():
    global turns, free
    while not over:
        turns += not free
        free = turns >= 10
        gevent.sleep(0.001)

for statement in ("SELECT held()", "SELECT 1 UNION ALL SELECT held()"):
    turns, free = 0, False
    over.clear()
    gevent.joinall([gevent.spawn(look, statement), gevent.spawn(others)], raise_error=True)
    print(turns)
free = False
begun.clear()
over.clear()
looks = [gevent.spawn(look, "SELECT held()") for _ in range(16)]
while len(begun) < _LONG_READS:
    gevent.sleep(0.001)
with database.write(SYSTEM) as db:
    db.execute(text("UPDATE configuration SET revocation_counter = revocation_counter + 1"))
print(len(over), len(begun) == _LONG_READS)
free = True
gevent.joinall(looks, raise_error=True)
"""


def test_other_requests_go_on_beside_a_long_look():
    with new_database("sqlite") as url:
        done = subprocess.run(
            [sys.executable, "-c", _WEB_PROCESS, url],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert (done.returncode, done.stdout.split()) == (0, ["10", "10", "0", "True"]), done.stderr
