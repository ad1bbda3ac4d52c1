"""The disk is full: nothing is issued that can't be recorded, users are told to come back, and
nothing is lost.
"""

import contextlib
import itertools


@contextlib.contextmanager
def table_that_takes_nothing(service):
    """What PostgreSQL answers when its disk is full."""
    service.sql(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
    )
    try:
        service.sql(
            "CREATE TRIGGER full_disk BEFORE INSERT ON audit_events EXECUTE FUNCTION full_disk()"
        )
        yield
    finally:
        service.sql("DROP FUNCTION full_disk CASCADE")


def test_a_full_disk(service):
    place = service.place()
    with service.clients(1) as by_process:
        clients = [*itertools.chain(*by_process.values())]
        before = [place.ask(client) for client in clients]
        with table_that_takes_nothing(service):
            refused = []
            for client in clients:
                refused += [place.ask(client, turn) for turn in range(3)]
                body = {"name": "T"}
                refused.append(client.ask("POST", "/v1/tenants", body, key=service.admin.key))
        after = [place.ask(client) for client in clients]
    assert {answer.status for answer in before + after} == {200}
    for answer in refused:
        assert (answer.status, answer.json["code"]) == (503, "unavailable"), answer
        assert int(answer.headers["Retry-After"]) > 0
    recorded = dict(service.issued())
    assert {answer.issued for answer in before + after} <= set(recorded.items())
    assert recorded.keys().isdisjoint(answer.request_id for answer in refused)
