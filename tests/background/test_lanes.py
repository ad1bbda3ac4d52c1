"""Urgent proofs go before routine ones, in both kinds of background workers."""

import contextlib
from functools import partial

import pytest
import redis

from app import services as composition
from app.background.parts import THREADS
from tests.background.test_workers import Celery, Crowd, begun, proven_times, working
from tests.conftest import make_config
from tests.support.databases import new_database
from tests.support.valkey import Valkey
from tests.support.waiting import until


class NoRoom:
    """Routine proofs have used up their half of the budget, as far as the shared cache knows,
    until `end`.
    """

    def __init__(self, config) -> None:
        self._cache = redis.Redis.from_url(config.database.cache_url)
        rates = composition.Services(config).rates
        with rates.routine_call():
            (self._name,) = self._cache.scan_iter("*routine*")
        rates._shared._cache.client.close()
        self._cache.set(self._name, 10**9, ex=3600)

    def end(self) -> None:
        self._cache.delete(self._name)
        self._cache.close()


@contextlib.contextmanager
def killed(celery):
    try:
        yield
    finally:
        celery.kill()


@pytest.mark.parametrize("kind", ["flask", "celery"])
def test_a_first_proof_is_made_while_all_routine_proofs_wait_for_their_half(
    aws, vendor, tmp_path, kind
):
    valkey = Valkey()
    with new_database("sqlite") as url:
        config = make_config(url, sts_budget=600, cache_url=valkey.url)  # as `Celery` has it
        services = composition.Services(config)
        crowd, no_room = Crowd(services, aws), NoRoom(config)
        waiting = crowd.proven(THREADS + 4)
        celery = partial(Celery, services, aws, tmp_path, valkey.url, DEPUTY_CACHE_URL=valkey.url)
        try:
            with working(services) if kind == "flask" else killed(celery()):
                try:
                    until(lambda: begun(services) >= THREADS, seconds=60)
                    first = crowd.pending(3)
                    until(lambda: proven_times(services).keys() >= set(first), seconds=30)
                finally:
                    no_room.end()  # or they would wait for good, and the worker for them
                until(lambda: proven_times(services).keys() == {*first, *waiting}, seconds=60)
        finally:
            services.rates._shared._cache.client.close()
            services.db.engine.dispose()
            valkey.kill()
