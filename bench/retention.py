"""Row 20: issuing while housekeeping removes old audit events, compared with issuing alone.

A separate process detaches a month twice a second, as a background worker does once a month, and
shares the cores with issuing.
"""

import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event
from typing import Any

from sqlalchemy import text

from app.audit import months
from app.background.housekeeping import tidy
from app.ids import first_id_at, time_of
from app.store.database import SYSTEM, Database
from bench.client import BenchError
from bench.goals import RETENTION, shown
from bench.hot import contender, warm
from bench.load import Wrk
from bench.rounds import Contender, Round, Spread, facts_of, interleave, ratio
from bench.servers import Deputy
from bench.stage import Stage
from dev.stack import ROOT, end_process, end_with_parent

_EVERY = 0.5  # seconds between the removals of two months
_DAYS = 400
# The first ids of the months from 1990 on: more months than a round can remove.
_MONTHS = [
    first_id_at(datetime(1990 + number // 12, number % 12 + 1, 1, tzinfo=UTC))
    for number in range(25)
]
_A_MONTH = 200
_FILL = f"""INSERT INTO audit_events
    (id, at, action, outcome, actor_kind, actor_name, tenant_id, details)
    SELECT (left(:first, 24) || lpad(to_hex(n), 12, '0'))::uuid, '1990-01-01Z',
    'credentials.issued', 'ok', 'api_key', 'bench', gen_random_uuid(), '{{}}'
    FROM generate_series(1, {_A_MONTH}) n"""  # noqa: S608


@dataclass
class Beside(Contender):
    """Hot rounds beside housekeeping. `gone` is the number of months removed in each."""

    server: Deputy
    gone: list[float] = field(default_factory=list)

    def run(self, wrk: Wrk, seconds: int) -> Round:
        with contextlib.closing(_Log(self.server.database_url)) as log, log.tidied():
            before = log.attached()
            figures = super().run(wrk, seconds)
            self.gone.append(before - log.attached())
        if self.gone[-1] <= 0:
            raise BenchError(f"{self.name}: housekeeping took nothing out of the log")
        return figures

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"months gone a round": Spread.of(self.gone)}


class _Log:
    """The audit log, with old events for housekeeping."""

    def __init__(self, url: str) -> None:
        self._url, self._db = url, Database(url)
        for first, end in itertools.pairwise(_MONTHS):
            with self._db.write(SYSTEM) as db:
                name = f"audit_events_{time_of(first):%Y_%m}"
                db.execute(text(f"DROP TABLE IF EXISTS {name}"))
                values = f"FOR VALUES FROM ('{first}') TO ('{end}')"
                db.execute(text(f"CREATE TABLE {name} PARTITION OF audit_events {values}"))
                db.execute(text(_FILL), {"first": str(first)})

    @contextlib.contextmanager
    def tidied(self) -> Iterator[None]:
        command = [sys.executable, "-m", "bench.retention", self._url]
        worker = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            preexec_fn=end_with_parent,  # noqa: PLW1509  one C call
        )
        try:
            if worker.stdout is not None:
                worker.stdout.readline()  # wait for its start
            yield
        finally:
            end_process(worker)

    def attached(self) -> int:
        """Return the number of attached months."""
        with self._db.read() as db:
            return len(months.partitions(db).attached)

    def close(self) -> None:
        self._db.engine.dispose()


def measure(stage: Stage) -> None:
    scale, hot = stage.scale, stage.on_postgres
    alone = contender("alone", hot)
    beside = Beside("beside housekeeping", hot.server, hot.hot, database=hot.database)
    warm(stage, alone)
    stage.say(
        f"retention: {scale.rounds} rounds of {scale.seconds} s alone and beside housekeeping"
    )
    interleave(stage.wrk, (alone, beside), rounds=scale.rounds, seconds=scale.seconds)
    rate = ratio(beside, alone, lambda figures: figures.per_second)
    stage.findings.results.append(RETENTION.judge(shown(rate), rate.median, values={"ratio": rate}))
    stage.findings.facts["hot beside housekeeping"] = facts_of((alone, beside))


def _tidy_without_end(url: str) -> None:
    db = Database(url)
    print("begun", flush=True)
    for end in _MONTHS[1:]:
        began = time.monotonic()
        months.make_and_detach(db, time_of(end))
        time.sleep(max(0.0, began + _EVERY - time.monotonic()))
    while True:
        tidy(db, _DAYS, Event())


if __name__ == "__main__":
    _tidy_without_end(sys.argv[1])
