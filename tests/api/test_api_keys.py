"""API keys: made no stronger than their maker, shown once, stopped at once."""

import re


def make(world, *, expect=201, **fields):
    wanted = {"name": "a program", "scopes": ["tenants:read"], **fields}
    return world.admin("POST", "/v1/api-keys", wanted, expect=expect)


def test_a_key_is_shown_once_and_kept_as_a_hash(world):
    made = make(world)
    assert " ".join(made) == (
        "id name scopes may_give tenant_id permission_sets made_by expires_at created_at"
        " last_used_at made key"
    )
    assert re.fullmatch(r"dpk_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", made["key"])
    for path in ("/v1/api-keys", f"/v1/api-keys/{made['id']}"):
        shown = world.admin.raw("GET", path).text
        for secret in (made["key"][21:], '"key"', "digest"):
            assert secret not in shown
    assert made["key"] not in str(world.audit(action="api_key.created"))


def test_a_new_key_works_and_a_revoked_one_does_not_and_both_are_in_the_audit_log(world):
    tenant = world.tenant()
    made = make(world, tenant_id=tenant["id"])
    program, path = world.admin.with_key(made["key"]), f"/v1/api-keys/{made['id']}"
    program("GET", "/v1/tenants")
    world.admin("DELETE", path, expect=204)
    program.refused("GET", "/v1/tenants", expect=401, code="unauthenticated")
    for method in ("GET", "DELETE"):
        world.admin.refused(method, path, expect=404, code="not_found")
    events = [
        (event["action"], event["details"].get("api_key_id"))
        for event in world.audit(tenant_id=tenant["id"])
    ]
    assert events[:2] == [("api_key.revoked", made["id"]), ("api_key.created", made["id"])]


def test_a_text_where_a_list_of_scopes_belongs_is_called_no_list(world):
    refused = make(world, scopes="tenants:read", expect=422)
    assert refused["errors"] == {"scopes": ["Not a valid list."]}


def test_an_expiry_lies_ahead(world):
    refused = make(world, expires_at="2020-01-01T00:00:00Z", expect=422)
    assert refused["errors"] == {"expires_at": ["This time has passed."]}
