"""External IDs: made by the server, one for each tenant, never chosen, changed, shared or handed on."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.ids import EXTERNAL_ID_PATTERN, foreign_external_id, new_external_id
from app.store.database import SYSTEM
from tests.attacks.evidence import Scene, on_postgresql, on_sqlite, problem, refusal, unchanged, untouched
from tests.support.cast import Customer, World, path_of

CHOSEN = "dpy-" + "0123456789abcdef" * 4
SPELLINGS = ["external_id", "externalId", "ExternalId", "sts:ExternalId", "external_id_id", "external-id"]


@on_sqlite
@pytest.mark.parametrize("field", SPELLINGS)
def test_no_tenant_chooses_its_external_id(scene: Scene, field: str):
    response = scene.world.admin.raw("POST", "/v1/tenants", {"name": "Mallory Ltd", field: CHOSEN})
    assert field in problem(response, 422, "validation_failed")["errors"]
    assert refusal(scene.world, response)["action"] == "tenant.refused"


@pytest.mark.parametrize(
    "body",
    [
        {"name": {"external_id": CHOSEN}},
        {"name": "Mallory Ltd", "current": {"value": CHOSEN}},
        {"name": "Mallory Ltd", "tenant": {"external_id": CHOSEN}},
        [{"name": "Mallory Ltd", "external_id": CHOSEN}],
    ],
)
def test_no_tenant_chooses_its_external_id_by_nesting_it(scene: Scene, body):
    problem(scene.world.admin.raw("POST", "/v1/tenants", body), 422, "validation_failed")


@pytest.mark.parametrize("field", SPELLINGS)
def test_no_tenant_chooses_its_external_id_by_the_query_or_a_header(scene: Scene, field: str):
    made = scene.world.admin(
        "POST",
        f"/v1/tenants?{field}={CHOSEN}",
        {"name": "Mallory Ltd"},
        headers={f"X-{field.replace(':', '-').replace('_', '-')}": CHOSEN},
        expect=201,
    )
    assert re.fullmatch(EXTERNAL_ID_PATTERN, made["external_id"])
    assert made["external_id"] != CHOSEN


@on_sqlite
@pytest.mark.parametrize("field", SPELLINGS)
@pytest.mark.parametrize("method", ["PATCH", "PUT", "POST"])
def test_nobody_changes_an_external_id_not_even_to_one_seen_elsewhere(scene: Scene, field: str, method: str):
    theirs = scene.globex["external_id"]
    status, code = (422, "validation_failed") if method == "PATCH" else (405, "method_not_allowed")
    with unchanged(scene.world, scene.ours), untouched(scene.world, scene.theirs):
        for api in (scene.mallory, scene.world.admin):
            response = api.raw(method, f"/v1/tenants/{scene.acme['id']}", {field: theirs})
            problem(response, status, code)
            problem(api.raw(method, path_of(scene.ours), {field: theirs}), status, code)


@pytest.mark.parametrize("field", SPELLINGS)
def test_no_connection_chooses_its_external_id(scene: Scene, field: str):
    with untouched(scene.world, scene.theirs), unchanged(scene.world, scene.ours):
        response = scene.mallory.raw(
            "POST",
            f"/v1/tenants/{scene.acme['id']}/connections",
            {"role_arn": scene.theirs["role_arn"], field: scene.globex["external_id"]},
        )
        assert field in problem(response, 422, "validation_failed")["errors"]
        assert refusal(scene.world, response)["tenant_id"] == scene.acme["id"]


@on_postgresql
def test_many_at_once_are_all_different_and_show_nothing_of_their_tenants(world: World):
    def make(batch: int) -> list[str]:
        api = world.admin.with_key(world.admin.key)
        body = {"name": "Twin Ltd"}
        return [api("POST", "/v1/tenants", body, expect=201)["external_id"] for _ in range(15)]

    with ThreadPoolExecutor(8) as pool:
        made = [value for batch in pool.map(make, range(8)) for value in batch]
    assert len(set(made)) == 120
    for value in made:
        assert re.fullmatch(EXTERNAL_ID_PATTERN, value)
    assert len({value[4:20] for value in made}) == len({value[-16:] for value in made}) == 120


def test_ten_thousand_are_all_different():
    made = {new_external_id() for _ in range(10_000)}
    assert len(made) == len({value[4:20] for value in made}) == 10_000
    assert all(re.fullmatch(r"dpy-[0-9a-f]{64}", value) and len(value) <= 1224 for value in made)
    strangers = {foreign_external_id(value) for value in made}
    assert len(strangers) == 10_000
    assert not strangers & made


def test_an_external_id_is_not_made_from_the_name_or_the_reference(world: World):
    made = []
    for _ in range(2):
        tenant = world.admin("POST", "/v1/tenants", {"name": "Same", "reference": "same-1"}, expect=201)
        made.append(tenant["external_id"])
        world.admin("DELETE", f"/v1/tenants/{tenant['id']}", expect=204)
    assert made[0] != made[1]


def test_a_tenant_made_again_gets_a_new_one_and_its_old_role_is_refused(world: World):
    body = {"name": "Initech", "reference": f"initech-{new_external_id()[:12]}"}
    before = world.admin("POST", "/v1/tenants", body, expect=201)
    customer, kit = Customer(world.aws), world.kit(before)
    role = customer.role(kit["role_name"], kit["trust_policy"])
    world.connect(before, role)
    world.admin("DELETE", f"/v1/tenants/{before['id']}", expect=204)

    after = world.admin("POST", "/v1/tenants", body, expect=201)
    assert after["id"] != before["id"]
    assert after["external_id"] != before["external_id"]
    made = world.connect(after, role, status="pending")
    problem(world.admin.raw("POST", path_of(made, "/credentials")), 409, "connection_not_verified")
    assert world.calls_for(role)[-1].external_id == after["external_id"]

    customer.retrust(kit["role_name"], world.kit(after)["trust_policy"])
    assert world.admin("POST", path_of(made, "/verify"))["status"] == "verified"


def store(app):
    return app.extensions["deputy"].db


def run(app, statement: str, **values: str) -> None:
    with store(app).write(SYSTEM) as db:
        assert db.execute(text(statement), values).rowcount != 0


def raw_id(app, value: str) -> str:
    """A UUID as this engine stores it."""
    return value.replace("-", "") if store(app).engine.dialect.name == "sqlite" else value


def test_the_database_itself_never_pairs_a_role_with_another_tenants_id(scene: Scene, app):
    ours, theirs = raw_id(app, scene.ours["id"]), raw_id(app, scene.globex["id"])
    with untouched(scene.world, scene.ours, scene.theirs):
        for column, source in (
            ("external_id_id", "SELECT id FROM external_ids WHERE tenant_id = :theirs"),
            ("tenant_id", "SELECT id FROM tenants WHERE id = :theirs"),
        ):
            with pytest.raises(IntegrityError):
                run(
                    app,
                    f"UPDATE connections SET {column} = ({source}) WHERE id = :ours",  # noqa: S608
                    ours=ours,
                    theirs=theirs,
                )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE external_ids SET value = :chosen WHERE tenant_id = :ours",
        "UPDATE external_ids SET tenant_id = :theirs WHERE tenant_id = :ours",
        "DELETE FROM external_ids WHERE tenant_id = :ours",
        "UPDATE audit_events SET outcome = 'ok', details = '{}' WHERE tenant_id = :ours",
        "DELETE FROM audit_events WHERE tenant_id = :ours",
    ],
)
def test_the_database_itself_keeps_ids_and_audit_events_as_they_are(scene: Scene, app, statement: str):
    values = {"chosen": CHOSEN, "ours": raw_id(app, scene.acme["id"]), "theirs": raw_id(app, scene.globex["id"])}
    with untouched(scene.world, scene.ours, scene.theirs), pytest.raises(DBAPIError):
        run(app, statement, **{k: v for k, v in values.items() if f":{k}" in statement})


def test_the_database_itself_knows_no_verified_connection_without_a_proof(world: World, app):
    made = world.connect(world.tenant(), "arn:aws:iam::210987654321:role/deputy-unproven", status="pending")
    with pytest.raises(IntegrityError):
        run(app, "UPDATE connections SET status = 'verified' WHERE id = :id", id=raw_id(app, made["id"]))
