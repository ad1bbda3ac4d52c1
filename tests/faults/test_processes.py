"""Each process is killed, stopped or restarted. docs/reliability.md has the table."""

import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.faults.users import ALL, assert_served_meanwhile
from tests.honesty.deployment import Deployment
from tests.support.balancer import Balancer
from tests.support.waiting import until

pytestmark = pytest.mark.faults


def test_web_processes_are_killed(service):
    def trouble():
        for _ in range(3):
            for pid in service.web_processes():
                os.kill(pid, signal.SIGKILL)
            service.await_web_processes()

    assert_served_meanwhile(service, "kill -9 of every web process, 3 times", trouble, cut=True)


def test_gunicorns_first_process_is_killed(service):
    """Its web processes end by themselves, and its supervisor starts it again at once."""

    def trouble():
        for _ in range(2):
            before = [psutil.Process(pid) for pid in service.web_processes()]
            service.signal(signal.SIGKILL)
            service.await_end()
            service.start()
            for process in before:
                assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE

    assert_served_meanwhile(
        service, "kill -9 of gunicorn's first process alone, twice", trouble, cut=True
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_background_worker_ends(service, front, number):
    """What it had claimed is proven by another."""

    def trouble():
        places = [service.place() for _ in range(8)]
        second = service.start_background_worker()
        started, due = (
            "SELECT 1 FROM background_workers WHERE pid = :pid",
            "UPDATE connections SET due_at =",
        )
        until(lambda: service.sql(started, pid=second.pid), "the second starts")
        with front.slow(0.5):  # so that it is in the middle of proofs
            for place in places:
                service.sql(f"{due} created_at WHERE role_arn = :arn", arn=place.role_arn)
            time.sleep(1.5)
            second.send_signal(number)
            assert second.wait(30) == (0 if number == signal.SIGTERM else -number)
        for place in places:  # two leases pass: a proof that has begun takes a second one
            leased = "role_arn = :arn AND due_at < now() + interval '4 minutes'"
            passed = f"{due} due_at - interval '4 minutes' WHERE {leased}"
            service.sql(passed, arn=place.role_arn)
        proven = (
            "SELECT 1 FROM proofs JOIN connections ON connections.id = connection_id WHERE role_arn"
            " = :arn AND count > 1"
        )
        until(
            lambda: all(service.sql(proven, arn=place.role_arn) for place in places),
            "all are proven again",
        )

    name = "kill -9" if number == signal.SIGKILL else "SIGTERM"
    assert_served_meanwhile(
        service, f"{name} of a background worker in the middle of proofs", trouble, served=ALL
    )


def test_a_rolling_restart_of_web_processes(service):
    def trouble():
        service.admin.close()  # for an idle connection a web process waits 20 s
        for _ in range(2):
            before = set(service.web_processes())
            service.signal(signal.SIGHUP)
            until(
                lambda before=before: not before & set(service.web_processes()), "the old ones end"
            )

    assert_served_meanwhile(
        service, "rolling restart: gunicorn gets SIGHUP, twice", trouble, served=ALL
    )


@pytest.fixture
def pair(service) -> Iterator[tuple[Deployment, Deployment, Balancer]]:
    """Two instances behind a load balancer."""
    with (
        service.twin() as first,
        service.twin() as second,
        Balancer([first.port, second.port]) as balancer,
    ):
        yield first, second, balancer


def test_a_rolling_restart_of_instances(service, pair):
    *instances, balancer = pair

    def trouble():
        for instance in instances:
            balancer.instances.remove(instance.port)
            instance.signal(signal.SIGTERM)
            assert instance.await_end() == 0
            instance.start()
            balancer.instances.append(instance.port)
            time.sleep(1)

    fault = "rolling restart: two instances behind a load balancer get SIGTERM in turn"
    assert_served_meanwhile(service, fault, trouble, served=ALL, port=balancer.port)


def test_an_instance_is_killed(service, pair):
    instance, _, balancer = pair

    def trouble():
        instance.kill()
        time.sleep(2)
        instance.start()

    assert_served_meanwhile(
        service, "kill -9 of one of two instances", trouble, cut=True, port=balancer.port
    )
