"""A key that is refused without end, by all processes together: its answers, its events, and what
is left when they stop.
"""

import json
import os
import signal
from collections import Counter, defaultdict

import pytest

from tests.honesty.deployment import Deployment, Load
from tests.support.databases import new_database


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)])
def test_every_refusal_is_answered_and_counted_and_ten_a_second_are_told_singly(
    front, tmp_path, engine
):
    with new_database(engine) as url, Deployment(tmp_path, url, front) as service:
        weak = service.place()  # its key may issue, and nothing else
        with (
            service.clients(4) as by_process,
            Load(
                [client for clients in by_process.values() for client in clients],
                lambda client, turn: client.ask(
                    "POST" if turn % 3 else "GET", "/v1/tenants", key=weak.key
                ),
            ) as load,
        ):
            load.go_on(600)  # its tenant may make 500 at once in both processes
        service.admin.close()
        # What is left of the last second is stored now
        os.kill(service._process.pid, signal.SIGTERM)
        service._process.wait(60)
        rows = service.sql(
            "SELECT at, action, details FROM audit_events WHERE actor_id = :id", id=weak.key_id
        )
        singly, rest = defaultdict(int), 0
        for at, action, details in rows:
            if action == "tenant.refused":
                singly[str(at)[:19]] += 1
            else:
                assert action == "request.refused"
                rest += (details if isinstance(details, dict) else json.loads(details))["count"]
        answers = Counter((answer.status, answer.json["code"]) for answer in load.answers)
        assert set(answers) <= {(403, "forbidden"), (429, "rate_limited")}
        assert max(singly.values()) <= 10 * len(by_process)
        assert rest > 0
        assert sum(singly.values()) + rest == answers[403, "forbidden"]
        assert load.lost == 0
