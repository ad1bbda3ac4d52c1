"""Webhooks and Idempotency-Keys while web processes and the background worker are killed with
SIGKILL: nothing is lost, and nothing is done twice.

The service has no clock that tests can move, so the leases of killed processes are moved to the
past in its database.
"""

import http.client
import itertools
import os
import random
import signal
import threading
import time
import uuid
from contextlib import closing, suppress

import pytest
from sqlalchemy.exc import OperationalError

from tests.honesty.deployment import Client
from tests.support.waiting import until
from tests.webhooks.conftest import Receiver

PEOPLE = 4
PAUSE = (
    0.05  # s between two tenants: what waits for delivery at the end takes longer than its making
)
LEASES = (
    ("webhook_deliveries", "claimed_until"),
    ("webhook_deliveries", "next_attempt_at"),
    ("webhook_endpoints", "due_at"),
    ("webhook_endpoints", "probe_at"),
    ("idempotent_requests", "leased_until"),
)


def leases_end(service):
    past = "2020-01-01 00:00:00"
    for table, column in LEASES:
        end = f"UPDATE {table} SET {column} = '{past}' WHERE {column} IS NOT NULL"  # noqa: S608
        with suppress(OperationalError):  # a deadlock with the worker, which locks row after row
            service.sql(end)


class Person(threading.Thread):
    """Makes tenants, each with its own Idempotency-Key, and repeats a request until it is done."""

    def __init__(self, service, names):
        super().__init__(daemon=True)
        self.made, self._names = {}, names
        self._service, self.end = service, threading.Event()

    def run(self):
        with closing(Client(self._service.port, self._service.admin.key)) as client:
            self._make_tenants(client)

    def _make_tenants(self, client):
        for turn in itertools.count():
            if self.end.is_set():
                return
            time.sleep(PAUSE)
            name = f"{self._names} {turn}"
            while name not in self.made:
                with suppress(OSError, http.client.HTTPException):
                    answer = client.ask(
                        "POST", "/v1/tenants", {"name": name}, headers={"Idempotency-Key": name}
                    )
                    if answer.status == 201:
                        self.made[name] = answer.json["id"]
                    else:
                        assert answer.json["code"] in {"idempotency_key_in_use", "unavailable"}
                        time.sleep(0.1)


@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.soak)])
def test_nothing_is_lost_or_done_twice_though_all_processes_are_killed(service, kills):
    receiver = Receiver()
    wanted = {"url": receiver.url(), "types": ["tenant.created"]}
    worker = service.start_background_worker()
    fresh = "SELECT 1 FROM webhook_events WHERE body IS NULL"
    until(lambda: not service.sql(fresh), "a new endpoint gets no event of an earlier test")
    endpoint = service.admin.must("POST", "/v1/webhook-endpoints", wanted, expect=201)
    run = uuid.uuid4()
    people = [Person(service, f"{run} {number}") for number in range(PEOPLE)]
    for person in people:
        person.start()
    for _ in range(kills):
        time.sleep(random.uniform(0.5, 1.5))  # noqa: S311
        for pid in service.web_processes():
            os.kill(pid, signal.SIGKILL)
        worker.kill()
        worker.wait()
        worker = service.start_background_worker()
        service.await_web_processes()
    for person in people:
        person.end.set()
    until(lambda: leases_end(service) or not any(person.is_alive() for person in people))
    made = {name: tenant for person in people for name, tenant in person.made.items()}
    names = service.sql("SELECT name FROM tenants WHERE name LIKE :names", names=f"{run} %")
    assert sorted(row.name for row in names) == sorted(made)
    told = lambda: {event["data"]["tenant_id"] for event in receiver.events}  # noqa: E731
    until(lambda: leases_end(service) or told() == set(made.values()), "all are told")
    bodies = {}
    for _, headers, body in receiver.got:
        assert bodies.setdefault(headers["webhook-id"], body) == body
    worker.kill()
    worker.wait()
    service.admin.close()  # its web process is gone
    service.admin.must("DELETE", f"/v1/webhook-endpoints/{endpoint['id']}", expect=204)
    receiver.close()
