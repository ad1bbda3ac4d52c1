"""The metrics of all web processes, at an address of their own."""

import os
import signal

from tests.support.waiting import until

ISSUED = [f'deputy_issue_seconds_count{{source="{source}"}}' for source in ("sts", "cache")]
REFUSED = 'deputy_refusals_total{code="not_found"}'


def issued(after, before):
    return sum(after.get(name, 0) - before.get(name, 0) for name in ISSUED)


def test_the_metrics_count_what_all_web_processes_did_and_those_that_were_killed(service):
    # The counts are in files of gunicorn's first process, and in no database
    place = service.place()
    with service.clients(1) as clients:
        before = service.metrics()
        for [client] in clients.values():
            for turn in range(3):
                assert place.ask(client, turn).status == 200
            client.must("GET", f"{place.tenant}x", expect=404)
        until(lambda: issued(service.metrics(), before) >= 6, "what was issued is counted")
        killed = next(iter(clients))
        os.kill(killed, signal.SIGKILL)
    until(lambda: killed not in service.web_processes(), "the web process is gone")
    service.await_web_processes()
    service.admin.close()
    after = service.metrics()
    assert issued(after, before) == 6
    assert after[REFUSED] - before.get(REFUSED, 0) == len(clients)
    assert after['deputy_aws_calls_total{action="AssumeRole",outcome="ok"}'] >= 1
    assert not [name for name in after if place.tenant_id in name or place.connection_id in name]
