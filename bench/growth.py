"""Row 8: the speed with a million connections and with a thousand, and of the last and first page.

Three PostgreSQL databases are filled by INSERT … SELECT with every constraint and trigger on. Each
has a Deputy. One connection sends one request after the other, so no queueing is measured.
"""

import itertools
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from bench.goals import GROWTH, shown
from bench.load import Question
from bench.rounds import Contender, Round, Spread, interleave, ratio
from bench.servers import Deputy, run_python
from bench.stage import Stage

_SAMPLE = 20_000  # connections to look up: more than the requests of a round, so few are repeated
_DEPTH = 0.99
_LIMIT = 50
_HANDS = 2  # threads that fill a database, as many as the smallest machine has cores


def measure(stage: Stage) -> None:
    grown = [grow(stage, size, "growth") for size in stage.scale.growth]
    lookups = [_alone(f"{size:,}", deputy, _lookups(deputy)) for size, deputy in grown]
    stage.say(f"growth: {stage.scale.rounds} rounds of lookups at each size")
    for contender in lookups:
        contender.run(stage.wrk, 2)
    interleave(stage.wrk, lookups, rounds=stage.scale.rounds, seconds=2)
    lookup = ratio(lookups[-1], lookups[0], _p50)
    everywhere, of_tenant = _pages(stage, grown[-1][1])
    stage.findings.facts["growth"] = {
        "lookup p50, ms, by connections": _milliseconds(lookups),
        "page p50, ms": _milliseconds((*everywhere, *of_tenant)),
    }
    ratios = [ratio(deep, first, _p50) for first, deep in (everywhere, of_tenant)]
    deepest = max(ratios, key=lambda spread: spread.median)
    values = {
        "lookup": lookup,
        "page of all connections": ratios[0],
        "page of one tenant's": ratios[1],
    }
    text = f"{shown(lookup)} · {shown(deepest)}"
    stage.findings.results.append(GROWTH.judge(text, lookup.median, deepest.median, values=values))


def _pages(stage: Stage, deputy: Deputy) -> tuple[list[Contender], list[Contender]]:
    """Return (first page, deep page) of all tenants' list, and of the largest tenant's list."""
    with psycopg.connect(_plain(deputy)) as server:
        everywhere = _at_depth(server, "true")
        (tenant,) = _row(server, "SELECT id FROM tenants WHERE name = 'Customer 0'")
        of_tenant = _at_depth(server, f"tenant_id = '{tenant}'")
    paths = ["/v1/connections", f"/v1/tenants/{tenant}/connections"]
    given = json.dumps(list(zip(paths, (everywhere, of_tenant), strict=True)))
    cursors = json.loads(
        run_python(("-m", "bench.cursors"), deputy.environment, given).splitlines()[-1]
    )
    lists = []
    for name, path, cursor in zip(("all connections", "one tenant's"), paths, cursors, strict=True):
        first = _page(f"{name}, first", deputy, path)
        lists.append([first, _page(f"{name}, at 99 %", deputy, path, f"&cursor={cursor}")])
    everybody = [*lists[0], *lists[1]]
    stage.say(f"growth: {stage.scale.rounds} rounds of first and deep pages")
    interleave(stage.wrk, everybody, rounds=stage.scale.rounds, seconds=1)
    return lists[0], lists[1]


def _page(name: str, deputy: Deputy, path: str, query: str = "") -> Contender:
    question = Question("GET", f"{path}?limit={_LIMIT}{query}", deputy.admin_key)
    return _alone(name, deputy, [question])


def _alone(name: str, deputy: Deputy, questions: Sequence[Question]) -> Contender:
    return Contender(name, deputy, lambda: questions, connections=1)


def _p50(figures: Round) -> float:
    return figures.p50_us


def _milliseconds(contenders: Sequence[Contender]) -> dict[str, Spread]:
    return {contender.name: contender.facts()["p50_ms"] for contender in contenders}


def _lookups(deputy: Deputy) -> list[Question]:
    with psycopg.connect(_plain(deputy)) as server:
        rows = server.execute(
            "SELECT tenant_id, id FROM connections ORDER BY random() LIMIT %s", [_SAMPLE]
        ).fetchall()
    return [
        Question("GET", f"/v1/tenants/{tenant}/connections/{connection}", deputy.admin_key)
        for tenant, connection in rows
    ]


def _at_depth(server: psycopg.Connection, condition: str) -> str:
    """Return the connection before the page at 99 % of the list, which has the newest first."""
    # S608: the bench's own conditions
    (count,) = _row(server, f"SELECT count(*) FROM connections WHERE {condition}")  # noqa: S608
    query = f"SELECT id FROM connections WHERE {condition} ORDER BY id DESC OFFSET %s LIMIT 1"  # noqa: S608
    (connection_id,) = _row(server, query, int(count * _DEPTH))
    return str(connection_id)


def _row(server: psycopg.Connection, query: str, *values: object) -> tuple[Any, ...]:
    row = server.execute(query.encode(), values).fetchone()
    assert row is not None  # noqa: S101  each of these queries has one
    return row


def _plain(deputy: Deputy) -> str:
    return deputy.database_url.replace("+psycopg", "")


def grow(stage: Stage, size: int, section: str) -> tuple[int, Deputy]:
    """Create a database with so many connections, and a tenth as many tenants.

    One tenant has every hundredth connection.
    """
    name = f"{section}_{size}"
    with psycopg.connect(stage.postgres.url().replace("+psycopg", ""), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}".encode())
        # Otherwise the filling waits for checkpoints.
        server.execute("ALTER SYSTEM SET max_wal_size = '4GB'")
        server.execute("SELECT pg_reload_conf()")
    deputy = stage.start(Deputy.on(name.replace("_", "-"), stage.postgres.url(name), stage.sts))
    stage.say(f"{section}: making {size:,} connections")
    with psycopg.connect(_plain(deputy), autocommit=True) as server:
        server.execute(_TENANTS, {"tenants": size // 10})
        server.execute(_EXTERNAL_IDS)
        server.execute("ANALYZE")
        with ThreadPoolExecutor(_HANDS) as hands:
            bounds = [size * hand // _HANDS for hand in range(_HANDS + 1)]
            list(hands.map(lambda ends: _fill(deputy, *ends), itertools.pairwise(bounds)))
        server.execute("VACUUM ANALYZE")
    return size, deputy


def _fill(deputy: Deputy, first: int, end: int) -> None:
    with psycopg.connect(_plain(deputy)) as server:
        server.execute(_MADE, {"first": first, "last": end - 1})
        server.execute(_CONNECTIONS)
        server.execute(_PROOFS)


_TENANTS = """
INSERT INTO tenants (id, name, status, created_at)
SELECT uuidv7(), 'Customer ' || n, 'active', now() FROM generate_series(0, %(tenants)s::int - 1) n
"""
_EXTERNAL_IDS = """
INSERT INTO external_ids (id, tenant_id, value, state, created_at)
SELECT uuidv7(), id, 'dpy-' || encode(sha256(id::text::bytea), 'hex'), 'current', now() FROM tenants
"""
# Neighbours in time belong to different tenants, as in production. 7919 is prime, so all tenants
# are used.
_MADE = """
CREATE TEMP TABLE made ON COMMIT DROP AS
WITH numbered AS (
    SELECT row_number() OVER (ORDER BY t.id) - 1 AS n, count(*) OVER () AS tenants,
           t.id AS tenant_id, e.id AS external_id_id
    FROM tenants t JOIN external_ids e ON e.tenant_id = t.id
), wanted AS (
    SELECT k, CASE WHEN k %% 100 = 0 THEN 0
                   ELSE 1 + (k * 7919) %% (SELECT count(*) - 1 FROM tenants) END AS n
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) k
)
SELECT k, uuidv7() AS id, uuidv7() AS proof_id, tenant_id, external_id_id,
       lpad(k::text, 12, '2') AS account_id
FROM wanted JOIN numbered USING (n)
"""
_CONNECTIONS = """
INSERT INTO connections (id, tenant_id, external_id_id, role_arn, account_id, permission_set,
                         status, version, due_for, role_unique_id, proof_id, verified_at,
                         created_at)
SELECT id, tenant_id, external_id_id, 'arn:aws:iam::' || account_id || ':role/deputy-' || k,
       account_id, 'inventory', 'verified', 2, 'scheduled', 'AROA' || lpad(k::text, 17, '0'),
       proof_id, now(), now()
FROM made ORDER BY id
"""
_PROOFS = """
INSERT INTO proofs (id, tenant_id, connection_id, verdict, checks, trigger, first_at, checked_at)
SELECT proof_id, tenant_id, id, 'proven', '[
  {"name": "own_external_id_accepted", "outcome": "passed",
   "detail": "The role accepts this External ID."},
  {"name": "account_matches", "outcome": "passed",
   "detail": "The role is in the account that its ARN names."},
  {"name": "missing_external_id_refused", "outcome": "passed",
   "detail": "Refused when no External ID is sent."},
  {"name": "foreign_external_id_refused", "outcome": "passed",
   "detail": "Refused with another External ID."}
]', 'created', now(), now() FROM made ORDER BY id
"""
