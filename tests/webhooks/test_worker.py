"""The part of a background worker that delivers: how soon, and beside endpoints that hang."""

import threading
from collections.abc import Iterator
from functools import partial

import pytest
from sqlalchemy import text

from app.background import worker as parts
from tests.support.cast import OPERATOR
from tests.support.waiting import until
from tests.webhooks.conftest import endpoint_of


@pytest.fixture
def deliverer(services, receiver) -> Iterator[parts.Part]:
    failed = threading.Event()
    part = parts.Part("webhooks", partial(parts._deliver, services.deliveries), failed.set)
    part.start()
    yield part
    receiver.close()  # an attempt that hangs holds the thread up
    parts.stop_all([part])
    assert not failed.is_set()


def test_an_endpoint_that_hangs_delays_no_other(services, receiver, deliverer):
    """Three of fifty hang for as long as an attempt may take, and meanwhile the others get all."""
    paths = [f"/{number}" for number in range(50)]
    for path in paths:
        endpoint_of(services, receiver, path)
    services.tenants.create(OPERATOR, name="The first")
    until(lambda: len(receiver.got) >= 50)  # a new endpoint has one thread of few until it answers
    receiver.hangs.update(paths[:3])
    services.tenants.create(OPERATOR, name="Hanging")
    until(lambda: {path for path, _, _ in receiver.arrived[50:]} >= receiver.hangs)
    before = len(receiver.got)
    services.tenants.create(OPERATOR, name="Meanwhile")
    until(lambda: len(receiver.got) - before >= 47)
    with services.db.read() as db:
        tries = text("SELECT max(tries) FROM webhook_deliveries WHERE status = 'pending'")
        assert db.scalar(tries) == 0, "the attempts that hang have not ended"


def test_a_worker_that_is_stopped_stores_what_it_sent(services, receiver, deliverer):
    endpoint_of(services, receiver)
    services.tenants.create(OPERATOR, name="Acme")
    until(lambda: receiver.got)
    parts.stop_all([deliverer])
    assert not deliverer.is_alive()
    with services.db.read() as db:
        assert db.scalars(text("SELECT status FROM webhook_deliveries")).all() == ["delivered"]
