"""AWS is slow or silent: who needs it is told in time, who doesn't is served, and it all ends by
itself. tests/aws/test_breaker.py has an AWS that throttles.

The service lets a caller wait 1.5 s for AWS, and has 0.3 s more for its audit log; SDKs give up
after 2 s. `BOUND` leaves room for what two dozen requests at once cost on two busy cores.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.honesty.deployment import Deployment, Load
from tests.support.waiting import until

# 1.95 on a machine that does nothing else; what as many requests take without the trouble comes on
# top
BOUND = 4.0
AT_ONCE = 1.5  # a request that waits for a silent AWS can't be answered sooner
COLD = 12  # requests that wait, on each web process; ten failures open its breaker


@pytest.fixture
def service(deployment) -> Deployment:
    """AWS is the same with every database."""
    deployment.admin.close()
    return deployment


def all_at_once(jobs):
    with ThreadPoolExecutor(len(jobs)) as pool:
        return [job.result() for job in [pool.submit(job) for job in jobs]]


def asking(places, clients):
    """Each client for the container credentials of another place."""
    pairs = zip(places, clients, strict=True)
    return [partial(place.ask, client, 1) for place, client in pairs]


def slowest(answers):
    return max(answer.seconds for answer in answers)


def assert_told_to_come_back(answer, within):
    assert (answer.status, answer.json["code"]) == (503, "aws_unavailable"), answer
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.seconds < within, answer


def test_a_silent_aws(service):
    """Two dozen at once wait beside each other; then nobody waits, until AWS is back."""
    hot, cold = service.place(), [service.place() for _ in range(COLD)]
    before = {place: service.aws.assumed(place.role_arn) for place in cold}
    since = len(service.said)
    with service.clients(COLD + 2) as by_process:
        waiting, others, lookouts = [], [], []
        for clients in by_process.values():
            waiting += clients[:COLD]
            others += clients[COLD:-1]
            lookouts += clients[-1:]
        for client in others:
            assert hot.ask(client).status == 200
        usual = slowest(all_at_once(asking([hot] * len(waiting), waiting)))
        with service.aws.silent(), Load(others, hot.ask, pause=0.03) as load:
            jobs = asking(cold * len(by_process), waiting)
            for answer in all_at_once(jobs):
                assert_told_to_come_back(answer, BOUND + usual)
            count = len(by_process)
            until(lambda: service.logged("aws.silent", since) == count, "the breakers open")
            load.go_on(20)
            asked = len(service.aws.calls)
            for answer in all_at_once(jobs):
                assert answer.status == 503
            late = [answer for answer in all_at_once(jobs) if answer.seconds >= AT_ONCE]
            assert len(late) <= 2 * count, "only those who try for all wait"
            assert len(service.aws.calls) - asked <= 4 * len(by_process)
            for lookout in lookouts:
                assert set(lookout.must("GET", "/readyz", expect=503)["errors"]) == {"aws"}
        # A call and its retry, for each process; and perhaps one that tried for all
        for place in cold:
            assert service.aws.assumed(place.role_arn) - before[place] <= 2 * len(by_process) + 2
        assert_all_is_well_again(service, cold[0], lookouts, since)
    assert set(load.statuses) == {200}
    assert slowest(load.answers) < AT_ONCE


def assert_all_is_well_again(service, place, clients, since):
    for client in clients:
        until(lambda client=client: place.ask(client, 1).status == 200, "AWS is asked again")
        until(lambda client=client: client.ask("GET", "/readyz").status == 200, "ready again")
    assert service.logged("aws.back", since) == len(clients)
    assert service.logged("aws.silent", since) == len(clients)


def test_web_processes_start_patched_and_without_a_warning(service):
    """They run under PYTHONWARNINGS=error, in which gevent's warning about a late patch ends
    them.
    """
    service.await_web_processes()
    assert "Using worker: app.http.sockets.WebProcess" in service.said
    assert "Warning" not in service.said
