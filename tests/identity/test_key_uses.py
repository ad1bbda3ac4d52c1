"""When a key was last used: to the hour, from memory, and without invalidating anything."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import time_machine
from sqlalchemy import select

from app.errors import StoreUnavailableError
from app.identity.key_uses import KeyUses
from app.services import Services
from app.store.models import ApiKey
from tests.conftest import OPERATOR, schedule_key_uses
from tests.support.cast import path_of
from tests.support.rows import statements
from tests.support.waiting import until

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.fixture
def services(app) -> Services:
    return app.extensions["deputy"]


def last_used(services, key_id):
    services.key_uses.flush()
    with services.db.read() as db:
        return db.scalar(select(ApiKey.last_used_at).where(ApiKey.id == UUID(key_id)))


def key_of(world, *scopes):
    """A key, and its id."""
    made = world.admin(
        "POST", "/v1/api-keys", {"name": "a program", "scopes": list(scopes)}, expect=201
    )
    assert made["last_used_at"] is None
    return world.admin.with_key(made["key"]), made["id"]


def test_a_key_that_only_reads_is_shown_with_the_hour_of_its_last_use(world, services):
    reader, key_id = key_of(world, "tenants:read")
    assert last_used(services, key_id) is None
    for minutes, hour in ((0, 0), (59, 0), (60, 1), (179, 2)):
        with time_machine.travel(NOON + timedelta(minutes=minutes), tick=False):
            reader("GET", "/v1/tenants?limit=1")
            assert last_used(services, key_id) == NOON + timedelta(hours=hour)
    shown = world.admin("GET", f"/v1/api-keys/{key_id}")
    assert shown["last_used_at"] == "2026-11-28T14:00:00+00:00"
    row = world.admin.app.test_cli_runner().invoke(args=["keys", "list"]).output
    assert any(key_id in line and "2026-11-28 14:00:00" in line for line in row.splitlines())


def test_a_wrong_or_revoked_key_is_not_used(world, services):
    reader, key_id = key_of(world, "tenants:read")
    wrong = world.admin.with_key(reader.key[:-1] + ("A" if reader.key[-1] != "A" else "B"))
    wrong.refused("GET", "/v1/tenants", expect=401, code="unauthenticated")
    services.api_keys.revoke_key(OPERATOR, UUID(key_id))
    reader.refused("GET", "/v1/tenants", expect=401, code="unauthenticated")
    assert last_used(services, key_id) is None


def test_issuing_is_a_use_that_invalidates_nothing_and_one_hour_is_written_once(
    world, services, by_hand
):
    """Moved for each hour of each key, the revocation counter would make every request read its
    key again.
    """
    connection = world.connection()
    worker, key_id = key_of(world, "credentials:issue")
    services.key_uses.flush()  # uses of other keys, and at another hour
    counter, changes = by_hand.counter, by_hand.one("SELECT count(*) FROM revoked_rows")
    with (
        statements(services.db) as executed,
        time_machine.travel(NOON + timedelta(days=1), tick=False),
    ):
        for _ in range(3):
            worker("POST", path_of(connection, "/credentials"))
            services.key_uses.flush()
            worker("GET", path_of(connection, "/container-credentials"))
            services.key_uses.flush()
    assert len([query for query, _ in executed if query.startswith("UPDATE api_keys")]) == 1
    assert last_used(services, key_id) == NOON + timedelta(days=1)
    assert (by_hand.counter, by_hand.one("SELECT count(*) FROM revoked_rows")) == (counter, changes)


def test_a_process_that_is_behind_takes_no_use_back(world, services):
    reader, key_id = key_of(world, "tenants:read")
    other = KeyUses(services.db)
    for uses, hours in ((services.key_uses, 2), (other, 1)):
        with time_machine.travel(NOON + timedelta(hours=hours), tick=False):
            uses.note(reader.key[4:20])
            uses.flush()
    assert last_used(services, key_id) == NOON + timedelta(hours=2)


def test_a_database_that_is_away_costs_notes_and_no_request(world, services, monkeypatch):
    reader, key_id = key_of(world, "tenants:read")

    def fail(_writer):
        raise StoreUnavailableError("away")

    reader("GET", "/v1/tenants?limit=1")
    with monkeypatch.context() as patch:
        patch.setattr(services.db, "write", fail)
        services.key_uses.flush()
    assert last_used(services, key_id) is None
    reader("GET", "/v1/tenants?limit=1")
    assert last_used(services, key_id) is not None


def test_notes_are_stored_by_themselves_and_at_the_end_of_the_process(world, services, monkeypatch):
    reader, key_id = key_of(world, "tenants:read")
    at_exit, uses = set(), KeyUses(services.db)
    monkeypatch.setattr(KeyUses, "_schedule", schedule_key_uses)
    monkeypatch.setattr("app.identity.key_uses.atexit.register", at_exit.add)
    monkeypatch.setattr("app.identity.key_uses.atexit.unregister", at_exit.discard)
    monkeypatch.setattr("app.identity.key_uses._SECONDS", 3600)
    waiting = KeyUses(services.db)
    waiting.note("0123456789abcdef")
    assert at_exit == {waiting.flush}
    waiting.flush()
    assert at_exit == set()
    monkeypatch.setattr("app.identity.key_uses._SECONDS", 0)
    uses.note(reader.key[4:20])
    until(lambda: last_used(services, key_id) is not None)
