"""External IDs: made by the server, one for each tenant, never chosen, changed, shared or handed
on.
"""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.ids import EXTERNAL_ID_PATTERN, foreign_external_id, new_external_id
from app.store.database import SYSTEM
from tests.attacks.evidence import case, problem, refusal, untouched

CHOSEN = "dpy-" + "0123456789abcdef" * 4
SPELLINGS = ["external_id", "externalId", "ExternalId", "sts:ExternalId", "external_id_id"]


def test_no_tenant_chooses_its_external_id(scene):
    for field in SPELLINGS:
        with case(field):
            body = {"name": "Mallory Ltd", field: CHOSEN}
            response = scene.admin.raw("POST", "/v1/tenants", body)
            assert field in problem(response, 422, "validation_failed")["errors"]
            assert refusal(scene.world, response)["action"] == "tenant.refused"
    for body in ({"name": {"external_id": CHOSEN}}, [{"name": "x", "external_id": CHOSEN}]):
        problem(scene.admin.raw("POST", "/v1/tenants", body), 422, "validation_failed")


def test_no_tenant_chooses_its_external_id_by_the_query_or_a_header(scene):
    for field in SPELLINGS:
        problem(
            scene.admin.raw("POST", f"/v1/tenants?{field}={CHOSEN}", {"name": "Mallory Ltd"}),
            422,
            "validation_failed",
        )
    headers = {f"X-{field.replace(':', '-').replace('_', '-')}": CHOSEN for field in SPELLINGS}
    tenant = scene.admin(
        "POST", "/v1/tenants", {"name": "Mallory Ltd"}, headers=headers, expect=201
    )
    assert re.fullmatch(EXTERNAL_ID_PATTERN, tenant["external_id"])
    assert tenant["external_id"] != CHOSEN


def test_many_at_once_are_all_different_and_show_nothing_of_their_tenants(world):
    def create_tenants(_):
        api = world.admin.with_key(world.admin.key)
        return [
            api("POST", "/v1/tenants", {"name": "Twin Ltd"}, expect=201)["external_id"]
            for _ in range(3)
        ]

    with ThreadPoolExecutor(8) as pool:
        external_ids = [value for batch in pool.map(create_tenants, range(8)) for value in batch]
    external_ids += [new_external_id() for _ in range(10_000)]
    for part in (slice(None), slice(4, 20), slice(-16, None)):
        assert len({value[part] for value in external_ids}) == 10_024
    assert all(re.fullmatch(EXTERNAL_ID_PATTERN, value) for value in external_ids)
    strangers = {foreign_external_id(value) for value in external_ids}
    assert len(strangers) == 10_024
    assert not strangers & set(external_ids)


@pytest.fixture
def by_statement(app, scene):
    """Runs a statement with the ids of both tenants."""
    ids = {"mine": scene.ours["id"], "ours": scene.acme["id"], "theirs": scene.globex["id"]}
    values = {name: value.replace("-", "") for name, value in ids.items()} | {"chosen": CHOSEN}

    def execute(statement):
        with app.extensions["deputy"].db.write(SYSTEM) as db:
            assert db.execute(text(statement), values).rowcount != 0

    return execute


def test_the_database_itself_never_pairs_a_role_with_another_tenants_id(scene, by_statement):
    with untouched(scene.world, scene.ours, scene.theirs):
        for change in (
            "external_id_id = (SELECT id FROM external_ids WHERE tenant_id = :theirs)",
            "tenant_id = :theirs",
        ):
            with pytest.raises(IntegrityError):
                by_statement(f"UPDATE connections SET {change} WHERE id = :mine")  # noqa: S608


def test_the_database_itself_keeps_ids_and_audit_events_as_they_are(scene, by_statement):
    with untouched(scene.world, scene.ours, scene.theirs):
        for statement in (
            "UPDATE external_ids SET value = :chosen WHERE tenant_id = :ours",
            "UPDATE external_ids SET tenant_id = :theirs WHERE tenant_id = :ours",
            "DELETE FROM external_ids WHERE tenant_id = :ours",
            "UPDATE audit_events SET outcome = 'ok', details = '{}' WHERE tenant_id = :ours",
            "DELETE FROM audit_events WHERE tenant_id = :ours",
        ):
            with case(statement), pytest.raises(DBAPIError):
                by_statement(statement)
