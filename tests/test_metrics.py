"""Each metric counts what its name says, with labels from fixed lists."""

import json
import os
import re
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml
from sqlalchemy import text

from app.http.error_statuses import PROBLEMS
from app.store.database import Database
from app.store.models import ConnectionStatus, Trigger, Verdict
from dev.ports import free_port
from tests.support.cast import Customer, path_of, without_external_id
from tests.support.metrics import Counted

ROOT = Path(__file__).parent.parent
# What labels may hold: no list that grows with the customers.
LABELS = {
    "source": {"sts", "cache"},
    "code": {*PROBLEMS},
    "found": {"shared", "nowhere"},
    "outcome": {"ok", "refused", "throttled", "failed", "unreachable"},
    "verdict": {*map(str, Verdict)},
    "trigger": {*map(str, Trigger)},
    "status": {*map(str, ConnectionStatus)},
    "lane": {"urgent", "routine"},
}


def test_requests_are_counted_by_their_route_and_never_by_their_path(world):
    tenant = world.tenant()
    route, none = (
        Counted("deputy_request_seconds_count", route=at)
        for at in ("/v1/tenants/<uuid:tenant_id>", "none")
    )
    world.admin("GET", f"/v1/tenants/{tenant['id']}")
    world.admin("GET", f"/v1/tenants/{tenant['id']}/nowhere", expect=404)
    assert (route.more, none.more) == (1, 1)


def test_proofs_are_counted_by_verdict_and_trigger(world):
    tenant = world.tenant()
    kit = world.kit(tenant)
    open_role = Customer(world.aws).role(kit["role_name"], without_external_id(kit["trust_policy"]))
    proofs = partial(Counted, "deputy_proofs_total")
    proven, insecure = (proofs(verdict=name, trigger="created") for name in ("proven", "insecure"))
    again = proofs(verdict="proven", trigger="requested")
    connection = world.proven(tenant)
    world.connect(tenant, open_role, status="insecure")
    world.admin("POST", path_of(connection, "/verify"))
    assert (proven.more, insecure.more, again.more) == (1, 1, 1)


def test_sessions_that_this_process_did_not_hold_are_counted(world):
    """Those that the shared cache had are counted where its tests are."""
    connection, nowhere = world.connection(), Counted("deputy_session_cache_total", found="nowhere")
    worker = world.worker({"id": connection["tenant_id"]})
    for _ in range(3):
        worker("POST", path_of(connection, "/credentials"))
    assert nowhere.more == 1


@pytest.mark.parametrize(
    ("fault", "outcome", "attempts"),
    [
        (None, "ok", 1),
        ("deny", "refused", 1),
        ("throttle", "throttled", 2),
        ("error", "failed", 2),
        ("timeout", "unreachable", 2),
    ],
)
def test_each_call_to_aws_is_counted_by_what_came_of_it(world, faults, fault, outcome, attempts):
    connection = world.connection()
    counted = Counted("deputy_aws_calls_total", action="AssumeRole", outcome=outcome)
    if fault:
        faults.add(fault, role_arn=connection["role_arn"], seconds=0)
    status = {"ok": 200, "refused": 409}.get(outcome, 503)
    worker = world.worker({"id": connection["tenant_id"]})
    worker("POST", path_of(connection, "/credentials"), expect=status)
    assert counted.more >= attempts


def test_each_wait_for_a_connection_to_postgresql_is_counted(database_url):
    database, counted = Database(database_url), Counted("deputy_pool_wait_seconds_count")
    for _ in range(3):
        with database.read() as db:
            db.execute(text("SELECT 1"))
    database.engine.dispose()
    assert counted.more == 3


def test_dashboard_and_alerts_look_for_labels_and_values_that_there_are():
    """A misspelt one would match nothing, and its alert would never fire."""
    dashboard = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
    alerts = yaml.safe_load((ROOT / "deploy" / "prometheus-alerts.yaml").read_text())
    queries = [rule["expr"] for rule in alerts["groups"][0]["rules"]]
    for panel in dashboard["panels"]:
        queries += [target["expr"] for target in panel.get("targets", [])]
    text = "\n".join(queries)
    matchers = re.findall(r'(\w+)(?:=|=~|!=|!~)"([^"]*)"', text)
    assert len(matchers) >= 3
    for label, values in matchers:
        assert set(values.split("|")) <= LABELS[label], label
    grouped = set(", ".join(re.findall(r"by \(([^)]*)\)", text)).split(", "))
    assert grouped <= LABELS.keys() | {"le", "route", "action"}


FIRST_PROCESS = """
import os, runpy, socket, time
port = int(os.environ["DEPUTY_METRICS_BIND"].rpartition(":")[2])
orphan = socket.create_server(("127.0.0.1", port))  # a web process of one that was killed
time.sleep = lambda _: orphan.close()
runpy.run_path("gunicorn.conf.py")["on_starting"](None)
socket.create_connection(("127.0.0.1", port)).close()
folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
assert os.path.isdir(folder)
# Not on a disk, which can be full
assert folder.startswith("/dev/shm/") or not os.access("/dev/shm", os.W_OK)
runpy.run_path("gunicorn.conf.py")["on_exit"](None)  # it is read again at SIGHUP
assert not os.path.exists(folder)
"""


def test_gunicorns_first_process_serves_them_after_a_kill_and_removes_counts_also_after_a_reload():
    assert run(FIRST_PROCESS, f"127.0.0.1:{free_port()}") == (0, "", "")


def run(code, bind):
    env = os.environ | {"DEPUTY_METRICS_BIND": bind}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_an_address_that_stays_taken_ends_gunicorn_with_a_reason():
    with socket.create_server(("127.0.0.1", 0)) as other:
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        start = "import runpy, time; time.sleep = print; runpy.run_path('gunicorn.conf.py')"
        status, output, errors = run(f"{start}['on_starting'](None)", bind)
    assert (status, output) == (1, "1\n" * 4)
    assert errors.startswith(f"DEPUTY_METRICS_BIND={bind} can't be used: ")
