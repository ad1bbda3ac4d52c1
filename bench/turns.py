"""The plan of the query for due routine proofs, the speed of claims, and the checks of a proof.

`python -m bench.turns`, in the service's environment: prints {"plan": …, "claims a second": …,
"checks": …}.
"""

import json
import time
from typing import Any

from sqlalchemy import event

from app.config import Config
from app.services import Services
from app.store.models import Connection, Verdict

_AT_ONCE = 16  # the worker of one machine claims as many
_TIMES = 50


def main() -> None:
    services = Services(Config.from_environment())
    queue, queries = services.proof_queue, []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "due_at <=" in statement:
            queries.append((statement, parameters))

    event.listen(services.db.engine, "before_cursor_execute", note)
    queue.claim_routine(_AT_ONCE)
    event.remove(services.db.engine, "before_cursor_execute", note)
    statement, parameters = queries[0]
    with services.db.engine.connect() as connection:
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars())
    began = time.monotonic()
    claimed = sum(len(queue.claim_routine(_AT_ONCE)) for _ in range(_TIMES))
    claims = {"plan": plan, "claims a second": round(claimed / (time.monotonic() - began))}
    print(json.dumps(claims | {"checks": _proven(services)}))


def _proven(services: Services) -> list[Any]:
    """Prove the connection that is due first, and return the stored checks."""
    (claim,) = services.proof_queue.claim_routine(1)
    if not services.proof_queue.prove(claim):
        raise RuntimeError("the connection can't be proven")
    with services.db.read() as db:
        proof = db.get_one(Connection, claim.connection_id).proof
    if proof is None or proof.verdict is not Verdict.PROVEN:
        raise RuntimeError(f"the proof did not pass: {proof and proof.checks}")
    return proof.checks


if __name__ == "__main__":
    main()
