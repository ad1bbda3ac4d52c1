"""A key that is refused without end, by all processes together: its answers, and its events. What
is left when a process stops is in tests/limits/test_refusals.py.
"""

import json
from collections import Counter, defaultdict

import pytest

from tests.support.waiting import until


def recorded(service, weak):
    """Return how many of the key's refusals have an event, by second, and how many others."""
    singly = defaultdict(int)
    rest = 0
    rows = service.sql(
        "SELECT at, action, details FROM audit_events WHERE actor_id = :id", id=weak.key_id
    )
    for at, action, details in rows:
        if action == "tenant.refused":
            singly[str(at)[:19]] += 1
        elif action == "request.refused":
            rest += (details if isinstance(details, dict) else json.loads(details))["count"]
    return singly, rest


@pytest.mark.parametrize(
    "service", ["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)], indirect=True
)
def test_every_refusal_is_answered_and_counted_and_ten_a_second_are_told_singly(service):
    weak = service.place()  # its key may issue, and nothing else

    def ask(client, turn):
        return client.ask("POST" if turn % 3 else "GET", "/v1/tenants", key=weak.key)

    with service.load(ask) as load:
        load.go_on(300)
    answers = Counter((answer.status, answer.json["code"]) for answer in load.answers)
    assert set(answers) <= {(403, "forbidden"), (429, "rate_limited")}
    assert load.lost == 0

    def all_are_counted():
        singly, rest = recorded(service, weak)
        return sum(singly.values()) + rest == answers[403, "forbidden"]

    until(all_are_counted, "all are counted")
    singly, rest = recorded(service, weak)
    assert rest > 0
    assert max(singly.values()) <= 10 * len(service.web_processes())
