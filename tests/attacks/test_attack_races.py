"""Suspending, deleting, revoking or loosening while AWS answers: what has committed wins."""

import copy
import datetime as dt
import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

import psycopg
import pytest
from sqlalchemy import update

from app.aws.role_reader import session_policy
from app.aws.sts import INERT_POLICY
from app.clock import now
from app.identity import api_keys as keys
from app.ids import RoleArn
from app.store.database import SYSTEM
from app.store.models import Connection
from tests.attacks.evidence import issues_nothing, newest, problem
from tests.support.cast import Api, Customer, path_of, root_client, without_external_id
from tests.support.rows import at_once
from tests.support.waiting import until, waiting_for_locks

END = "2090-01-01T00:00:00Z"
REASON = {"reason": "an incident"}


class Case:
    """A verified connection, its worker, and the operator who acts in the middle."""

    def __init__(self, world):
        self.world = world
        self.operator = world.admin.with_key(world.admin.key)
        self.tenant, self.customer = world.tenant(), Customer(world.aws)
        self.kit = world.kit(self.tenant)
        self.connection = world.connection(self.tenant, self.customer)
        wanted = {"name": "w", "scopes": ["credentials:issue"], "tenant_id": self.tenant["id"]}
        self.key = world.admin("POST", "/v1/api-keys", wanted, expect=201)
        self.worker = world.admin.with_key(self.key["key"])
        self.path = path_of(self.connection)
        self.credentials = partial(self.worker, "POST", f"{self.path}/credentials")

    def suspend(self):
        self.operator("POST", f"{self.path}/suspend", REASON)

    def delete(self):
        self.operator("DELETE", self.path, expect=204)

    def delete_and_connect_again(self):
        self.delete()
        self.world.connect(self.tenant, self.connection["role_arn"])

    def suspend_and_resume(self):
        self.suspend()
        assert self.operator("POST", f"{self.path}/resume", REASON)["status"] == "verified"

    def loosen_and_verify(self):
        self.customer.retrust(self.kit["role_name"], without_external_id(self.kit["trust_policy"]))
        assert self.operator("POST", f"{self.path}/verify")["status"] == "insecure"

    def suspend_tenant(self):
        self.operator("POST", f"/v1/tenants/{self.tenant['id']}/suspend", REASON)

    def delete_tenant(self):
        self.operator("DELETE", f"/v1/tenants/{self.tenant['id']}", expect=204)

    def revoke(self):
        self.operator("DELETE", f"/v1/api-keys/{self.key['id']}", expect=204)


@pytest.fixture
def case(world) -> Case:
    return Case(world)


BETWEEN = {
    "suspend": (409, "suspended", "connection.suspended"),
    "delete": (404, "not_found", "connection.deleted"),
    "delete_and_connect_again": (404, "not_found", "connection.verified"),
    "loosen_and_verify": (409, "connection_not_verified", "connection.proof_failed"),
    "suspend_tenant": (409, "suspended", "tenant.suspended"),
    "delete_tenant": (401, "unauthenticated", "tenant.deleted"),
    "revoke": (401, "unauthenticated", "api_key.revoked"),
}


def issuances(world, case):
    """The calls for this role that are no proof's."""
    role_arn = case.connection["role_arn"]
    probes = {INERT_POLICY, session_policy(RoleArn.parse(role_arn))}
    return [call for call in world.calls_for(role_arn) if call.policy not in probes]


@pytest.mark.parametrize(
    ("what", "shape"),
    [*((what, "/credentials") for what in BETWEEN), ("suspend", "/container-credentials")],
)
def test_credentials_that_aws_gave_meanwhile_are_dropped(world, case, meanwhile, what, shape):
    status, code, action = BETWEEN[what]
    happened = meanwhile("assume", getattr(case, what))
    method = "POST" if shape == "/credentials" else "GET"
    issues_nothing(case.worker, case.connection, status, code, (method, shape))
    assert happened
    [call] = issuances(world, case)
    assert call.outcome == "allowed"  # AWS did give a session; nobody has it
    events = [e for e in newest(world) if e["tenant_id"] in {case.tenant["id"], None}]
    assert events[0]["action"] == "credentials.refused"
    assert events[0]["details"]["code"] == code
    assert action in {event["action"] for event in events[1:5]}
    assert world.audit(tenant_id=case.tenant["id"], action="credentials.issued") == []


def test_a_session_of_an_earlier_version_is_dropped_and_another_made(world, case, meanwhile):
    meanwhile("assume", case.suspend_and_resume)
    issued = case.credentials()
    calls = issuances(world, case)
    assert [call.outcome for call in calls] == ["allowed", "allowed"]
    (event,) = world.audit(tenant_id=case.tenant["id"], action="credentials.issued")
    assert event["details"]["access_key_id"] == issued["AccessKeyId"]
    assert event["details"]["session_name"] == calls[-1].session_name


def test_a_key_that_expires_meanwhile_gets_nothing(world, case, meanwhile, monkeypatch):
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5)
    worker = world.key("credentials:issue", tenant=case.tenant, expires_at=soon.isoformat())
    later = soon + dt.timedelta(seconds=1)
    expire = partial(monkeypatch.setattr, "app.identity.principals.now", lambda: later)
    meanwhile("assume", expire)
    issues_nothing(worker, case.connection, 401, "unauthenticated")
    assert world.audit(tenant_id=case.tenant["id"], action="credentials.issued") == []


def test_an_issuance_that_cannot_be_recorded_is_dropped(world, case, monkeypatch):
    """Invariant 9 (docs/architecture.md), also of a session that is cached, with an authorization
    that is.

    No real part fails on demand just there, so the write itself is made to.
    """

    def full(*_args, **_kwargs):
        raise psycopg.OperationalError("disk full: dpk_ and other secrets")

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr("app.audit.batch_insert.AuditBatch._insert", full)
            refused = case.credentials(expect=503)
        assert refused["code"] == "unavailable"
        assert "disk" not in str(refused)
        case.credentials()


def test_a_role_made_again_between_proof_and_issue_gives_nothing(world, case):
    case.customer.remove_role(case.kit["role_name"])
    again = case.customer.role(case.kit["role_name"], case.kit["trust_policy"])
    assert again == case.connection["role_arn"]
    issues_nothing(case.worker, case.connection)
    assert world.admin("GET", case.path)["status"] == "pending"
    event = world.audit(connection_id=case.connection["id"], action="connection.role_recreated")[0]
    assert (event["outcome"], event["tenant_id"]) == ("refused", case.tenant["id"])
    calls = len(world.calls_for(again))
    issues_nothing(case.worker, case.connection)
    assert len(world.calls_for(again)) == calls
    assert world.admin("POST", f"{case.path}/verify")["status"] == "verified"
    assert case.credentials()["AccessKeyId"]


GONE = [
    ("probe_foreign", "delete"),
    ("probe_missing", "suspend"),
    ("probe_own", "delete_and_connect_again"),
    ("probe_own", "delete_tenant"),
    ("probe_own", "suspend_tenant"),
]


@pytest.mark.parametrize("gone", GONE, ids=" then ".join)
def test_a_proof_of_what_is_gone_or_stopped_meanwhile_does_not_count(world, case, meanwhile, gone):
    call, what = gone
    expected = (409, "suspended") if what.startswith("suspend") else (404, "not_found")
    meanwhile(call, getattr(case, what))
    problem(world.admin.raw("POST", f"{case.path}/verify"), *expected)
    if what == "suspend":
        assert world.admin("GET", case.path)["status"] == "suspended"


def test_a_proof_counts_only_for_the_version_that_it_tested(world, case, meanwhile):
    """The outer proof saw a sound role; a later one, quicker, found it loosened. The later word
    stands.
    """
    case.suspend()
    meanwhile("probe_foreign", case.loosen_and_verify)
    assert world.admin("POST", f"{case.path}/resume", REASON)["status"] == "insecure"
    assert world.admin("GET", case.path)["status"] == "insecure"


class Labelled:
    """A verified connection to a role that has the tag of the set `inventory`, and reads itself."""

    def __init__(self, world, customer):
        self.aws, self.account = world.aws, customer.account
        tenant = world.tenant()
        self.kit = world.kit(tenant)
        name, trust = self.kit["role_name"], self.kit["trust_policy"]
        self.arn = customer.reading_itself(name, trust, Tags=self.tags("inventory@1"))
        self.path = path_of(world.connect(tenant, self.arn))
        self.narrow = world.key("credentials:issue", tenant=tenant, permission_sets=["inventory"])
        self.narrow("POST", f"{self.path}/credentials")

    def tags(self, label):
        return [{"Key": "deputy:permission-set", "Value": label}]

    def label(self, label):
        with closing(root_client(self.aws, "iam", self.account)) as iam:
            iam.tag_role(RoleName=self.kit["role_name"], Tags=self.tags(label))

    def refuses_key_of_inventory(self):
        problem(self.narrow.raw("POST", f"{self.path}/credentials"), 403, "forbidden")


@pytest.mark.parametrize(("slow", "call"), [("verify", "probe_foreign"), ("diagnose", "view")])
def test_what_a_slow_request_read_of_the_role_replaces_a_later_ones_reading_for_a_moment_only(
    world, customer, meanwhile, slow, call
):
    """A key for another permission set would get credentials of the role again."""
    role = Labelled(world, customer)

    def change_and_verify():
        role.label("bucket-sync@1")
        trust = copy.deepcopy(role.kit["trust_policy"])
        trust["Statement"][0]["Condition"]["DateLessThan"] = {"aws:CurrentTime": END}
        customer.retrust(role.kit["role_name"], trust)
        world.admin.with_key(world.admin.key)("POST", f"{role.path}/verify")
        role.refuses_key_of_inventory()

    meanwhile(call, change_and_verify)
    world.admin("POST", f"{role.path}/{slow}")
    if slow == "verify":  # which of the two read last is unknown, so another proof follows at once
        due_at = world.admin("GET", role.path)["next_proof_at"]
        assert dt.datetime.fromisoformat(due_at) <= now()
        world.admin("POST", f"{role.path}/verify")
    role.refuses_key_of_inventory()
    assert world.admin("GET", role.path)["access_until"] == END.replace("Z", "+00:00")


def test_a_proof_counts_although_another_is_stored_before_it(world, customer, meanwhile):
    """Otherwise a tenant could keep all proofs from counting, by two chains of requests."""
    role = Labelled(world, customer)
    role.label("bucket-sync@1")

    def store_another():
        with world.services.db.write(SYSTEM) as db:
            connection = update(Connection).where(Connection.role_arn == role.arn)
            db.execute(connection.values(tried_at=now() - dt.timedelta(seconds=10)))

    meanwhile("probe_foreign", store_another)
    world.admin("POST", f"{role.path}/verify")
    role.refuses_key_of_inventory()


def statuses_at_once(world, *requests, times=3):
    """Each request so many times, all requests at the same time. A key comes before the method."""

    def repeat(key, *request):
        api = Api(world.admin.app, key)
        return [api.raw(*request).status_code for _ in range(times)]

    done = at_once([partial(repeat, *request) for request in requests])
    return sorted(itertools.chain.from_iterable(done))


def test_the_same_role_or_reference_at_once_is_one_connection_or_tenant(world):
    tenant = world.tenant()
    path, admin = f"/v1/tenants/{tenant['id']}/connections", world.admin.key
    twin = {"name": "Twin", "reference": f"twin-{tenant['id']}"}
    for request in (
        ("POST", path, {"role_arn": world.role(tenant)}),
        ("POST", "/v1/tenants", twin),
    ):
        assert statuses_at_once(world, *[(admin, *request)] * 6, times=1) == [201] + [409] * 5
    assert len(world.admin("GET", path)["items"]) == 1


def test_a_storm_of_everything_at_once_ends_in_order(world, case):
    """No deadlock, no 500, and after the last word nothing is issued."""
    tenant, admin, path = f"/v1/tenants/{case.tenant['id']}", world.admin.key, case.path
    issue = (case.key["key"], "POST", f"{path}/credentials")
    statuses = statuses_at_once(
        world,
        *[issue] * 3,
        (admin, "POST", f"{path}/suspend", REASON),
        (admin, "POST", f"{path}/resume", REASON),
        (admin, "POST", f"{path}/verify"),
        (admin, "POST", f"{tenant}/suspend", REASON),
        (admin, "POST", f"{tenant}/resume", REASON),
    )
    assert set(statuses) <= {200, 409}
    statuses = statuses_at_once(
        world,
        *[issue] * 2,
        (admin, "DELETE", f"/v1/api-keys/{case.key['id']}"),
        (admin, "DELETE", tenant),
        (admin, "DELETE", path),
    )
    assert set(statuses) <= {200, 204, 401, 404, 409}
    issues_nothing(world.admin, case.connection, 404, "not_found")


def test_a_key_made_while_its_tenant_is_deleted_does_not_outlive_it(world, case, monkeypatch):
    """Everything bound to a tenant is revoked with it; a key that is being made just then must
    not slip by.
    """
    looked_up, deleting, pool = keys.tenant_of, [], ThreadPoolExecutor(1)
    db = world.services.db

    def slow(*args, **kwargs):
        found = looked_up(*args, **kwargs)
        if not deleting:
            deleting.append(None)
            deleting[0] = pool.submit(case.delete_tenant)
            until(lambda: waiting_for_locks(db) or deleting[0].done())
        return found

    monkeypatch.setattr(keys, "tenant_of", slow)
    wanted = {"name": "late", "scopes": ["audit:read"], "tenant_id": case.tenant["id"]}
    made = world.admin.raw("POST", "/v1/api-keys", wanted)
    deleting[0].result(timeout=30)
    pool.shutdown()
    if made.status_code == 201:
        late = world.admin.with_key(made.get_json()["key"])
        problem(late.raw("GET", "/v1/audit-events"), 401, "unauthenticated")
    else:
        problem(made, 404, "not_found")
