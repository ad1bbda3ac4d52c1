"""Connections: given, proven, found, stopped and deleted."""

from tests.support.cast import path_of

FIELDS = (
    "id tenant_id tenant_name tenant_reference role_arn account_id external_id external_id_origin"
    " status issues why"
    " suspended awaiting_approval sets_to_approve permission_set permission_set_version"
    " wanted_permission_set update_available verification proven_until next_proof_at access_until"
    " created_at verified_at"
)


def test_a_role_as_the_kit_asks_for_it_is_verified_at_once(world):
    tenant = world.tenant()
    role_arn = world.role(tenant)
    made = world.connect(tenant, role_arn)
    assert " ".join(made) == FIELDS
    assert made["role_arn"] == role_arn
    assert made["account_id"] == role_arn.split(":")[4]
    assert made["external_id"] == tenant["external_id"]
    assert made["permission_set"] == "inventory"
    assert made["verification"]["verdict"] == "proven"
    assert [(c["name"], c["outcome"]) for c in made["verification"]["checks"]] == [
        ("own_external_id_accepted", "passed"),
        ("account_matches", "passed"),
        ("missing_external_id_refused", "passed"),
        ("foreign_external_id_refused", "passed"),
        ("trust_policy_demands_external_id", "skipped"),  # this role may not read itself
        ("trust_policy_names_only_us", "skipped"),
    ]
    assert world.admin("GET", path_of(made)) == made


def test_a_connection_is_suspended_resumed_deleted_and_made_again_and_each_step_is_in_the_audit_log(
    world,
):
    made = world.connection()
    suspended = world.admin("POST", path_of(made, "/suspend"), {"reason": "incident 7"})
    assert suspended["status"] == "suspended"
    world.admin.refused("POST", path_of(made, "/credentials"), expect=409, code="suspended")
    world.admin.refused("POST", path_of(made, "/verify"), expect=409, code="suspended")
    world.admin.refused(
        "POST", path_of(made, "/suspend"), {"reason": "x"}, expect=409, code="conflict"
    )
    before = len(world.calls_for(made["role_arn"]))
    assert world.admin("POST", path_of(made, "/resume"), {"reason": "over"})["status"] == "verified"
    assert len(world.calls_for(made["role_arn"])) == before + 4
    world.admin.refused(
        "POST", path_of(made, "/resume"), {"reason": "x"}, expect=409, code="conflict"
    )
    world.admin("DELETE", path_of(made), expect=204)
    for method, suffix in (
        ("GET", ""),
        ("GET", "/container-credentials"),
        ("DELETE", ""),
        ("POST", "/credentials"),
        ("POST", "/verify"),
    ):
        world.admin.refused(method, path_of(made, suffix), expect=404, code="not_found")
    events = world.audit(connection_id=made["id"])
    assert [event["action"] for event in reversed(events) if event["outcome"] == "ok"] == [
        "connection.created",
        "connection.verified",
        "connection.suspended",
        "connection.resumed",
        "connection.verified",
        "connection.deleted",
    ]
    again = world.connect({"id": made["tenant_id"]}, made["role_arn"])
    assert again["id"] != made["id"]
    world.admin("GET", path_of(made), expect=404)


def test_a_wrong_name_is_told_the_prefix_and_an_unknown_permission_set_which_there_are(world):
    path, arn = f"/v1/tenants/{world.tenant()['id']}/connections", "arn:aws:iam::444455556666:role"
    assert (
        "deputy-" in world.admin("POST", path, {"role_arn": f"{arn}/other"}, expect=422)["detail"]
    )
    body = {"role_arn": f"{arn}/deputy-x", "permission_set": "everything"}
    assert "inventory" in world.admin("POST", path, body, expect=422)["errors"]["permission_set"][0]
