"""Trust policies as people and attackers write them: a role that accepts a stranger is detected
and never issues.
"""

import json
import re

from app.aws.role_reader import session_policy
from app.aws.sts import INERT_POLICY
from app.ids import RoleArn
from tests.attacks.evidence import (
    case,
    check,
    issues_nothing,
    outcomes,
    problem,
    refusal,
    untouched,
)
from tests.support.cast import SESSION_NAME, Customer, path_of

KEY = "sts:ExternalId"
NAME = "sts:RoleSessionName"
EARLIER_ACTIONS = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]
ISSUED_AS = f"deputy-{'?' * 12}7{'?' * 19}-{'?' * 24}"  # a UUIDv7 has a 7 there
BROKER = "arn:aws:iam::111122223333:role/DeputyBroker"


def allow(**conditions):
    """The kit's statement under these conditions. Write a quantifier's colon as two underscores."""
    wanted = {operator.replace("__", ":"): value for operator, value in conditions.items()}
    return {
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::111122223333:root"},
        "Action": "sts:AssumeRole",
        "Condition": {"ArnEquals": {"aws:PrincipalArn": BROKER}, **wanted},
    }


def deny(**conditions):
    return {
        **allow(),
        "Effect": "Deny",
        "Condition": {k.replace("__", ":"): v for k, v in conditions.items()},
    }


def like(pattern):
    return allow(StringLike={KEY: pattern})


# What lets a stranger in: the statements, and which of the two strangers gets through.
NO_ID, OTHER, BOTH = {"missing"}, {"foreign"}, {"missing", "foreign"}
INSECURE = {
    "no condition": (lambda own: [allow()], BOTH),
    "not to names of proofs": (
        lambda own: [
            allow(),
            deny(StringLike={NAME: "deputy-proof*"}),
            deny(StringNotLike={NAME: ISSUED_AS}),
        ],
        BOTH,
    ),
    "StringLike *": (lambda own: [like("*")], OTHER),
    "StringLike, the prefix": (lambda own: [like(own[:20] + "*")], OTHER),
    "StringLike, both ends and ? between": (
        lambda own: [like(own[:20] + "?" * 32 + own[-16:])],
        OTHER,
    ),
    "StringEqualsIfExists": (lambda own: [allow(StringEqualsIfExists={KEY: own})], NO_ID),
    "ForAllValues:StringEquals": (
        lambda own: [allow(ForAllValues__StringEquals={KEY: own})],
        NO_ID,
    ),
    "a second statement without": (lambda own: [allow(StringEquals={KEY: own}), allow()], BOTH),
    "everybody (Principal *)": (
        lambda own: [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}],
        BOTH,
    ),
    # It has no value when no ID is sent: the sandbox doesn't guess, so nor is it proven.
    "a policy variable": (lambda own: [allow(StringEquals={KEY: "${sts:ExternalId}"})], OTHER),
}


def role_with(world, tenant, statements, *, reads_itself=False):
    customer, trust = Customer(world.aws), {"Version": "2012-10-17", "Statement": statements}
    create = customer.reading_itself if reads_itself else customer.role
    return create(world.kit(tenant)["role_name"], trust)


def test_a_role_that_lets_a_stranger_in_is_insecure_and_never_issues(world):
    """Neither the calls nor what is read pass it."""
    for name, (policy, strangers) in INSECURE.items():
        with case(name):
            tenant = world.tenant("Sloppy")
            role_arn = role_with(world, tenant, policy(tenant["external_id"]), reads_itself=True)
            connection = world.connect(tenant, role_arn, status="insecure")
            assert connection["verification"]["verdict"] == "insecure"
            assert connection["verified_at"] is None
            for stranger in BOTH:
                outcome = check(connection, f"{stranger}_external_id_refused")["outcome"]
                assert (outcome == "failed") == (stranger in strangers)
            demand = check(connection, "trust_policy_demands_external_id")
            assert demand["outcome"] in {"failed", "inconclusive"}
            calls = len(world.calls_for(role_arn))
            response = world.admin.raw("POST", path_of(connection, "/credentials"))
            problem(response, 409, "connection_not_verified")
            assert refusal(world, response)["connection_id"] == connection["id"]
            assert len(world.calls_for(role_arn)) == calls


# What is as good as StringEquals, for the calls alone. Reading (test_attack_read_policies.py) sees
# who else is trusted.
PROVEN = {
    "what earlier kits asked for": lambda own: [
        allow(StringEquals={KEY: own}) | {"Action": EARLIER_ACTIONS}
    ],
    "a Deny of every other ID, missing ones included": lambda own: [
        allow(),
        deny(StringNotEquals={KEY: own}),
    ],
    # Not seen: everybody whose ID begins with the same 128 random bits, which is nobody.
    "StringLike, the first half": lambda own: [like(own[:36] + "*")],
}


def test_a_role_that_refuses_both_other_calls_is_proven(world):
    for name, policy in PROVEN.items():
        with case(name):
            tenant = world.tenant("Careful")
            connection = world.connect(
                tenant, role_with(world, tenant, policy(tenant["external_id"]))
            )
            assert outcomes(connection) == ["passed"] * 4


def test_a_role_that_refuses_us_is_like_none_at_all(world):
    tenant = world.tenant("Odd")
    gone = world.connect(tenant, "arn:aws:iam::210987654321:role/deputy-gone", status="pending")
    gone["verification"].pop("checked_at")
    assert outcomes(gone) == ["failed", "skipped", "skipped", "skipped"]
    own = tenant["external_id"]
    refusals = [allow(StringEquals={KEY: own}), deny(StringLike={KEY: "*"})]
    role_arn = role_with(world, tenant, refusals)
    refusing = world.connect(tenant, role_arn, status="pending")
    assert refusing["verification"].pop("checked_at")
    assert refusing["verification"] == gone["verification"]
    # Nothing is asked of a role that refuses its own ID: its refusals of strangers would prove
    # nothing.
    [call] = world.calls_for(role_arn)
    assert call.external_id == own


def test_another_tenants_role_is_like_none_at_all(scene, world):
    """Attack 5, the confused deputy itself: Mallory registers the victim's role as her own."""
    tenant = world.tenant("Mallory")
    mallory = world.key("connections:write", "connections:read", "credentials:issue", tenant=tenant)
    path = f"/v1/tenants/{tenant['id']}/connections"
    theirs = world.read(scene.theirs)
    gone = "arn:aws:iam::210987654321:role/deputy-gone"
    made = [
        mallory("POST", path, {"role_arn": arn}, expect=201) for arn in (theirs["role_arn"], gone)
    ]
    for connection in made:
        assert connection["status"] == "pending"
        assert connection["external_id"] == tenant["external_id"]
        for name in ("id", "role_arn", "account_id", "created_at", "next_proof_at"):
            connection.pop(name)
        connection["verification"].pop("checked_at")
    assert made[0] == made[1]
    assert not scene.tells_of_globex(json.dumps(made))
    assert world.calls_for(theirs["role_arn"])[-1].external_id == tenant["external_id"]
    assert world.calls_for(theirs["role_arn"])[-1].outcome == "AccessDenied"
    mine = mallory("GET", path)["items"][-1]
    with untouched(world, scene.theirs):
        issues_nothing(mallory, mine)
    assert world.read(scene.theirs) == theirs
    assert world.worker(scene.globex)("POST", path_of(scene.theirs, "/credentials"))["SessionToken"]


def test_the_victims_id_in_ones_own_role_opens_nothing(scene, world):
    """The other way round: a role that trusts the victim's External ID never issues for the
    attacker.
    """
    tenant = world.tenant("Mallory")
    role = role_with(world, tenant, [allow(StringEquals={KEY: scene.globex["external_id"]})])
    made = world.connect(tenant, role, status="pending")
    issues_nothing(world.worker(tenant), made)
    assert {call.external_id for call in world.calls_for(role)} == {tenant["external_id"]}


def test_the_calls_of_a_proof_are_inert_and_send_only_what_is_nobodys(scene, world):
    tenant = world.tenant()
    made = world.proven(tenant)
    world.verify(made)
    calls = world.calls_for(made["role_arn"])
    assert len(calls) == 8
    reading = session_policy(RoleArn.parse(made["role_arn"]))
    assert [call.policy for call in calls] == [reading, *[INERT_POLICY] * 3] * 2
    for call in calls:
        assert call.duration == 900
        assert re.fullmatch(SESSION_NAME, call.session_name)
    assert len({call.session_name for call in calls}) == 8
    own, foreign = tenant["external_id"], [calls[2].external_id, calls[6].external_id]
    sent = [call.external_id for call in calls]
    assert sent == [own, None, foreign[0], own, own, None, foreign[1], own]
    assert len({own, *foreign, scene.globex["external_id"]}) == 4
    for stranger in foreign:
        assert len(stranger) == len(own)
        assert (stranger[:20], stranger[-16:]) == (own[:20], own[-16:])
