"""The canary and the stranger, as canary.yaml makes them: what each state of the vendor's side
does to proofs.
"""

import copy
import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from flask import Flask

from app.aws.errors import Misconfigured, Refused, Unavailable
from app.clock import now
from app.concurrency.single_flight import SingleFlight
from app.factory import create_app
from app.ids import RoleArn
from app.proofs.calls_and_verdict import ProofFinding
from app.proofs.canary import Canary, Sight, _sight
from app.store.models import Verdict
from tests.conftest import StoppedClock, make_config, with_settings
from tests.model.stage import without_sockets
from tests.support.cast import Customer, World, path_of, root_client, without_external_id
from tests.support.databases import new_database
from tests.support.flights import joins
from tests.support.waiting import until
from tests.web.conftest import visit

pytestmark = pytest.mark.usefixtures("impatient")

FOUR = [
    "own_external_id_accepted",
    "account_matches",
    "missing_external_id_refused",
    "foreign_external_id_refused",
]
MINUTE = 60  # seconds: what the canary said longer ago does not count
EVENTS = ("prober.sighted", "prober.blinded", "prober.canary_lost")


class Deployment:
    """A process of a deployment that has both roles."""

    def __init__(self, aws, app, stack):
        self.services = app.extensions["deputy"]
        self.world = World.of(aws, app)
        self.stack = stack
        self.canary = self.services.verification._canary
        self.sts = self.services.verification._sts

    def sight(self):
        return self.canary.ask_canary(self.sts)

    def judge(self, connection):
        """A proof of which only the canary's part is left."""
        proven = ProofFinding(Verdict.PROVEN, (), "AROA")
        return self.canary.discount_refusals(self.sts, proven, connection)

    def asked(self):
        """The calls to the vendor's own two roles: who asked which one, and whether with an
        External ID.
        """
        return [
            (
                call.caller_arn.split("/")[1],
                call.role_arn.split("/")[1],
                call.external_id is not None,
            )
            for role in (self.stack.canary_role_arn, self.stack.stranger_role_arn)
            for call in self.world.calls_for(role)
        ]

    def told(self):
        """The prober's events, oldest first."""
        return [e["action"] for e in reversed(self.world.audit()) if e["action"] in EVENTS]

    def readiness(self):
        for kept in self.services.health._checks:
            kept._last = kept._last[0], 0.0
        return next(
            {"status": found.status.value, "seen": found.seen, "next": found.next}
            for name, found in self.services.health.findings(patience=None)
            if name == "prober"
        )


@pytest.fixture(scope="module")
def app(aws, canary_stack) -> Iterator[Flask]:
    with new_database() as url:
        with without_sockets(aws):
            application = create_app(make_config(url, **roles_of(canary_stack)))
        yield application
        application.extensions["deputy"].db.engine.dispose()


def roles_of(stack):
    return {
        name: RoleArn.parse(getattr(stack, name))
        for name in ("canary_role_arn", "stranger_role_arn")
    }


@pytest.fixture(scope="module")
def _deployment(aws, app, canary_stack):
    return Deployment(aws, app, canary_stack)


@pytest.fixture(scope="module")
def _canary_clock():
    """It dates the looks at the canary, and stands still until a test moves it."""
    return StoppedClock()


@pytest.fixture
def canary_clock(_canary_clock, monkeypatch):
    monkeypatch.setattr("app.proofs.canary.time", _canary_clock)
    return _canary_clock


@pytest.fixture
def deployment(_deployment, canary_clock, aws, faults) -> Deployment:
    """Sighted, with an answer that is too old to count."""
    canary_clock.move(MINUTE)
    _deployment.sight()
    canary_clock.move(MINUTE)
    assert _deployment.told()[-1] == "prober.sighted"
    aws.sts_calls.clear()
    return _deployment


@pytest.fixture
def world(deployment) -> World:
    return deployment.world


def diagnosis_of(world, made, step):
    found = world.admin("POST", path_of(made, "/diagnose"))
    return next((it["outcome"], it["detail"]) for it in found["steps"] if it["name"] == step)


def outcomes(connection):
    """Of the calls; what is read is another matter."""
    checks = connection["verification"]["checks"]
    return {
        check["name"]: check["outcome"]
        for check in checks
        if not check["name"].startswith("trust_policy")
    }


@contextmanager
def blind(deployment):
    """One more policy of the broker's, which its administrator means well with: it demands an
    External ID.
    """
    account = deployment.stack.broker_principal_arn.split(":")[4]
    document = json.dumps({"Version": "2012-10-17", "Statement": [DEMANDS_AN_ID]})
    iam = root_client(deployment.world.aws, "iam", account)
    iam.put_role_policy(RoleName="DeputyBroker", PolicyName="hardening", PolicyDocument=document)
    try:
        yield
    finally:
        iam.delete_role_policy(RoleName="DeputyBroker", PolicyName="hardening")


def stranger_calls(world, connection):
    return [
        call for call in world.calls_for(connection["role_arn"]) if "stranger" in call.caller_arn
    ]


def remove_role(world, connection):
    owner = Customer(world.aws)
    owner.account = connection["account_id"]
    owner.remove_role(connection["role_arn"].partition("/")[2])


def kit_role(world, customer, change):
    """A tenant, and its role with the kit's trust policy, changed."""
    tenant = world.tenant()
    kit = world.kit(tenant)
    return tenant, customer.role(kit["role_name"], change(kit["trust_policy"]))


DEMANDS_AN_ID = {
    "Effect": "Deny",
    "Action": "sts:AssumeRole",
    "Resource": "*",
    "Condition": {"Null": {"sts:ExternalId": "true"}},
}


@contextmanager
def canary_trust(deployment, change):
    """The canary's trust policy, changed for a while."""
    name = "deputy-canary"
    account = deployment.stack.canary_role_arn.split(":")[4]
    iam = root_client(deployment.world.aws, "iam", account)
    good = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    changed = copy.deepcopy(good)
    change(changed["Statement"][0])
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(changed))
    try:
        yield
    finally:
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(good))


def of_nobody(statement):
    statement["Effect"] = "Deny"


def without_the_stranger(statement):
    arns = statement["Condition"]["ArnEquals"]["aws:PrincipalArn"]
    statement["Condition"]["ArnEquals"]["aws:PrincipalArn"] = [
        arn for arn in arns if "stranger" not in arn
    ]


# --- sighted ---


def test_the_canary_is_asked_once_a_minute_for_all_proofs_that_confirm_a_connection(
    deployment, world, canary_clock
):
    """Its calls are within the STS budget. A role as the kit asks for it passes all five checks."""
    made, counted = world.proven(), []
    assert outcomes(made) == dict.fromkeys([*FOUR, "stranger_refused"], "passed")
    assert diagnosis_of(world, made, "canary") == ("ok", deployment.readiness()["seen"])
    first = deployment.asked()
    assert sorted(first) == [
        ("DeputyBroker", "deputy-canary", False),
        ("DeputyBroker", "deputy-canary", True),
        ("deputy-stranger", "deputy-canary", True),
    ], "and the stranger's session was opened before"
    canary_clock.move(MINUTE - 1)
    for _ in range(2):
        world.verify(made)
    assert deployment.asked() == first
    canary_clock.move(1)
    world.verify(made)
    assert len(deployment.asked()) == 2 * len(first)

    @contextmanager
    def budget():
        counted.append(1)
        yield

    canary_clock.move(MINUTE)
    deployment.canary.ask_canary(deployment.sts.with_budget(budget))
    assert len(counted) == len(deployment.asked()) - 2 * len(first) == 3


# --- blind ---


def if_exists(policy):
    """Accepts a call without an External ID, and refuses another one."""
    changed = copy.deepcopy(policy)
    condition = changed["Statement"][0]["Condition"]
    condition["StringEqualsIfExists"] = condition.pop("StringEquals")
    return changed


@pytest.fixture
def unsafe(deployment, world, customer):
    """A tenant, and its role that accepts a call without an External ID."""
    return kit_role(world, customer, if_exists)


def test_a_blind_prober_voids_proofs(deployment, world, unsafe, canary_clock):
    """An unsafe role would look safe: the broker's own policy makes the refusals. A role that
    refuses its own ID is not broken either.
    """
    verified, gone = world.proven(), world.proven()
    remove_role(world, gone)
    canary_clock.move(MINUTE)
    with blind(deployment):
        made = world.connect(*unsafe, status="pending")
        assert made["verification"]["verdict"] == "inconclusive"
        refusals = [
            "missing_external_id_refused",
            "foreign_external_id_refused",
            "stranger_refused",
        ]
        assert outcomes(made) == dict.fromkeys(FOUR[:2], "passed") | dict.fromkeys(
            refusals, "inconclusive"
        )

        again = world.verify(verified)
        assert (again["status"], again["verification"]["verdict"]) == ("verified", "inconclusive")
        assert "on our side" in again["verification"]["checks"][2]["detail"]
        assert world.admin("POST", path_of(verified, "/credentials"))["AccessKeyId"], (
            "issuing goes on"
        )
        gone = world.verify(gone)
        assert (gone["status"], gone["verification"]["verdict"]) == ("verified", "inconclusive")
        assert outcomes(gone)["own_external_id_accepted"] == "inconclusive"

        assert deployment.told()[-1] == "prober.blinded"
        said = deployment.readiness()
        assert said["status"] == "failed"
        assert "sts:ExternalId" in said["next"]
        assert diagnosis_of(world, verified, "canary") == ("problem", said["seen"])
    canary_clock.move(MINUTE)
    assert world.verify(made)["status"] == "insecure", "what it is"
    assert world.verify(verified)["verification"]["verdict"] == "proven"
    assert deployment.told()[-2:] == ["prober.blinded", "prober.sighted"]
    assert deployment.readiness()["status"] == "ok"


@pytest.mark.parametrize("removed_before_the_look", [False, True])
def test_a_policy_of_ours_that_is_newer_than_the_last_look_verifies_no_role(
    deployment, unsafe, canary_clock, monkeypatch, removed_before_the_look
):
    """Also while IAM propagates its removal: then the prober was blind in the last minute."""
    world, judge = deployment.world, deployment.canary.discount_refusals
    if not removed_before_the_look:
        deployment.sight()
    canary_clock.move(1)
    with ExitStack() as policies:
        policies.enter_context(blind(deployment))
        if removed_before_the_look:
            assert deployment.sight() is Sight.BLIND
            canary_clock.move(1)

        def judge_after_the_removal(*args):
            if removed_before_the_look:
                policies.close()
            return judge(*args)

        monkeypatch.setattr(deployment.canary, "discount_refusals", judge_after_the_removal)
        made = world.connect(*unsafe, status="pending")
        assert made["verification"]["verdict"] == "inconclusive"
    canary_clock.move(MINUTE)
    assert world.verify(made)["status"] == "insecure"


def test_a_role_that_was_made_again_needs_a_new_look(deployment, world, customer, canary_clock):
    """A full proof would verify the new role in the place of the proven one."""
    tenant, role_arn = kit_role(world, customer, copy.copy)
    made, role_name = world.connect(tenant, role_arn), role_arn.rpartition("/")[2]
    customer.remove_role(role_name)
    customer.role(role_name, if_exists(world.kit(tenant)["trust_policy"]))
    canary_clock.move(1)
    with blind(deployment):
        again = world.verify(made)
        assert again["verification"]["verdict"] == "inconclusive"


@pytest.mark.parametrize(("proven_for", "looks"), [(1, 0), (-1, 1), (None, 1)])
def test_a_proof_that_makes_a_connection_issue_needs_a_new_look(
    deployment, canary_clock, proven_for, looks
):
    """`proven_for`: seconds for which the last proof still allows issuing. None: the connection
    was not verified.
    """
    deployment.sight()
    canary_clock.move(1)
    before = len(deployment.asked())
    end = None if proven_for is None else now() + timedelta(seconds=proven_for)
    connection = SimpleNamespace(proven_until=lambda _: end)
    assert deployment.judge(connection).verdict is Verdict.PROVEN
    assert len(deployment.asked()) - before == 3 * looks


def test_what_a_proof_read_is_kept_while_the_prober_is_blind(deployment):
    """A key that is limited to other permission sets must stop."""
    read = {
        "reads_trust": True,
        "access_until": now(),
        "permission_set": "x@1",
        "reads_itself": True,
    }
    made = ProofFinding(Verdict.PROVEN, (), "AROA", **read)
    with blind(deployment):
        found = deployment.canary.discount_refusals(deployment.sts, made, None)
    assert found == made._replace(verdict=Verdict.INCONCLUSIVE)


def test_proofs_that_wait_share_the_next_look_and_not_the_one_that_had_begun(
    deployment, canary_clock, monkeypatch
):
    looks, proofs = [], []
    monkeypatch.setattr(deployment.canary, "_looks", SingleFlight())
    joined = joins(deployment.canary._looks)

    def see(sts):
        looks.append(1)
        if len(looks) == 1:
            canary_clock.move(1)
            proofs.extend(pool.submit(deployment.judge, None) for _ in range(12))
            until(lambda: len(joined) == 13, "all proofs wait for this look")
        return _sight(sts)

    monkeypatch.setattr("app.proofs.canary._sight", see)
    with ThreadPoolExecutor(12) as pool:
        deployment.sight()
        assert [proof.result().verdict for proof in proofs] == [Verdict.PROVEN] * 12
    assert len(looks) == 2


def test_an_accepted_stranger_is_insecure_also_to_a_blind_prober(deployment, world, customer):
    opened = kit_role(world, customer, without_external_id)
    with blind(deployment):
        made = world.connect(*opened, status="insecure")
        assert outcomes(made)["foreign_external_id_refused"] == "failed"


# --- lost ---


def test_a_canary_that_is_gone_is_no_outage(deployment, world, canary_clock):
    gone = world.proven()
    remove_role(world, gone)
    canary_clock.move(MINUTE)
    with canary_trust(deployment, of_nobody):
        made = world.proven()
        assert outcomes(made) == dict.fromkeys(FOUR, "passed") | {"stranger_refused": "skipped"}
        assert made["verification"]["checks"][4]["detail"].startswith("Not tried")
        assert deployment.told()[-1] == "prober.canary_lost"
        said = deployment.readiness()
        assert said["status"] == "warning"
        assert "cloudformation/canary.yaml" in said["next"]
        assert diagnosis_of(world, made, "canary") == ("unknown", said["seen"])
        assert world.verify(gone)["status"] == "broken"


# --- unclear ---


def test_while_aws_is_unclear_about_the_canary_no_proof_counts(
    deployment, world, faults, canary_clock
):
    faults.add("throttle", role_arn=deployment.stack.canary_role_arn)
    before = deployment.told()
    made = world.connect(tenant := world.tenant(), world.role(tenant), status="pending")
    assert made["verification"]["verdict"] == "inconclusive"
    assert outcomes(made)["stranger_refused"] == "skipped"
    assert diagnosis_of(world, made, "canary")[0] == "unknown"
    assert deployment.readiness()["status"] == "warning"
    assert deployment.told() == before, "it changes nothing that anybody should read"
    faults.clear()
    canary_clock.move(5)  # and not a minute
    assert world.verify(made)["status"] == "verified"


@pytest.mark.parametrize("sight", [Sight.UNCLEAR, Sight.SIGHTED])
def test_a_look_at_the_canary_that_takes_longer_than_it_counts_is_not_repeated_at_once(
    deployment, canary_clock, monkeypatch, sight
):
    calls = itertools.count()

    def slow(*, with_id):
        assert next(calls) < 4, "it looked again"
        canary_clock.move(40)
        if sight is Sight.UNCLEAR:
            raise Unavailable

    monkeypatch.setattr(deployment.sts, "probe_canary", slow)
    assert deployment.sight() is sight


@pytest.mark.parametrize(
    "row",
    [
        "yes yes sighted",
        "no no lost",
        "yes no yes blind",
        "no yes no blind",
        "yes no no lost",  # deleted between the calls
        "no yes yes sighted",  # made a moment ago
        "off off lost",
        "unclear yes yes sighted",
        "unclear unclear unclear",
        "yes unclear yes unclear",
        "no unclear no unclear",
        "yes no unclear unclear",
    ],
)
def test_what_the_answers_mean(row):
    """With an External ID, without, and with one again where the two differ."""
    *answers, sight = row.split()
    left = [*answers]
    errors = {"no": Refused(), "off": Misconfigured(""), "unclear": Unavailable()}

    def probe_canary(*, with_id):
        assert with_id is (len(left) != len(answers) - 1)
        if error := errors.get(left.pop(0)):
            raise error

    assert _sight(SimpleNamespace(probe_canary=probe_canary)) == sight
    assert left == []


# --- the stranger ---


def for_everybody(policy):
    policy = copy.deepcopy(policy)
    policy["Statement"][0]["Principal"] = {"AWS": "*"}
    del policy["Statement"][0]["Condition"]["ArnEquals"]
    return policy


def with_another_way_in(policy):
    """No call of a proof has such a session name."""
    policy = copy.deepcopy(policy)
    policy["Statement"] += copy.deepcopy(policy["Statement"])
    del policy["Statement"][-1]["Condition"]["StringEquals"]
    policy["Statement"][-1]["Condition"]["StringLike"] = {"sts:RoleSessionName": "another-*"}
    return policy


@pytest.mark.parametrize("seen_by", ["stranger", "trust policy"])
def test_a_known_hole_is_not_forgotten_while_aws_does_not_answer(
    deployment, customer, canary_clock, faults, seen_by
):
    world = deployment.world
    tenant = world.tenant()
    kit = world.kit(tenant)
    make, change = customer.role, for_everybody
    silence = {"role_arn": deployment.stack.canary_role_arn, "caller": "deputy-stranger"}
    if seen_by == "trust policy":
        make, change, silence = customer.reading_itself, with_another_way_in, {"action": "GetRole"}
    role_arn = make(kit["role_name"], change(kit["trust_policy"]))
    made = world.connect(tenant, role_arn, status="insecure")
    faults.add("throttle", **silence)
    for policy in (change(kit["trust_policy"]), without_external_id(kit["trust_policy"])) * 2:
        customer.retrust(kit["role_name"], policy)
        canary_clock.move(MINUTE)
        assert world.verify(made)["status"] == "insecure"
    customer.retrust(kit["role_name"], kit["trust_policy"])
    canary_clock.move(MINUTE)
    assert world.verify(made)["status"] == "insecure", "nobody has seen yet that it is gone"
    world.admin("DELETE", path_of(made), expect=204)
    made = world.connect(tenant, role_arn, status="insecure")
    faults.clear()
    customer.retrust(kit["role_name"], kit["trust_policy"])
    canary_clock.move(MINUTE)
    assert world.verify(made)["status"] == "verified"


def test_a_policy_that_was_read_shows_a_repair_also_without_the_stranger(
    deployment, customer, canary_clock
):
    world = deployment.world
    tenant = world.tenant()
    kit = world.kit(tenant)
    role_arn = customer.reading_itself(kit["role_name"], for_everybody(kit["trust_policy"]))
    made = world.connect(tenant, role_arn, status="insecure")
    with canary_trust(deployment, without_the_stranger):
        canary_clock.move(MINUTE)
        assert world.verify(made)["status"] == "insecure"
        customer.retrust(kit["role_name"], kit["trust_policy"])
        assert world.verify(made)["status"] == "verified"


def test_a_role_that_trusts_everybody_who_knows_the_external_id_is_insecure(
    deployment, world, customer
):
    tenant, role_arn = kit_role(world, customer, for_everybody)
    made = world.connect(tenant, role_arn, status="insecure")
    assert outcomes(made) == dict.fromkeys(FOUR, "passed") | {"stranger_refused": "failed"}
    [call] = stranger_calls(world, made)
    assert (call.external_id, call.duration) == (tenant["external_id"], 900)
    assert '"Effect":"Deny","Action":"*","Resource":"*"' in call.policy
    page = visit(world, tenant).page()
    assert "lets in others than us" in page.select_one(".advice").text
    assert page.find(id="summary").text.strip().startswith("The role lets in others than us.")
    customer.retrust(role_arn.rpartition("/")[2], world.kit(tenant)["trust_policy"])
    assert world.verify(made)["status"] == "verified"


def stranger_covers(deployment, prefix, monkeypatch):
    """Its stack names the stranger by the prefix that the stranger's policy has."""
    canary_role = deployment.stack.canary_role_arn
    role = RoleArn.parse(f"{canary_role.partition('/')[0]}/{prefix}stranger")
    config = with_settings(deployment.canary.config, stranger_role_arn=role)
    monkeypatch.setattr(deployment.canary, "config", config)


def test_the_strangers_refusal_counts_only_for_names_that_the_canary_tests(
    deployment, world, monkeypatch
):
    """Its own policy may lack the others, and then AWS refuses the stranger everywhere.

    They are imported names, and those of a new prefix while canary.yaml still has the old one.
    """
    stranger_covers(deployment, "another-", monkeypatch)
    made = world.proven()
    assert len(stranger_calls(world, made)) == 1, "an acceptance would count"
    assert outcomes(made)["stranger_refused"] == "skipped"


def open_to_everybody(deployment, world, customer, monkeypatch):
    """An insecure connection to a role with an imported name, and its kit."""
    stranger_covers(deployment, "another-", monkeypatch)
    tenant = world.tenant()
    kit = world.kit(tenant)
    role_arn = customer.role(kit["role_name"], for_everybody(kit["trust_policy"]))
    made = world.connect(tenant, role_arn, status="insecure")
    return made, kit


def test_a_role_with_an_imported_name_that_was_repaired_is_proven(
    deployment, world, customer, monkeypatch
):
    made, kit = open_to_everybody(deployment, world, customer, monkeypatch)
    customer.retrust(kit["role_name"], kit["trust_policy"])
    assert world.verify(made)["status"] == "verified"


def test_a_hole_that_the_stranger_found_is_not_forgotten_when_the_stranger_is_lost(
    deployment, world, customer, canary_clock, monkeypatch
):
    made, _ = open_to_everybody(deployment, world, customer, monkeypatch)
    canary_clock.move(1)  # the vendor's policy no longer lets the stranger call
    for probe in ("probe_as_stranger", "probe_canary_as_stranger", "open_stranger"):
        monkeypatch.setattr(deployment.sts, probe, Mock(side_effect=Refused()))
    assert world.verify(made)["status"] == "insecure"


def test_the_stranger_counts_only_if_the_canary_lets_it_in(deployment, world, canary_clock):
    """Also if the canary refuses it only afterwards."""
    deployment.sight()
    canary_clock.move(1)
    with canary_trust(deployment, without_the_stranger):
        for calls in (1, 0):
            made = world.proven()
            assert len(stranger_calls(world, made)) == calls
            assert outcomes(made)["stranger_refused"] == "skipped"
            canary_clock.move(MINUTE)
        said = deployment.readiness()
        assert said["status"] == "warning"
        assert "DEPUTY_STRANGER_ROLE_ARN" in said["next"]


def test_one_session_of_the_stranger_is_kept_while_it_works_until_shortly_before_its_end(
    deployment, canary_clock, monkeypatch
):
    def opened():
        return len(deployment.world.calls_for(deployment.stack.stranger_role_arn))

    canary = deployment.canary
    deployment.sight()
    assert opened() == 0
    session = canary._stranger._session
    canary_clock.move(MINUTE)
    with monkeypatch.context() as patch:
        almost_over = session.expires_at - timedelta(seconds=299)
        patch.setattr("app.proofs.stranger.now", lambda: almost_over)
        deployment.sight()
    assert opened() == 1
    assert canary._stranger._session is not session
    canary._stranger._session = replace(
        canary._stranger._session, session_token="of a stranger that was made again"
    )
    for is_let_in in (False, True):
        canary_clock.move(MINUTE)
        deployment.sight()
        assert (canary._last.stranger is not None) is is_let_in
    assert opened() == 2


def test_a_stranger_that_aws_gives_no_clear_answer_about_proves_nothing(deployment, world, faults):
    tenant = world.tenant()
    role_arn = world.role(tenant)
    faults.add("throttle", role_arn=role_arn, caller="deputy-stranger")
    made = world.connect(tenant, role_arn, status="pending")
    assert made["verification"]["verdict"] == "inconclusive"
    assert outcomes(made) == dict.fromkeys(FOUR, "passed") | {"stranger_refused": "inconclusive"}


# --- several processes; other settings ---


def test_of_several_processes_one_tells(deployment, aws, canary_clock):
    config = deployment.services.config
    others = [Canary(deployment.services.db, config) for _ in range(3)]
    before = len(deployment.told())
    with canary_trust(deployment, of_nobody):
        for canary in (deployment.canary, *others):
            canary.ask_canary(deployment.sts)
    canary_clock.move(MINUTE)
    for canary in (*others, deployment.canary):
        canary.ask_canary(deployment.sts)
    assert deployment.told()[before:] == ["prober.canary_lost", "prober.sighted"]


def test_without_a_canary_the_stranger_is_skipped_and_nobody_is_asked(aws, canary_stack):
    with new_database() as url:
        app = create_app(
            make_config(url, stranger_role_arn=roles_of(canary_stack)["stranger_role_arn"])
        )
        alone = Deployment(aws, app, canary_stack)
        aws.sts_calls.clear()
        assert outcomes(alone.world.proven()) == dict.fromkeys(FOUR, "passed") | {
            "stranger_refused": "skipped"
        }
        assert alone.asked() == []
        assert "prober" not in [name for name, _ in alone.services.health.findings()]
        app.extensions["deputy"].db.engine.dispose()


def test_no_role_of_their_account_is_a_customers(deployment, world):
    account = deployment.stack.canary_role_arn.split(":")[4]
    path = f"/v1/tenants/{world.tenant()['id']}/connections"
    roles = [
        {"role_arn": f"arn:aws:iam::{account}:role/deputy-{name}"}
        for name in ("canary", "stranger", "other")
    ]
    for body in (*roles, {"account_id": account}):
        world.admin.refused("POST", path, body, expect=422, code="role_not_allowed")
