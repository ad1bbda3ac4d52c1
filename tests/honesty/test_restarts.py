"""A restart under load fails no request: what has begun is answered, and clients go where they
are told to.
"""

import re
import signal
import subprocess

from dev.stack import ROOT
from tests.honesty import releases
from tests.honesty.deployment import HANDS, Client, Deployment, Load
from tests.support.balancer import Balancer
from tests.support.databases import new_database
from tests.support.waiting import until


def assert_all_were_served(service, load):
    assert load.lost == 0
    assert set(load.statuses) == {200}
    assert not {answer.issued for answer in load.answers} - set(service.issued())
    connections = {answer.headers.get("Connection") for answer in load.answers}
    assert "close" in connections, "nobody met the restart"


def test_new_web_processes_take_over(deployment):
    """SIGHUP; the old ones say `Connection: close` with their last answers."""
    place, before = deployment.place(), set(deployment.web_processes())
    deployment.admin.close()  # for an idle connection a web process waits 20 s
    clients = [Client(deployment.port) for _ in range(HANDS)]
    with Load(clients, place.ask, pause=0.01) as load:
        load.go_on(HANDS)
        deployment.signal(signal.SIGHUP)
        until(lambda: not before & set(deployment.web_processes()), "the old ones end")
        load.go_on(HANDS)
    deployment.await_web_processes()
    assert_all_were_served(deployment, load)


def install(root):
    """Install a release with changes in what gunicorn's first process has imported."""
    for path, old, new in (
        ("app/__init__.py", 'VERSION = "', 'VERSION = "9.'),
        ("app/http/response_headers.py", "nosniff", "next"),
        ("app/metrics.py", "CACHE = ", 'NEXT = Counter("deputy_next", "Next.")\nCACHE = '),
        ("wsgi.py", "gc.freeze()", "from app.metrics import NEXT; NEXT.inc()\ngc.freeze()"),
    ):
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new, 1))


def test_the_unit_reloads_into_an_installed_release(front, tmp_path):
    root = releases.same(tmp_path / "code")
    unit = (ROOT / "deploy/systemd/deputy-web.service").read_text()
    [command] = re.findall("^ExecReload=(.*)", unit, re.MULTILINE)
    with new_database() as url, Deployment(tmp_path, url, front, root=root) as service:
        place, before = service.place(), set(service.web_processes())
        service.admin.close()
        clients = [Client(service.port) for _ in range(HANDS)]
        with Load(clients, place.ask, pause=0.01) as load:
            load.go_on(HANDS)
            install(root)
            env = {"MAINPID": str(service._process.pid)}
            subprocess.run(["sh", "-c", command], env=env, check=True)
            until(lambda: not before & set(service.web_processes()), "the old ones end")
            load.go_on(HANDS)
            answer = load.answers[-1]
        service.await_web_processes()
        assert_all_were_served(service, load)
        assert answer.headers["X-Content-Type-Options"] == "next"
        assert len(re.findall('"version": "9.', service.said)) == 2
        assert service.metrics()["deputy_next_total"] == 2


def test_an_instance_that_is_stopped_hands_its_clients_over(deployment):
    """SIGTERM, after its load balancer was told; another instance serves."""
    place = deployment.place()
    with deployment.twin() as instance, Balancer([instance.port, deployment.port]) as balancer:
        clients = [Client(balancer.port) for _ in range(HANDS)]
        with Load(clients, place.ask, pause=0.01) as load:
            load.go_on(HANDS)
            balancer.instances.remove(instance.port)
            instance.signal(signal.SIGTERM)
            assert instance.await_end() == 0
            load.go_on(HANDS)
    assert_all_were_served(deployment, load)
