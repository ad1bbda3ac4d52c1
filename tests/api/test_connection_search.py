"""Connections given by their account alone: Deputy looks for the role itself. And how many there
are in each status.
"""

from collections import Counter
from uuid import UUID

import pytest

from app.connections import connections
from app.errors import ConflictError
from app.limits.limits import SEARCHES
from tests.support.cast import Customer, path_of


def find_in_account(world, tenant, account, *, expect=201, **more):
    body = {"account_id": account, **more}
    return world.admin("POST", f"/v1/tenants/{tenant['id']}/connections", body, expect=expect)


def test_an_account_is_enough_once(world):
    tenant, customer = world.tenant(), Customer(world.aws)
    made = find_in_account(world, tenant, customer.account, permission_set="inventory")
    kit = world.kit(tenant)
    assert made["role_arn"] == f"arn:aws:iam::{customer.account}:role/{kit['role_name']}"
    assert made["account_id"] == customer.account
    assert made["status"] == "pending"
    assert made["verification"] is None
    assert made["external_id"] == tenant["external_id"]
    assert world.calls_for(made["role_arn"]) == [], "the request itself asks AWS nothing"
    [event] = world.audit(connection_id=made["id"])
    assert event["action"] == "connection.created"
    path = f"/v1/tenants/{tenant['id']}/connections"
    for again in ("account_id", "role_arn"):
        world.admin("POST", path, {again: made[again]}, expect=409)
    customer.role(kit["role_name"], kit["trust_policy"])
    assert world.admin("POST", path_of(made, "/verify"))["status"] == "verified"


def test_a_connection_is_made_with_one_well_formed_arn_or_account(world):
    tenant = world.tenant()
    path, account = f"/v1/tenants/{tenant['id']}/connections", "111111111111"
    both = {"account_id": account, "role_arn": f"arn:aws:iam::{account}:role/deputy-x"}
    odd = (account[1:], f"{account}1", "\u0661" * 12, int(account), None, f"{account}\n")
    for body in ({}, both, *({"account_id": value} for value in odd)):
        problem = world.admin.refused("POST", path, body, expect=422, code="validation_failed")
        assert set(problem["errors"]) <= {"role_arn", "account_id"}
    vendors = find_in_account(world, tenant, "111122223333", expect=422)
    assert vendors["code"] == "role_not_allowed"
    assert vendors["errors"] == {"account_id": [vendors["detail"]]}
    assert world.admin("GET", path)["items"] == []


def test_fifty_searches_are_enough_and_a_suspension_is_no_way_around_that(world, monkeypatch):
    """What costs the vendor hourly calls for two weeks must not be had by listing account ids."""
    assert SEARCHES.amount == 50
    monkeypatch.setattr(connections, "SEARCHES", SEARCHES._replace(most=2))
    tenant, customers = world.tenant(), [Customer(world.aws) for _ in range(4)]
    kit = world.kit(tenant)

    def post(connection, action, expect=200):
        body = {} if action == "/verify" else {"reason": "x"}
        return world.admin("POST", path_of(connection, action), body, expect=expect)

    first, second = (find_in_account(world, tenant, one.account) for one in customers[:2])
    refused = find_in_account(world, tenant, customers[2].account, expect=429)
    assert "at most 2;" in refused["detail"]
    world.connect(tenant, world.role(tenant))  # a role that is there is no search

    post(first, "/suspend")
    another = find_in_account(world, tenant, customers[2].account)
    assert "at most 2;" in post(first, "/resume", expect=429)["detail"]
    assert world.admin("GET", path_of(first))["status"] == "suspended"
    world.admin("DELETE", path_of(another), expect=204)
    assert post(first, "/resume")["status"] == "pending"

    customers[1].role(kit["role_name"], kit["trust_policy"])
    assert post(second, "/verify")["status"] == "verified"
    find_in_account(world, tenant, customers[3].account)
    post(second, "/suspend")
    assert post(second, "/resume")["status"] == "verified"
    assert post(first, "/resume", expect=409)["code"] == "conflict", "it is not suspended"


def test_a_proven_role_that_waits_for_approval_is_no_search(world, monkeypatch):
    monkeypatch.setattr(connections, "SEARCHES", SEARCHES._replace(most=1))
    tenant, customer, wanted = world.tenant(), Customer(world.aws), "bucket-sync"
    own, path = world.key("connections:write", tenant=tenant), f"/v1/tenants/{tenant['id']}"

    def search(account, expect):
        body = {"account_id": account, "permission_set": wanted}
        return own("POST", f"{path}/connections", body, expect=expect)

    made = search(customer.account, 201)
    kit = world.admin("GET", f"{path}/onboarding?permission_set={wanted}")
    customer.role(kit["role_name"], kit["trust_policy"])
    assert world.verify(made)["awaiting_approval"] is True
    search(Customer(world.aws).account, 201)
    link = world.admin("POST", f"{path}/onboarding-links", expect=201)
    links = world.services.links
    visit = links.open(link["url"].rpartition("/")[2], None)
    with pytest.raises(ConflictError):
        links.stop_looking(visit, UUID(made["id"]))


def test_a_summary_counts_by_status(world):
    tenant = world.tenant()
    path = f"/v1/tenants/{tenant['id']}/connections/summary"
    assert world.admin("GET", path) == {"total": 0, "reprove_every": 3600, "by_status": {}}
    world.connection(tenant)
    for _ in range(2):
        find_in_account(world, tenant, Customer(world.aws).account)
    gone = find_in_account(world, tenant, Customer(world.aws).account)
    world.admin("DELETE", path_of(gone), expect=204)
    found = world.admin("GET", path)
    assert found == {"total": 3, "reprove_every": 3600, "by_status": {"verified": 1, "pending": 2}}
    listed = world.admin("GET", f"/v1/tenants/{tenant['id']}/connections")["items"]
    assert Counter(one["status"] for one in listed) == found["by_status"]
