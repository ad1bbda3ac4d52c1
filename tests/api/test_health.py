"""Liveness and readiness."""

import os
import re
from datetime import timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy

from app.aws.query_api import QueryApi
from app.clock import now
from app.factory import create_app
from app.health.heartbeats import Heartbeat
from app.identity.scopes import ALL_SCOPES, Scope
from app.proofs.schedule import ProofInterval
from app.store.database import SYSTEM
from app.store.models import BackgroundWorker, Connection, ConnectionStatus
from tests.conftest import OPERATOR, make_config, publish_templates, with_settings
from tests.support.cast import Api
from tests.support.databases import NOWHERE, empty_database, new_database
from tests.support.rows import at_once, connection_row, tenant_row


def test_a_healthy_service_is_live_and_ready(world):
    anonymous = world.admin.with_key(None)
    assert anonymous("GET", "/healthz") == {"status": "ok"}
    assert anonymous("GET", "/readyz")["status"] == "ok"


def test_every_answer_carries_a_request_id_and_safe_headers(world):
    anonymous, request_ids = world.admin.with_key(None), {"mine"}
    for path in ("/healthz", "/v1/tenants", "/nowhere", "/openapi.json", "/docs/"):
        response = anonymous.raw("GET", path, headers={"X-Request-Id": "mine"})
        request_ids.add(response.headers["X-Request-Id"])
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert len(request_ids) == 6


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_service_behind_https_tells_browsers_to_use_nothing_else(database_url, scheme):
    app = create_app(make_config(database_url, public_url=f"{scheme}://deputy.example.com"))
    expected = "max-age=31536000" if scheme == "https" else None
    for path in ("/healthz", "/v1/tenants", "/nowhere", "/docs", "/docs/", f"/onboard/{'x' * 43}"):
        with app.test_client().get(path) as response:
            assert response.headers.get("Strict-Transport-Security") == expected, path
    app.extensions["deputy"].db.engine.dispose()


def unready(database_url, **changes):
    app = create_app(make_config(database_url, **changes))
    try:
        return Api(app, None)("GET", "/readyz", expect=503)["errors"]
    finally:
        app.extensions["deputy"].db.engine.dispose()


def test_readiness_names_what_is_missing(vendor, config):
    assert "database" in unready(NOWHERE)
    with empty_database() as url:
        assert "migrate" in unready(url)["migrations"][0]
    other = config.aws.broker.parse("arn:aws:iam::111122223333:role/Other")
    assert "BROKER_PRINCIPAL_ARN" in unready(config.database.database_url, broker=other)["aws"][0]


# --- the checks in the background ---

BACKGROUND = ("clock", "workers", "due", "proofs", "templates", "webhooks", "registrations")


class Deployment:
    """A web process on a database of its own, which looks again each time it is asked."""

    def __init__(self, config, vendor):
        self._config = with_settings(
            config,
            registration_topic_arns=(vendor.registration_topic_arn,),
            registration_queue_url=vendor.registration_queue_url,
        )
        self._made = []
        self.services = self._process().extensions["deputy"]

    def _process(self, **changes):
        self._made.append(create_app(with_settings(self._config, **changes)))
        return self._made[-1]

    def key(self, *scopes, tenant_id=None):
        issue = self.services.api_keys.create_key
        return issue(OPERATOR, name="a key", scopes=frozenset(scopes), tenant_id=tenant_id)[1]

    def ready(self, key=None, *, again="all", **changes):
        """`again`: the check that looks again, whatever it has found lately."""
        app = self._process(**changes) if changes else self._made[0]
        health = app.extensions["deputy"].health
        for check in health._checks:
            if again in {"all", check.name}:
                check._last = check._last[0], 0.0
        # A slow machine must not make it answer before it has looked
        list(health.findings(patience=None))
        return Api(app, key)("GET", "/readyz")

    def statuses(self, **changes):
        return {one["name"]: one["status"] for one in self.ready(**changes)["checks"]}

    def status(self, name):
        return self.statuses(again=name)[name]

    def check_of(self, name):
        """Return one check as a key that may see everything reads it."""
        checks = self.ready(self.key(Scope.AUDIT_READ), again=name)["checks"]
        return next(one for one in checks if one["name"] == name)

    def beat(self, **hearing):
        told = SimpleNamespace(**({"heard_at": now(), "unanswered_at": None} | hearing))
        heartbeat = Heartbeat(self.services.db, told)
        heartbeat.beat()
        return heartbeat

    def rest(self):
        """No worker has ever been seen, nothing is due, and nothing was proven lately."""
        with self.services.db.write(SYSTEM) as db:
            db.execute(sqlalchemy.delete(BackgroundWorker))
            db.execute(sqlalchemy.update(Connection).values(due_at=None, tried_at=None))

    def close(self):
        for app in self._made:
            app.extensions["deputy"].db.engine.dispose()


@pytest.fixture(scope="module")
def probed(request, aws, vendor):
    with new_database() as url:
        made = Deployment(make_config(url), vendor)
        publish_templates(made._made[0])
        yield made
        made.close()


@pytest.fixture
def deployment(probed) -> Deployment:
    probed.rest()
    return probed


def ago(seconds):
    return now() - timedelta(seconds=seconds)


def test_without_a_background_worker_requests_are_served_and_readiness_says_so(deployment):
    """The answer is 200: that goes on in the background is no reason to send requests elsewhere."""
    statuses = deployment.statuses()
    assert statuses["workers"] == "failed"
    assert statuses["registrations"] == "warning"
    heartbeat = deployment.beat()
    answer = deployment.ready()
    assert answer["status"] == "ok"
    assert answer["checks"] == [
        {"name": name, "status": "ok"} for name in ("database", "migrations", "aws", *BACKGROUND)
    ], "names and words alone"
    assert f"{os.getpid()} on" in deployment.check_of("workers")["seen"]
    heartbeat.end()
    assert deployment.status("workers") == "failed"
    assert deployment.check_of("workers")["next"]


def test_a_connection_that_is_due_and_waits_degrades_readiness_and_one_at_rest_does_not(deployment):
    services = deployment.services
    tenant = tenant_row(services.db)
    connection_row(services.db, tenant, due_at=ago(100))
    connection_row(
        services.db, tenant, number=2, status=ConnectionStatus.SUSPENDED, due_at=ago(9000)
    )
    assert deployment.status("due") == "ok"
    connection_row(services.db, tenant, number=3, due_at=ago(300))
    assert deployment.status("due") == "warning"
    waited = re.search(r"waited ([0-9]+) s", deployment.check_of("due")["seen"])
    assert 300 <= int(waited[1]) < 400


def test_an_interval_that_grew_degrades_readiness_and_each_tenants_summary_has_it(
    deployment, monkeypatch
):
    grown = ProofInterval(configured=600, seconds=3300, connections=1000)
    monkeypatch.setattr(deployment.services.proof_queue.interval, "current", lambda: grown)
    assert deployment.check_of("proofs") == {
        "name": "proofs",
        "status": "warning",
        "seen": "Connections: 1000. Each is proven every 3300 s; DEPUTY_REPROVE_EVERY is 600 s.",
        "next": "Raise DEPUTY_STS_BUDGET (routine proofs get half of it).",
    }
    tenant = tenant_row(deployment.services.db)
    reader = Api(deployment._made[0], deployment.key(Scope.CONNECTIONS_READ, tenant_id=tenant))
    assert reader("GET", f"/v1/tenants/{tenant}/connections/summary")["reprove_every"] == 3300


def test_an_old_message_of_a_stack_degrades_readiness(deployment):
    for hearing, status in (
        ({"heard_at": ago(100)}, "ok"),
        ({"heard_at": ago(300)}, "warning"),
        ({"unanswered_at": ago(100)}, "ok"),
        ({"unanswered_at": ago(300)}, "warning"),
        ({"heard_at": None}, "warning"),
    ):
        deployment.rest()
        deployment.beat(**hearing)
        assert deployment.status("registrations") == status, hearing
    without_queue = deployment.statuses(registration_topic_arns=(), registration_queue_url=None)
    assert "registrations" not in without_queue
    assert "due" in without_queue


def set_clock(monkeypatch, seconds):
    """Exactly so far from the right time, however slow the machine is."""
    monkeypatch.setattr("app.health.heartbeats.now", lambda: now() + timedelta(seconds=seconds))


def test_a_clock_that_differs_by_more_than_five_seconds_degrades_readiness(deployment, monkeypatch):
    def clock():
        check = deployment.check_of("clock")
        return check["status"], check["seen"]

    for seconds, expected, words in (
        (-5.5, "warning", "behind"),
        (-4.5, "ok", "No clock"),
        (4.5, "ok", "No clock"),
        (5.5, "warning", "ahead of"),
    ):
        set_clock(monkeypatch, seconds)
        status, sentence = clock()
        assert status == expected
        assert ("this process is" in sentence) == (expected == "warning")
        assert words in sentence
    set_clock(monkeypatch, 6)
    deployment.beat()
    set_clock(monkeypatch, 0)
    status, sentence = clock()
    assert status == "warning"
    assert "the background worker on" in sentence


def test_templates_that_are_not_published_degrade_readiness(deployment):
    assert deployment.status("templates") == "ok"
    assert deployment.statuses(vendor_name="Unpublished")["templates"] == "failed"
    assert deployment.statuses(template_bucket="no-such-bucket")["templates"] == "failed"


def test_only_an_unbound_key_that_may_read_the_audit_log_is_told_more(deployment):
    tenant = tenant_row(deployment.services.db)
    for check in deployment.ready(deployment.key(Scope.AUDIT_READ))["checks"]:
        assert set(check) == {"name", "status", "seen", "next"}
        assert check["next"] or check["status"] == "ok"
    api_keys = deployment.services.api_keys
    key, revoked = api_keys.create_key(OPERATOR, name="x", scopes=frozenset({Scope.AUDIT_READ}))
    api_keys.revoke_key(OPERATOR, key.id)
    for other in (
        None,
        "nonsense",
        revoked,
        deployment.key(Scope.AUDIT_READ, tenant_id=tenant),
        deployment.key(*ALL_SCOPES - {Scope.AUDIT_READ}),
    ):
        for check in deployment.ready(other, again="none")["checks"]:
            assert set(check) == {"name", "status"}


def test_a_crowd_at_readiness_costs_one_call_to_aws(deployment, monkeypatch):
    """Readiness is public; what AWS allows us is for issuing."""
    asked, call = [], QueryApi.call

    def counted(api, action, *rest):
        asked.append(action)
        return call(api, action, *rest)

    monkeypatch.setattr(QueryApi, "call", counted)
    app = deployment._process()
    at_once([lambda: Api(app, None)("GET", "/readyz")] * 16)
    assert asked == ["GetCallerIdentity"]
