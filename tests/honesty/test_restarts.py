"""A restart under load fails no request: what has begun is answered, and clients go where they
are told to.
"""

import signal

from tests.honesty.deployment import HANDS, Client, Load
from tests.support.balancer import Balancer
from tests.support.waiting import until


def assert_all_were_served(service, load):
    assert load.lost == 0
    assert set(load.statuses) == {200}
    assert not {answer.issued for answer in load.answers} - set(service.issued())
    connections = {answer.headers.get("Connection") for answer in load.answers}
    assert "close" in connections, "nobody met the restart"


def test_new_web_processes_take_over(on_sqlite):
    """SIGHUP; the old ones say `Connection: close` with their last answers."""
    place, before = on_sqlite.place(), set(on_sqlite.web_processes())
    on_sqlite.admin.close()  # for an idle connection a web process waits 20 s
    clients = [Client(on_sqlite.port) for _ in range(HANDS)]
    with Load(clients, place.ask, pause=0.01) as load:
        load.go_on(HANDS)
        on_sqlite.signal(signal.SIGHUP)
        until(lambda: not before & set(on_sqlite.web_processes()), "the old ones end")
        load.go_on(HANDS)
    on_sqlite.await_web_processes()
    assert_all_were_served(on_sqlite, load)


def test_an_instance_that_is_stopped_hands_its_clients_over(on_sqlite):
    """SIGTERM, after its load balancer was told; another instance serves."""
    place = on_sqlite.place()
    with on_sqlite.twin() as instance, Balancer([instance.port, on_sqlite.port]) as balancer:
        clients = [Client(balancer.port) for _ in range(HANDS)]
        with Load(clients, place.ask, pause=0.01) as load:
            load.go_on(HANDS)
            balancer.instances.remove(instance.port)
            instance.signal(signal.SIGTERM)
            assert instance.await_end() == 0
            load.go_on(HANDS)
    assert_all_were_served(on_sqlite, load)
