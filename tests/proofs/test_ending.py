"""An access that ends when the customer set it to: read in advance, and not taken for a role
that was lost.
"""

import copy
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import update

from app.clock import now
from app.store.database import SYSTEM
from app.store.models import Connection, Trigger
from tests.support.cast import path_of
from tests.support.rows import ADMIN

pytestmark = pytest.mark.usefixtures("impatient")


class Access:
    """A role with an end, and its connection."""

    def __init__(self, world, customer, *, reads_itself=True):
        self.world, self.customer = world, customer
        self.tenant = world.tenant()
        self.kit = world.kit(self.tenant)
        self.until = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=10)
        make = customer.reading_itself if reads_itself else customer.role
        self.connection = world.connect(
            self.tenant, make(self.kit["role_name"], self.trust(self.until))
        )
        self.services = world.services

    def trust(self, until):
        trust = copy.deepcopy(self.kit["trust_policy"])
        if until is not None:
            condition = {"aws:CurrentTime": until.strftime("%Y-%m-%dT%H:%M:%SZ")}
            trust["Statement"][0]["Condition"]["DateLessThan"] = condition
        return trust

    @contextmanager
    def ended(self):
        """Some minutes later at AWS. Deputy's clock stays, so for it the time is moved."""
        passed = now() - timedelta(minutes=5)
        self.set(access_until=passed)
        with self.world.aws.later(minutes=12):
            yield passed

    def set(self, **values):
        with self.services.db.write(SYSTEM) as db:
            db.execute(
                update(Connection)
                .where(Connection.role_arn == self.connection["role_arn"])
                .values(**values)
            )

    def verify(self):
        return self.world.verify(self.connection)


@pytest.fixture
def access(world, customer) -> Access:
    return Access(world, customer)


def test_the_end_is_read_in_advance_and_a_proof_is_due_just_then(access):
    assert access.connection["status"] == "verified"
    assert access.connection["access_until"] == access.until.isoformat()
    [warning] = access.connection["verification"]["warnings"]
    assert warning["name"] == "trust_policy_ends_access"
    access.set(due_since=now() - timedelta(days=1), access_until=now() + timedelta(minutes=5))
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=2)
    access.customer.retrust(access.kit["role_name"], access.trust(soon))
    found = access.verify()
    assert found["access_until"] == soon.isoformat()
    assert datetime.fromisoformat(found["next_proof_at"]) <= soon + timedelta(seconds=30)


def test_past_its_end_a_connection_is_ended_says_when_and_issues_nothing_until_a_later_end(access):
    tenant = f"/v1/tenants/{access.tenant['id']}/connections"
    with access.ended() as at:
        found = access.verify()
        words = f"Its access ended on {at:%-d %B %Y, %H:%M} UTC, as the customer set."
        assert (found["status"], found["issues"], found["why"]) == ("ended", False, words)
        access.world.admin.refused(
            "POST",
            path_of(access.connection, "/credentials"),
            expect=409,
            code="connection_not_verified",
        )
        assert access.verify()["status"] == "ended"
        diagnosis = access.world.admin("POST", path_of(access.connection, "/diagnose"))
        assert diagnosis["conclusion"] == words
        steps = {step["name"]: step for step in diagnosis["steps"]}
        assert steps["role"]["fix"].startswith("Customer: to continue the access, set AccessUntil")
        assert {steps[name]["outcome"] for name in ("mfa", "organization", "permissions")} == {
            "skipped"
        }
        assert access.world.admin("GET", f"{tenant}/summary")["by_status"] == {"ended": 1}
        [listed] = access.world.admin("GET", f"{tenant}?status=ended")["items"]
        assert listed["id"] == access.connection["id"]
        assert access.world.admin("GET", f"{tenant}?status=broken")["items"] == []
        later = access.until + timedelta(days=1)
        access.customer.retrust(access.kit["role_name"], access.trust(later))
        found = access.verify()
        assert (found["status"], found["access_until"], found["why"]) == (
            "verified",
            later.isoformat(),
            None,
        )
        access.customer.retrust(access.kit["role_name"], access.trust(None))
        assert access.verify()["access_until"] is None


def test_a_routine_proof_does_not_doubt_an_end(access):
    """A refusal that nobody expects would be asked again in a minute, and counted among the
    roles that refuse us.
    """
    with access.ended():
        found = access.services.verification.verify(
            ADMIN,
            UUID(access.tenant["id"]),
            UUID(access.connection["id"]),
            trigger=Trigger.SCHEDULED,
        )
        assert (found.status.value, found.refusing_since) == ("ended", None)
    [event] = access.world.audit(
        action="connection.proof_failed", connection_id=access.connection["id"]
    )
    assert event["details"]["status"] == "ended"
    assert "exposed_for_seconds_at_most" not in event["details"]  # it is no drift


def test_an_end_that_was_read_is_kept_though_the_role_still_works_by_aws_clock(access):
    """Deputy's clock may be ahead, and a proof takes a moment."""
    passed = access.until - timedelta(minutes=11)
    access.customer.retrust(access.kit["role_name"], access.trust(passed))
    with access.world.aws.later(minutes=-5):
        proven = access.verify()
    assert (proven["status"], proven["access_until"]) == ("verified", passed.isoformat())
    assert access.verify()["status"] == "ended"


def test_an_end_long_ago_of_a_role_that_works_ends_nothing(access):
    """Another condition of the statement narrows it, such as one about addresses."""
    trust = access.trust(None)
    deny = copy.deepcopy(trust["Statement"][0]) | {"Effect": "Deny"}
    date = {"DateGreaterThan": {"aws:CurrentTime": "2026-01-01T00:00:00Z"}}
    deny["Condition"] = date | {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}
    trust["Statement"].append(deny)
    access.customer.retrust(access.kit["role_name"], trust)
    proven = access.verify()
    assert (proven["status"], proven["access_until"]) == ("verified", None)


def test_a_role_that_is_gone_before_its_end_is_broken(access):
    access.customer.remove_role(access.kit["role_name"])
    found = access.verify()
    assert (found["status"], found["access_until"]) == ("broken", access.until.isoformat())
    assert "ended" not in found["why"]


def test_a_role_that_may_not_read_itself_tells_no_end_and_an_earlier_end_is_forgotten(
    world, customer
):
    """That was taken away together with the right to read itself."""
    access = Access(world, customer, reads_itself=False)
    assert access.connection["access_until"] is None
    access.set(access_until=now() - timedelta(minutes=1))
    proven = access.verify()
    assert (proven["status"], proven["access_until"]) == ("verified", None)
    with world.aws.later(minutes=12):
        assert access.verify()["status"] == "broken"
