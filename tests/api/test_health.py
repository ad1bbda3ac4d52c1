"""Liveness and readiness."""

import pytest

from app.factory import create_app
from tests.cast import Api, World
from tests.conftest import empty_database, make_config


def test_a_healthy_service_is_live_and_ready(world: World):
    anonymous = world.admin.with_key(None)
    assert anonymous("GET", "/healthz") == {"status": "ok"}
    assert anonymous("GET", "/readyz") == {"status": "ok"}


def test_every_answer_carries_a_request_id_and_safe_headers(world: World):
    anonymous = world.admin.with_key(None)
    seen = set()
    for path in ("/healthz", "/v1/tenants", "/nowhere", "/openapi.json", "/docs/"):
        response = anonymous.raw("GET", path, headers={"X-Request-Id": "mine"})
        seen.add(response.headers["X-Request-Id"])
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert len(seen) == 5
    assert "mine" not in seen


def unready(database_url: str, **changes: object) -> dict[str, list[str]]:
    app = create_app(make_config(database_url, **changes))
    try:
        return Api(app, None)("GET", "/readyz", expect=503)["errors"]
    finally:
        app.extensions["deputy"].db.engine.dispose()


def test_a_database_that_is_away_is_named(aws, tmp_path):
    assert "database" in unready(f"sqlite:///{tmp_path}/no/such/folder/x.sqlite3")
    assert "database" in unready("postgresql+psycopg://nobody@127.0.0.1:1/none")


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_missing_migrations_are_named(aws, tmp_path, engine):
    with empty_database(engine, tmp_path) as url:
        assert "migrate" in unready(url)["database"][0]


def test_another_identity_than_the_brokers_is_named(aws, config):
    other = make_config(config.database_url).broker.parse("arn:aws:iam::111122223333:role/Other")
    assert "BROKER_PRINCIPAL_ARN" in unready(config.database_url, broker=other)["aws"][0]


def test_the_brokers_path_does_not_matter(aws, config):
    broker = make_config(config.database_url).broker.parse(
        "arn:aws:iam::111122223333:role/some/path/DeputyBroker"
    )
    app = create_app(make_config(config.database_url, broker=broker))
    Api(app, None)("GET", "/readyz")
    app.extensions["deputy"].db.engine.dispose()
