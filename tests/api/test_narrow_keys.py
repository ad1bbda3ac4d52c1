"""Keys for some permission sets only: no credentials of other connections, and no wider key made
or taken over.
"""

from functools import cached_property
from uuid import UUID

import pytest

from tests.support.cast import Api, path_of

READ, WRITE = "inventory", "bucket-sync"
REPORTED = "connection.refusal_reported"


class Case:
    """A tenant with a connection of either set, and a scanner's key that is for one of them."""

    def __init__(self, world, bound):
        self.world, self.tenant = world, world.tenant()
        self.read = world.connection(self.tenant)
        self.scanner = world.key(
            "credentials:issue", tenant=self.tenant if bound else None, permission_sets=[READ]
        )

    @cached_property
    def write(self):
        path = f"/v1/tenants/{self.tenant['id']}/connections"
        body = {"role_arn": self.world.role(self.tenant), "permission_set": WRITE}
        made = self.world.admin("POST", path, body, expect=201)
        assert made["status"] == "verified"
        return made


@pytest.fixture(params=[True, False], ids=["bound", "unbound"])
def case(world, request) -> Case:
    return Case(world, request.param)


def test_a_key_gets_no_credentials_of_another_set_and_reports_no_refusal(case):
    """In both lanes: the fast one takes `Bearer`, and any other case is Flask's."""
    before = len(case.world.calls_for(case.write["role_arn"]))
    ways = [("POST", "/credentials"), ("GET", "/container-credentials")]
    for method, way in ways:
        for scheme in ("Bearer", "bearer"):
            headers = {"Authorization": f"{scheme} {case.scanner.key}"}
            response = case.scanner.raw(method, path_of(case.write, way), headers=headers)
            assert response.status_code == 403
            assert response.get_json()["code"] == "forbidden"
            event = case.world.audit(action="credentials.refused", connection_id=case.write["id"])[
                0
            ]
            assert event["request_id"] == response.headers["X-Request-Id"]
            assert event["details"]["code"] == "forbidden"
            assert event["tenant_id"] == case.tenant["id"]
    report = path_of(case.write, "/report-refused")
    case.scanner.refused("POST", report, expect=403, code="forbidden")
    assert case.world.audit(connection_id=case.write["id"], action=REPORTED) == []
    assert len(case.world.calls_for(case.write["role_arn"])) == before
    without_sets = case.world.key("credentials:issue", tenant=case.tenant)
    for method, way in ways:
        assert case.scanner.raw(method, path_of(case.read, way)).status_code == 200
        assert without_sets.raw(method, path_of(case.write, way)).status_code == 200
    assert case.scanner.raw("POST", path_of(case.read, "/report-refused")).status_code == 202


@pytest.mark.parametrize(
    ("case", "change"),
    [
        (True, "UPDATE connections SET permission_set = 'bucket-sync' WHERE id = :connection"),
        (False, "UPDATE api_keys SET permission_sets = '[\"bucket-sync\"]' WHERE lookup = :key"),
    ],
    indirect=["case"],
)
def test_a_change_of_sets_takes_effect_at_once_in_every_process(case, start, by_hand, change):
    elsewhere, path = Api(start({}), case.scanner.key), path_of(case.read, "/credentials")
    for api in (case.scanner, elsewhere):  # both remember key and connection from here on
        api("POST", path)
    ids = {"connection": UUID(case.read["id"]).hex, "key": case.scanner.key[4:20]}
    by_hand(change, **{name: value for name, value in ids.items() if f":{name}" in change})
    for api in (case.scanner, elsewhere):
        api.refused("POST", path, expect=403, code="forbidden")


def test_sets_are_some_that_there_are(world):
    for sets in (["no-such-set"], [READ, "no-such-set"], [], "inventory", [7], [READ] * 101):
        body = {"name": "a scanner", "scopes": ["credentials:issue"], "permission_sets": sets}
        problem = world.admin.refused(
            "POST", "/v1/api-keys", body, expect=422, code="validation_failed"
        )
        assert all(field.startswith("permission_sets") for field in problem["errors"])


def test_a_narrow_key_makes_only_keys_that_are_as_narrow_and_ends_no_wider_one(world):
    narrow = world.key("keys:write", "credentials:issue", permission_sets=[READ])
    body = {"name": "a scanner", "scopes": ["credentials:issue"]}
    for sets in ([WRITE], [READ, WRITE]):
        narrow.refused(
            "POST", "/v1/api-keys", body | {"permission_sets": sets}, expect=403, code="forbidden"
        )
    for more in ({}, {"permission_sets": None}, {"permission_sets": [READ]}):
        assert narrow("POST", "/v1/api-keys", body | more, expect=201)["permission_sets"] == [READ]
    for sets in (None, [WRITE], [READ, WRITE]):
        made = world.admin("POST", "/v1/api-keys", body | {"permission_sets": sets}, expect=201)
        path = f"/v1/api-keys/{made['id']}"
        for method, suffix in (("DELETE", ""), ("POST", "/replace")):
            narrow.refused(method, path + suffix, expect=403, code="forbidden")
        assert world.admin("GET", path)["expires_at"] is None
