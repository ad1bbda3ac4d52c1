"""What a background worker tells Prometheus, and what the dashboard and the alerts make of all
metrics.
"""

import json
import re
import subprocess
import sys
import urllib.request
from datetime import timedelta
from types import SimpleNamespace

import pytest
import structlog
import yaml
from prometheus_client import REGISTRY

from app import metrics
from app.background.deployment_metrics import DeploymentMetrics
from app.background.worker import parts_of, stop_all
from app.clock import now
from app.ids import new_id
from app.store.models import Trigger
from dev.ports import free_port
from dev.stack import ROOT
from tests.support.cast import OPERATOR
from tests.support.metrics import samples
from tests.support.own_services import own_services
from tests.support.rows import NO_ROLE, connection_rows, tenant_row
from tests.support.waiting import until

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def exported(aws, vendor):
    """Four proven connections, one of them proven 13 hours ago and due since then, and one of a
    suspended tenant, which is not proven; read over HTTP.
    """
    with own_services() as services:
        role = {"role_unique_id": NO_ROLE.unique_id, "due_for": Trigger.SCHEDULED}
        role |= {"proof_id": new_id(), "due_at": now() + timedelta(hours=12)}
        late = now() - timedelta(hours=13)
        rows = [role | {"role_arn": f"{NO_ROLE.arn}-{n}"} for n in range(4)]
        rows[3] |= {"due_at": late, "verified_at": late}
        connection_rows(services.db, tenant_row(services.db), rows)
        resting = tenant_row(services.db)
        connection_rows(services.db, resting, [rows[0] | {"verified_at": late - DAY}])
        services.tenants.suspend(OPERATOR, resting, reason="unpaid")
        port = free_port()
        end = metrics.serve(("127.0.0.1", port), DeploymentMetrics(services))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
        end()
    return text


def test_a_background_worker_exports_the_ages_of_proofs_and_its_backlog(exported):
    found = samples(exported)
    assert found["deputy_verified_connections"] == 4
    assert found["deputy_proofs_past_half_shelf_life_ratio"] == 0.25
    for name in ("proof_oldest", "due_oldest"):
        assert found[f"deputy_{name}_seconds"] == pytest.approx(13 * 3600, abs=600)
    assert (found['deputy_due{lane="routine"}'], found['deputy_due{lane="urgent"}']) == (1, 0)


def test_what_dashboard_alerts_and_docs_name_is_exported(exported):
    """Families without samples are exported with their names, so an empty one counts too."""
    names = set(re.findall(r"^# TYPE (deputy_\w+)", exported, re.MULTILINE))
    names |= {f"{name}_{what}" for name in names for what in ("bucket", "count", "sum")}
    dashboard = json.dumps(json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text()))
    alerts = (ROOT / "deploy" / "prometheus-alerts.yaml").read_text()
    docs = (ROOT / "docs" / "monitoring.md").read_text()
    for text in (dashboard, alerts, docs):
        used = set(re.findall(r"\bdeputy_[a-z_]+", text)) - {"deputy_client"}
        assert used
        assert used <= names
    rules = [rule["alert"] for rule in yaml.safe_load(alerts)["groups"][0]["rules"]]
    assert [name for name in rules if f"| `{name}`" not in docs] == []


def test_nothing_but_fixed_words_is_a_label():
    """Routes are URL rules, and codes and actions are lists in the code."""
    labels = set()
    for family in REGISTRY.collect():
        for sample in family.samples:
            labels |= sample.labels.keys() if sample.name.startswith("deputy") else set()
    fixed = "source route code found action outcome verdict trigger status le"
    assert labels <= {*fixed.split()}


def test_an_address_that_is_taken_ends_no_background_worker():
    """On one machine with the web processes it may have been given theirs. It says so, and
    proofs go on.
    """
    bind = ("127.0.0.1", free_port())
    end, failed = metrics.serve(bind), []
    services = SimpleNamespace(
        db=None,
        registrations=None,
        proof_queue=SimpleNamespace(claim_routine=None),
        deliveries=None,
        config=SimpleNamespace(service=SimpleNamespace(metrics_bind=bind)),
    )
    part = parts_of(services, lambda: failed.append(1))[-1]
    with structlog.testing.capture_logs() as logs:
        part.start()
        until(lambda: logs, "it says that the address is taken")
    assert [(log["event"], log["address"]) for log in logs] == [
        ("metrics.not_served", f"127.0.0.1:{bind[1]}")
    ]
    assert part.is_alive()
    stop_all([part])
    end()
    assert not failed


def test_drift_counts_from_zero_so_that_the_first_role_that_is_found_is_an_increase():
    """In a new process: the alert rests on increase(), which does not see what a series begins
    with.
    """
    code = (
        "from prometheus_client import generate_latest; from app import metrics;"
        " print(generate_latest().decode())"
    )
    exported = samples(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True))
    count = "deputy_drift_exposed_seconds_count"
    series = {name: value for name, value in exported.items() if name.startswith(count)}
    assert series == {f'{count}{{status="{name}"}}': 0 for name in ("broken", "insecure")}
