"""Each issuance is in the audit log, also when every web process is killed with SIGKILL in the
middle.
"""

import os
import signal
from collections import Counter

import pytest

from tests.honesty.deployment import HANDS, Client, Load


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.soak)])
def test_every_answer_is_recorded_though_all_web_processes_are_killed(service, kills):
    places = [service.place() for _ in range(4)]
    # They connect again, to any web process that runs
    clients = [Client(service.port) for _ in range(HANDS)]
    with Load(
        clients, lambda client, turn: places[turn % len(places)].ask(client, turn // 4), pause=0.02
    ) as load:
        for _ in range(kills):
            load.go_on(50)
            killed = service.web_processes()
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            assert not set(killed) & set(service.await_web_processes())
        load.go_on(50)
    service.admin.close()  # its web process is gone
    assert load.lost > 0, "no request was under way when the web processes died"
    assert set(load.statuses) == {200}
    events = [event for event in service.events() if any(event.is_of(place) for place in places)]
    recorded = [event.issued for event in events if event.issued]
    answered = [answer.issued for answer in load.answers]
    assert not Counter(answered) - Counter(recorded)
    # What was recorded for nobody are requests that were cut in between, and no more of them than
    # that.
    assert len(recorded) - len(answered) <= load.lost
