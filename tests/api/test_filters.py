"""Finding tenants by the start of their name, and tenants and connections by several statuses."""

from uuid import UUID

import pytest
import sqlalchemy

from app.connections.listing import ConnectionFilter, Listing
from app.ids import new_id
from app.permissions import permission_sets
from app.store.database import SYSTEM, Database
from app.store.models import ConnectionStatus, Tenant, TenantStatus
from app.store.models.tenant import folded
from app.tenants.tenants import TenantFilter, Tenants
from tests.support.cast import Customer
from tests.support.databases import new_database
from tests.support.rows import ADMIN, NO_ROLE, connection_rows, plan, tenant_row

S = ConnectionStatus


def named(world, name):
    return world.admin("POST", "/v1/tenants", {"name": name}, expect=201)


def found(world, **query):
    answer = world.admin.raw("GET", "/v1/tenants", query_string={"limit": "200", **query})
    assert answer.status_code == 200, answer.text
    return [tenant["name"] for tenant in answer.get_json()["items"]]


def test_a_tenant_is_found_by_what_its_name_begins_with(world):
    matching = ["Zebra One", "zebra%three", "zebra_four", "zebra\\five"]
    for name in (*matching, "Other Zebra", "Zebr", "zebrb"):
        named(world, name)
    assert found(world, name="zEbRa") == matching[::-1]
    for name, asked in zip(matching[1:], ("Zebra%", "zebra_", "zebra\\"), strict=True):
        assert found(world, name=asked) == [name]
    assert found(world, name="%ebra") == []


def test_case_and_form_do_not_matter_in_any_script(world):
    for name, asked in (
        ("Ölwerk Süd", "ölWERK s"),
        ("Straße 7", "STRASSE"),
        ("株式会社サンプル", "株式会"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("Cafe\u0301 am Markt", "caf\u00e9"),
        ("\ufb01nance", "FIN"),
    ):
        named(world, name)
        assert name in found(world, name=asked)
    for name in ("Straße", "\ufdfa" * 200, "İstanbul", "ΐ" * 200):
        assert folded(folded(name)) == folded(name)
        assert len(folded(name)) <= 200


def test_tenants_by_status_and_name_together(world):
    active, resting = named(world, "Ibex active"), named(world, "Ibex resting")
    world.admin("POST", f"/v1/tenants/{resting['id']}/suspend", {"reason": "x"})
    assert found(world, name="ibex", status="suspended") == [resting["name"]]
    assert found(world, name="ibex", status="active") == [active["name"]]
    both = [resting["name"], active["name"]]
    assert found(world, name="ibex", status="suspended,active") == both
    assert found(world, name="ibex", status=["active", "suspended"]) == both
    world.admin("DELETE", f"/v1/tenants/{active['id']}", expect=204)
    assert found(world, name="ibex") == [resting["name"]]
    world.admin("PATCH", f"/v1/tenants/{resting['id']}", {"name": "Quokka after"})
    assert found(world, name="ibex") == []
    assert found(world, name="quokka") == ["Quokka after"]


BAD = {
    "/v1/tenants": """status= status=, status=deleted status=active, status=active,deleted
        status=active&status= status=active&status=active&status=active
        name= name=%00 limit=0 limit=201 limit=x limit=99999999999999999999 page=2""",
    "/v1/connections": "status=Verified account_id=12 account_id=١٢٣٤٥٦٧٨٩٠١٢",
    "/v1/audit-events": f"""action=x action=Tenant.Created tenant_id=1 after= since=yesterday
        since=2026-01-01T00:00:00 access_key_id=%25 after={UUID(int=0)}&api_key_id={UUID(int=0)}""",
}


def test_a_bad_filter_is_refused(world):
    """The last one: a feed is not narrowed in part."""
    for path, queries in BAD.items():
        for query in (*queries.split(), f"status={'active,' * 200}active", f"name={'x' * 201}"):
            world.admin.refused("GET", f"{path}?{query}", expect=422, code="validation_failed")


def test_a_query_beside_a_body_is_refused(world):
    """A field there would be ignored, and the request would do something else."""
    path, body = "/v1/tenants?name=Here", {"name": "There"}
    problem = world.admin.refused("POST", path, body, expect=422, code="validation_failed")
    assert problem["errors"] == {"query": ["Put the fields into the body, not into a query."]}
    assert found(world, name="there") == []


def test_connections_in_one_of_several_statuses(world):
    """In one tenant, and across all: newest first, page by page."""
    tenant, account = world.tenant(), Customer(world.aws).account
    statuses = ("verified", "suspended", "deleted", "pending")
    rows = [
        {
            "role_arn": f"arn:aws:iam::{account}:role/deputy-{status}",
            "role_unique_id": "AROAX",
            "status": S(status),
        }
        for status in statuses
    ]
    database = world.admin.app.extensions["deputy"].db
    made = dict(zip(statuses, connection_rows(database, UUID(tenant["id"]), rows), strict=True))
    of_tenant, of_all = f"/v1/tenants/{tenant['id']}/connections?", "/v1/connections?"
    for path in (of_tenant, f"{of_all}account_id={account}&"):
        for asked, expected in (
            ("pending,verified", ["pending", "verified"]),
            ("verified,pending,verified", ["pending", "verified"]),
            ("suspended", ["suspended"]),
            ("broken,insecure", []),
        ):
            items = world.admin("GET", f"{path}status={asked}")["items"]
            assert [item["id"] for item in items] == [str(made[status]) for status in expected]
        read, cursor = [], ""
        while cursor is not None:  # the same filter in another order is the same filter
            order = "pending,suspended,verified" if cursor else "verified,suspended,pending"
            page = world.admin("GET", f"{path}status={order}&limit=1{cursor}")
            read += [item["status"] for item in page["items"]]
            cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
        assert read == ["pending", "suspended", "verified"]
    for path in (of_tenant, of_all):
        assert world.admin("GET", f"{path}account_id=000000000000&status=verified")["items"] == []


# --- the plans ---


@pytest.fixture(scope="module")
def full_database(request):
    """So many rows that an index is worth it."""
    with new_database() as url:
        database = Database(url)
        with database.write(SYSTEM) as db:
            tenants = []
            for number in range(1000):
                rests, name = number % 100 == 0, f"Tenant {number}"
                status = TenantStatus.SUSPENDED if rests else TenantStatus.ACTIVE
                row = {"id": new_id(), "name": name, "name_folded": folded(name), "status": status}
                tenants.append(row)
            db.execute(sqlalchemy.insert(Tenant), tenants)
        tenant_id, rows = tenant_row(database), []
        for number in range(1000):
            status = {0: S.BROKEN, 1: S.INSECURE}.get(number % 100, S.PENDING)
            row = {"role_arn": f"{NO_ROLE.arn}-{number}", "role_unique_id": None, "status": status}
            rows.append(row)
        connection_rows(database, tenant_id, rows)
        with database.engine.connect() as connection:
            connection.exec_driver_sql("ANALYZE")
            connection.commit()
        yield database
        database.engine.dispose()


def test_an_index_serves_the_search_by_name(full_database):
    def search():
        by_name = TenantFilter(name="TENANT 99")
        return Tenants(full_database).list(ADMIN, by_name, limit=50, after=None).items

    expected = {"Tenant 99", *(f"Tenant 99{digit}" for digit in range(10))}
    assert {tenant.name for tenant in search()} == expected
    assert "ix_tenants_name_folded" in plan(full_database, search)


def test_an_index_serves_rare_statuses_one_or_several(full_database):
    def search():
        suspended = TenantFilter(statuses=(TenantStatus.SUSPENDED,))
        return Tenants(full_database).list(ADMIN, suspended, limit=5, after=None)

    def search_several(limit=5):
        listing = Listing(full_database, permission_sets.load())
        rare = ConnectionFilter((S.BROKEN, S.INSECURE))
        return listing.list(ADMIN, rare, limit=limit, after=None).items

    assert "ix_tenants_status" in plan(full_database, search)
    assert plan(full_database, search_several).count("ix_connections_status") == 2
    assert len(search_several(limit=50)) == 20
