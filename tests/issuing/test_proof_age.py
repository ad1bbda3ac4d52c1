"""Past PROOF_MAX_AGE nothing is issued before a fresh proof, whatever is cached (invariant 13;
docs/architecture.md).

The clock is moved.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from unittest.mock import Mock
from uuid import UUID

import pytest
import time_machine

from app import services as composition
from app.clock import now
from app.concurrency.places import waiting
from app.config import ProofConfig
from app.factory import create_app
from app.store.models import Trigger
from tests.conftest import make_config
from tests.support.cast import Customer, World, path_of, without_external_id
from tests.support.databases import new_database
from tests.support.rows import ADMIN, at_once

pytestmark = pytest.mark.usefixtures("impatient")
MAX_AGE = 600
PROBES = 3


class Scene:
    """A proven connection, and two services on its database, as two processes are."""

    def __init__(self, aws, url):
        config = make_config(url, proof_max_age=MAX_AGE)
        app = create_app(config)
        app.testing = False
        self.services, self.others = app.extensions["deputy"], composition.Services(config)
        self.world = World.of(aws, app)
        self.customer = Customer(aws)
        self.renew()

    def renew(self):
        tenant = self.world.tenant()
        self.kit = self.world.kit(tenant)
        self.connection = self.world.connection(tenant, self.customer)

    def issue(self, **options):
        return self.world.admin("POST", path_of(self.connection, "/credentials"), **options)

    def read(self):
        return self.world.read(self.connection)

    @property
    def calls(self):
        return len(self.world.calls_for(self.connection["role_arn"]))

    @property
    def ids(self):
        return UUID(self.connection["tenant_id"]), UUID(self.connection["id"])


@pytest.fixture(scope="module")
def built(aws, vendor) -> Iterator[Scene]:
    with new_database() as url:  # nothing here depends on the database
        scene = Scene(aws, url)
        yield scene
        scene.services.db.engine.dispose()
        scene.others.db.engine.dispose()


@pytest.fixture
def scene(built) -> Scene:
    built.renew()
    return built


def expired():
    """A clock past the shelf life of what was proven until now; sessions are still good then."""
    return time_machine.travel(now().timestamp() + MAX_AGE + 1)


def test_past_proof_max_age_one_routine_proof_comes_first_for_all_requests(scene):
    first = scene.issue()
    before = scene.calls
    with time_machine.travel(now().timestamp() + MAX_AGE - 60):
        assert (scene.issue(), scene.calls) == (first, before)
    with expired():
        for _ in range(2):
            assert at_once([scene.issue] * 8) == [first] * 8
            assert scene.calls == before + PROBES
        found = scene.read()
        assert (
            found["verified_at"]
            == found["verification"]["checked_at"]
            > scene.connection["verified_at"]
        )
    [proof] = scene.world.admin("GET", path_of(scene.connection, "/proofs"))["items"]
    assert (proof["count"], proof["trigger"], proof["first_at"]) == (
        2,
        "created",
        scene.connection["verified_at"],
    )


@pytest.mark.parametrize("calls", [PROBES, PROBES + 1])
def test_the_calls_of_a_proof_for_issuing_count_for_the_tenant(scene, monkeypatch, calls):
    admitted = []
    monkeypatch.setattr(ProofConfig, "routine_calls", calls)
    monkeypatch.setattr(scene.services.rates, "acquire_session", admitted.append)
    scene.issue()
    admitted.clear()
    with expired():
        scene.issue()
    assert admitted == [scene.ids[0]] * calls


def test_a_proof_that_another_process_made_is_read_and_not_repeated(scene):
    """It counted up, and a count does not increment the revocation counter: the memory of this
    process still holds the earlier one.
    """
    first = scene.issue()
    with expired():
        scene.others.verification.verify(ADMIN, *scene.ids, trigger=Trigger.SCHEDULED)
        before = scene.calls
        assert scene.issue() == first
    assert scene.calls == before


def test_an_inconclusive_proof_is_a_503_and_nothing_cached_is_served(scene, faults):
    first = scene.issue()
    with expired():
        faults.add("throttle", role_arn=scene.connection["role_arn"])
        for what, method in (("/credentials", "POST"), ("/container-credentials", "GET")):
            answer = scene.world.admin.raw(method, path_of(scene.connection, what))
            assert (answer.status_code, answer.headers["X-Deputy-Code"]) == (503, "proof_expired")
            assert int(answer.headers["Retry-After"]) > 0
            assert first["SecretAccessKey"] not in answer.text
        assert scene.read()["status"] == "verified"
        faults.clear()
        assert scene.issue() == first
    events = scene.world.audit(connection_id=scene.connection["id"], action="credentials.refused")
    assert [event["details"]["code"] for event in events] == ["proof_expired"] * 2


def test_a_loosened_role_that_is_found_by_issuing_gets_nothing(scene):
    scene.issue()
    with expired():
        scene.customer.retrust(
            scene.kit["role_name"], without_external_id(scene.kit["trust_policy"])
        )
        problem = scene.world.admin.refused(
            "POST",
            path_of(scene.connection, "/credentials"),
            expect=409,
            code="connection_not_verified",
        )
        assert problem["detail"]
        assert scene.read()["status"] == "insecure"


def test_slow_answers_end_in_a_503_and_the_proof_goes_on(scene, faults, monkeypatch):
    first = scene.issue()
    before = scene.calls
    with expired():
        # Then it is asked again
        faults.add("timeout", seconds=0.8, role_arn=scene.connection["role_arn"], times=1)
        monkeypatch.setattr("app.issuing.issue._ANSWER_SECONDS", 0.4)
        waits = Mock(side_effect=waiting)
        monkeypatch.setattr("app.concurrency.single_flight.waiting", waits)
        scene.world.admin.refused(
            "POST", path_of(scene.connection, "/credentials"), expect=503, code="proof_expired"
        )
        assert waits.called, "it gives its slot to other requests meanwhile"
        monkeypatch.setattr("app.issuing.issue._ANSWER_SECONDS", 60)
        assert scene.issue() == first
    assert scene.calls - before in {PROBES, PROBES + 1}, "the dropped call may be counted"


def test_the_connection_says_until_when_and_when_next(scene):
    found = scene.read()
    verified_at, until, following = (
        datetime.fromisoformat(found[name])
        for name in ("verified_at", "proven_until", "next_proof_at")
    )
    assert until - verified_at == timedelta(seconds=MAX_AGE)
    assert following - verified_at == timedelta(minutes=2)
    scene.world.suspend(scene.connection)
    found = scene.read()
    assert (found["proven_until"], found["next_proof_at"]) == (None, None)
