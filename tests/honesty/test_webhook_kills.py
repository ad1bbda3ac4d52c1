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
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from sqlalchemy.exc import OperationalError

from tests.honesty.deployment import Client, Deployment
from tests.support.databases import new_database
from tests.support.waiting import until
from tests.webhooks.conftest import Receiver

PEOPLE, KILLS = 4, 2
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


@pytest.fixture(params=["sqlite", "postgresql"])
def service(request, front, tmp_path) -> Iterator[Deployment]:
    allowed = {"WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
    with (
        new_database(request.param) as url,
        Deployment(tmp_path, url, front, **allowed) as deployed,
    ):
        yield deployed


def leases_end(service):
    past = "2020-01-01 00:00:00"
    for table, column in LEASES:
        end = f"UPDATE {table} SET {column} = '{past}' WHERE {column} IS NOT NULL"  # noqa: S608
        with suppress(OperationalError):  # a deadlock with the worker, which locks row after row
            service.sql(end)


class Person(threading.Thread):
    """Makes tenants, each with its own Idempotency-Key, and repeats a request until it is done."""

    def __init__(self, service, number):
        super().__init__(daemon=True)
        self.made, self.replayed, self._number = {}, 0, number
        self._service, self.end = service, threading.Event()

    def run(self):
        with closing(Client(self._service.port, self._service.admin.key)) as client:
            self._make_tenants(client)

    def _make_tenants(self, client):
        for turn in itertools.count():
            if self.end.is_set():
                return
            time.sleep(PAUSE)
            name = f"tenant {self._number}.{turn}"
            while name not in self.made:
                with suppress(OSError, http.client.HTTPException):
                    answer = client.ask(
                        "POST", "/v1/tenants", {"name": name}, headers={"Idempotency-Key": name}
                    )
                    if answer.status == 201:
                        self.made[name] = answer.json["id"]
                        self.replayed += "Idempotency-Replayed" in answer.headers
                    else:
                        assert answer.json["code"] in {"idempotency_key_in_use", "unavailable"}
                        time.sleep(0.1)


def test_nothing_is_lost_or_done_twice_though_all_processes_are_killed(service):
    receiver = Receiver()
    wanted = {"url": receiver.url(), "types": ["tenant.created"]}
    service.admin.must("POST", "/v1/webhook-endpoints", wanted, expect=201)
    worker = service.start_background_worker()
    people = [Person(service, number) for number in range(PEOPLE)]
    for person in people:
        person.start()
    for _ in range(KILLS):
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
    names = [row.name for row in service.sql("SELECT name FROM tenants")]
    assert sorted(names) == sorted(made)
    told = lambda: {event["data"]["tenant_id"] for event in receiver.events}  # noqa: E731
    until(lambda: leases_end(service) or told() == set(made.values()), "all are told")
    bodies = {}
    for _, headers, body in receiver.got:
        assert bodies.setdefault(headers["webhook-id"], body) == body
    worker.kill()
    worker.wait()
    receiver.close()
