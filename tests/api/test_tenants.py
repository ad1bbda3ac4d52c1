"""Tenants: made with an External ID, found, changed, stopped and offboarded."""

import re


def listed(tenant):
    """As lists show it, without its accounts."""
    return {name: value for name, value in tenant.items() if name != "accounts"}


def test_a_tenant_is_made_with_an_external_id_of_its_own(world):
    body = {"name": "Acme", "reference": "crm-1-" + world.tenant()["id"]}
    made = world.admin("POST", "/v1/tenants", body, expect=201)
    assert " ".join(made) == ("id name reference status suspended external_id created_at accounts")
    assert made["status"] == "active"
    assert re.fullmatch(r"dpy-[0-9a-f]{64}", made["external_id"])
    for _ in range(2):
        assert world.admin("GET", f"/v1/tenants/{made['id']}") == made
        assert world.kit(made)["external_id"] == made["external_id"]
    bound = world.key("tenants:read", tenant=made)
    assert bound("GET", "/v1/tenants") == {"items": [listed(made)], "next_cursor": None}


def test_a_reference_is_unique_among_live_tenants(world):
    reference = f"crm-{world.tenant()['id']}"
    first = world.admin("POST", "/v1/tenants", {"name": "Acme", "reference": reference}, expect=201)
    again, other = {"name": "Again", "reference": reference}, f"/v1/tenants/{world.tenant()['id']}"
    for method, path in (("POST", "/v1/tenants"), ("PATCH", other)):
        world.admin.refused(method, path, again, expect=409, code="conflict")
    assert world.admin("GET", f"/v1/tenants?reference={reference}")["items"] == [listed(first)]
    world.admin("DELETE", f"/v1/tenants/{first['id']}", expect=204)
    world.admin("POST", "/v1/tenants", {"name": "Later", "reference": reference}, expect=201)


def test_a_tenant_can_be_renamed_and_lose_its_reference(world):
    tenant = world.tenant()
    path = f"/v1/tenants/{tenant['id']}"
    assert world.admin("PATCH", path, {"name": "Acme & Söhne"})["name"] == "Acme & Söhne"
    assert world.admin("PATCH", path, {"reference": path})["reference"] == path
    assert world.admin("PATCH", path, {"reference": None})["reference"] is None
    assert world.admin("PATCH", path, {})["name"] == "Acme & Söhne"
    assert world.admin("PATCH", path)["external_id"] == tenant["external_id"]
    assert len(world.audit(tenant_id=tenant["id"], action="tenant.changed")) == 3


def test_a_name_is_one_printable_line(world):
    for name in ("", "   ", "x" * 201, None, 7, "two\nlines", "\u202e\u0007"):
        problem = world.admin.refused(
            "POST", "/v1/tenants", {"name": name}, expect=422, code="validation_failed"
        )
        assert "name" in problem["errors"]


def test_lists_come_newest_first_in_pages_without_gap_or_repeat(world):
    made = [world.tenant()["id"] for _ in range(5)]
    seen, cursor = [], None
    while len(seen) < 5:
        query = f"?limit=2{f'&cursor={cursor}' if cursor else ''}"
        page = world.admin("GET", f"/v1/tenants{query}")
        assert len(page["items"]) <= 2
        seen += [item["id"] for item in page["items"]]
        world.tenant()  # what is added meanwhile moves nothing
        cursor = page["next_cursor"]
    assert seen[:5] == made[::-1]


def test_a_bound_key_neither_renames_nor_deletes_its_tenant_nor_probes_for_references(world):
    """A reference is unique among all tenants, so a 409 would say that another customer has it
    (invariant 11; docs/architecture.md).
    """
    taken = f"crm-{world.tenant()['id']}"
    world.admin("POST", "/v1/tenants", {"name": "Globex", "reference": taken}, expect=201)
    acme = world.tenant("Acme")
    bound, path = world.key("tenants:write", tenant=acme), f"/v1/tenants/{acme['id']}"
    for body in (
        {"name": "Acme Ltd"},
        {"reference": taken},
        {"reference": f"free-{taken}"},
        {"reference": None},
    ):
        bound.refused("PATCH", path, body, expect=403, code="forbidden")
    bound.refused("DELETE", path, expect=403, code="forbidden")
    assert world.admin("GET", path)["name"] == acme["name"]
