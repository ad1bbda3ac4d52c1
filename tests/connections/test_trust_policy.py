"""The recogniser of trust policies: held to the sandbox's own evaluator, and to policies as people write them."""

import itertools
import json

import pytest
from hypothesis import assume, event, given, settings, strategies as st

from app.config import Broker
from app.connections.trust_policy import Reading, read
from app.onboarding.kit import trust_policy as kit_policy
from sandbox.policy import Caller, Grant, Kind, Request, UnsupportedPolicy, evaluate_resource
from tests.support.plain_reading import plain_reading

BROKER = Broker.parse("arn:aws:iam::111122223333:role/vendor/DeputyBroker")
ROOT = "arn:aws:iam::111122223333:root"
CUSTOMER = "444455556666"
SESSION = "arn:aws:sts::111122223333:assumed-role/DeputyBroker/deputy"
CALLER = Caller(Kind.SESSION, BROKER.account_id, SESSION, BROKER.arn, "AROAABCDEFGHIJKLMNOP:deputy")
OWN, NEXT = f"dpy-{'0123456789abcdef' * 4}", f"dpy-{'fedcba9876543210' * 4}"
FOREIGN = f"{OWN[:20]}{'0' * 32}{OWN[-16:]}"
KEY, ARN, NAME, NOW = "sts:ExternalId", "aws:PrincipalArn", "sts:RoleSessionName", "aws:CurrentTime"


def reading(*statements, **more) -> Reading:
    return read({"Version": "2012-10-17", "Statement": list(statements)} | more, BROKER, CUSTOMER, {OWN, NEXT}, ())


def allow(*, to={"AWS": ROOT}, only=True, **conditions):  # noqa: B006  it is only read
    """The kit's statement under these conditions. Write a quantifier's colon as two underscores."""
    wanted = {operator.replace("__", ":"): keys for operator, keys in conditions.items()}
    if only:
        wanted["ArnEquals"] = wanted.get("ArnEquals", {}) | {ARN: BROKER.arn}
    return {"Effect": "Allow", "Principal": to, "Action": ["sts:AssumeRole", "sts:TagSession"], "Condition": wanted}


def deny(*, to="*", **conditions):
    return allow(to=to, only=False, **conditions) | {"Effect": "Deny"}


DEMANDED = allow(StringEquals={KEY: OWN})

# --- the sandbox's evaluator has the last word ---

EXTERNAL_IDS = [None, FOREIGN, OWN.upper(), "dpy-x", "x:1", OWN[:-1] + "g", "deputy"]
NAMES = ["deputy", "x:1", "dpy-x"]
CONTEXTS = [
    {
        KEY: external_id,
        NAME: name,
        "sts:SourceIdentity": identity,
        ARN: BROKER.arn,
        "aws:PrincipalAccount": BROKER.account_id,
        "aws:PrincipalType": "AssumedRole",
        "aws:PrincipalOrgID": organization,
        "aws:ResourceAccount": CUSTOMER,
        "aws:SecureTransport": "true",
        "aws:SourceIp": "192.0.2.1" if at == "2026-01-01T00:00:00Z" else "198.51.100.1",
        NOW: at,
    }
    for external_id, name, (identity, organization), at in itertools.product(
        EXTERNAL_IDS, NAMES, [(None, None), ("deputy", "o-1")], ["2026-01-01T00:00:00Z", "2036-01-01T00:00:00Z"]
    )
]
FOR_EACH_ID = CONTEXTS[:: len(CONTEXTS) // len(EXTERNAL_IDS)]  # where nothing else is compared


def lets_in(text: str, context: dict[str, str | None]) -> bool | None:
    """None: the sandbox cannot evaluate this policy either."""
    keys = {key: value for key, value in context.items() if value is not None}
    try:
        request = Request("sts:AssumeRole", f"arn:aws:iam::{CUSTOMER}:role/deputy-x", keys)
        return evaluate_resource(text, CALLER, request, trust=True) > Grant.NONE
    except UnsupportedPolicy:
        return None


TEXTS = ["StringEquals", "StringNotEquals", "StringLike", "StringNotLike", "StringEqualsIgnoreCase"]
ARNS = ["ArnEquals", "ArnNotEquals", "ArnLike", "ArnNotLike"]
operators = st.builds(
    lambda quantifier, name, if_exists: f"{quantifier}{name}{if_exists}",
    st.sampled_from(["", "", "", "ForAllValues:", "ForAnyValue:"]),
    st.sampled_from([*TEXTS, *TEXTS, *ARNS, "Bool", "NumericLessThan", "stringequals"]),
    st.sampled_from(["", "", "IfExists"]),
)
VALUES = {
    KEY: [
        OWN,
        NEXT,
        FOREIGN,
        OWN.upper(),
        "dpy-x",
        "x:1",
        "*",
        "dpy-*",
        f"{OWN[:-1]}?",
        "?*",
        "${sts:RoleSessionName}",
    ],
    ARN: [
        BROKER.arn,
        f"{BROKER.arn}2",
        "arn:aws:iam::111122223333:role/*",
        "*",
        "arn:aws:iam::*:role/vendor/Deputy????er",
    ],
    NAME: ["deputy", "x:1", "dpy-*", "*", "${sts:ExternalId}"],
    "sts:SourceIdentity": ["deputy", "*"],
    "aws:PrincipalAccount": [BROKER.account_id, CUSTOMER],
    "aws:PrincipalOrgID": ["o-1", "o-2"],
    "aws:SecureTransport": ["true", "false"],
    "aws:PrincipalType": ["AssumedRole", "User"],
}


def comparisons(key: str, operator: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, str, list[str]]]:
    return st.tuples(
        operator, st.sampled_from([key, key.lower()]), st.lists(st.sampled_from(VALUES[key]), min_size=1, max_size=2)
    )


some_comparison = st.one_of(
    comparisons(KEY, operators),
    comparisons(KEY, st.sampled_from(["StringEquals", "StringNotEquals"])),
    st.tuples(st.just("Null"), st.sampled_from([KEY, NAME]), st.sampled_from([["true"], ["false"]])),
    st.tuples(st.sampled_from(["DateLessThan", "DateGreaterThan"]), st.just(NOW), st.just(["2030-01-01T00:00:00Z"])),
    st.tuples(st.sampled_from(["IpAddress", "NotIpAddress"]), st.just("aws:SourceIp"), st.just(["192.0.2.0/24"])),
    *(comparisons(key, operators) for key in VALUES),
)


def condition(comparisons) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    for operator, key, values in comparisons:
        found.setdefault(operator, {})[key] = values
    return found


PRINCIPALS = [
    *({"Principal": it} for it in ["*", {"AWS": "*"}, {"AWS": ROOT}, {"AWS": BROKER.account_id}, {"AWS": BROKER.arn}]),
    {"Principal": {"AWS": [f"{BROKER.arn}2", BROKER.arn]}},
    {"Principal": {"AWS": SESSION}},
    {"Principal": {"AWS": "AROAABCDEFGHIJKLMNOP"}},
    {"Principal": {"AWS": f"arn:aws:iam::{CUSTOMER}:root", "Service": "ec2.amazonaws.com"}},
    {"NotPrincipal": {"AWS": f"arn:aws:iam::{CUSTOMER}:root"}},
]
ACTIONS = [
    *(
        {"Action": it}
        for it in ["sts:AssumeRole", "sts:AssumeRole", "STS:assume*", ["sts:TagSession", "*"], "sts:TagSession"]
    ),
    {"NotAction": "sts:TagSession"},
    {"NotAction": "sts:*"},
]


def statements(effects, principals, actions, comparisons) -> st.SearchStrategy[dict[str, object]]:
    return st.builds(
        lambda effect, who, what, tests: (
            {"Effect": effect} | who | what | ({"Condition": condition(tests)} if tests else {})
        ),
        *(st.sampled_from(some) for some in (effects, principals, actions)),
        comparisons,
    )


any_statement = statements(["Allow", "Allow", "Deny"], PRINCIPALS, ACTIONS, st.lists(some_comparison, max_size=3))
# Two statements about the External ID, with one more condition at most: where a mistake shows soonest.
about_the_id = st.one_of(
    st.tuples(comparisons(KEY, operators)), st.tuples(comparisons(KEY, operators), some_comparison), st.just(())
)
close_calls = st.tuples(
    statements(["Allow"], PRINCIPALS[:5], ACTIONS[:1], about_the_id),
    st.one_of(
        statements(["Deny"], PRINCIPALS, ACTIONS, about_the_id),
        statements(["Deny"], PRINCIPALS[:2], ACTIONS[:1], st.tuples(comparisons(KEY, operators), some_comparison)),
        statements(["Deny"], PRINCIPALS[:2], ACTIONS[:1], st.tuples(some_comparison)),
    ),
).map(list)
demands = st.sampled_from([DEMANDED, deny(StringNotEquals={KEY: OWN})])
policies = st.one_of(close_calls, st.lists(st.one_of(any_statement, demands), min_size=1, max_size=3))
# A broken reading survives 800 about as often as 200: to find more, it takes thousands, as below.
a_few = settings(max_examples=200, deadline=None, database=None)


@a_few
@given(policies)
def test_what_it_passes_the_sandbox_refuses_without_the_id(made):
    """Under every request that is tried here: other IDs and none, names, times, addresses, with and without the rest."""
    found = reading(*made)
    event("passed" if not found.open and not found.unclear else "open" if found.open else "unclear")
    if found.open or found.unclear:
        return
    text = json.dumps({"Version": "2012-10-17", "Statement": made})
    let_in = {context[KEY] for context in CONTEXTS if lets_in(text, context)}
    assert let_in <= {value for _, value in found.listed}


EVERY_OPERATOR = [
    f"{quantifier}{name}{if_exists}"
    for quantifier in ("", "ForAllValues:", "ForAnyValue:")
    for name in [*TEXTS, "StringNotEqualsIgnoreCase", *ARNS]
    for if_exists in ("", "IfExists")
]


@pytest.mark.parametrize(
    "values", [[OWN], [OWN, NEXT], [FOREIGN], [OWN, FOREIGN], ["*"], ["dpy-*"], [OWN, OWN[:-1] + "?"]]
)
@pytest.mark.parametrize("key", [KEY, ARN])
def test_every_comparison_is_as_the_sandbox_has_it(key, values):
    """Alone in the statement that allows, and alone in one that denies. What the sandbox refuses to evaluate is not
    understood here either, and nor is the External ID without regard to case.
    """
    if key == ARN:
        values = [
            {OWN: BROKER.arn, "*": "arn:aws:iam::*:role/*/DeputyBroker"}.get(it, f"{BROKER.arn}2") for it in values
        ]
    for operator in EVERY_OPERATOR:
        tests = {operator: {key: values}}
        for made in ([allow(only=False) | {"Condition": tests}], [allow(), deny() | {"Condition": tests}]):
            text, found = json.dumps({"Version": "2012-10-17", "Statement": made}), reading(*made)
            answers = {lets_in(text, context) for context in FOR_EACH_ID}
            assert found.open or found.unclear or found.listed or True not in answers, tests
            if None not in answers and "IgnoreCase" not in operator:
                assert bool(found.open or found.listed) == (True in answers), tests


@a_few
@given(policies)
def test_what_it_calls_open_the_sandbox_opens_without_the_id(made):
    """No customer is stopped for nothing. Left out: what differs from request to request, which is taken as it must be
    to get in, and more than one pattern, which no value may match.
    """
    text = json.dumps({"Version": "2012-10-17", "Statement": made})
    varying = any(word in text for word in (NAME, NAME.lower(), "ourceI", "sourcei", NOW, SESSION))
    assume(not varying and sum(text.count(f'"{pattern}"') for pattern in VALUES[KEY][6:10]) <= 1)
    found, open_to = reading(*made), {context[KEY] for context in CONTEXTS if lets_in(text, context) is not False}
    assert not found.open or open_to
    assert {value for _, value in found.listed if value in EXTERNAL_IDS} <= open_to


@pytest.mark.soak
@settings(a_few, max_examples=10_000)
@given(policies)
def test_the_reader_agrees_with_the_sandbox_at_length(made):
    test_what_it_passes_the_sandbox_refuses_without_the_id.hypothesis.inner_test(made)
    test_what_it_calls_open_the_sandbox_opens_without_the_id.hypothesis.inner_test(made)
    test_all_callers_judged_together_are_judged_as_each_alone.hypothesis.inner_test(made, (FOREIGN,))


# --- policies as people write them ---


def test_the_kits_own_policy_has_nothing_to_say():
    assert read(kit_policy(BROKER, OWN), BROKER, CUSTOMER, {OWN}, ()) == Reading((), (), (), (), ())


@pytest.mark.parametrize("operator", ["NumericEquals", "DateEquals", "IpAddress", "ArnLike", "ArnEquals", "Bool"])
def test_an_external_id_under_an_operator_that_compares_no_texts_is_not_understood(operator):
    found = reading(allow(**{operator: {KEY: "12"}}))
    assert (found.open, found.unclear) == ((), (1,))


def test_an_arn_that_is_written_with_a_variable_may_be_anybodys():
    some = "arn:aws:iam::444455556666:role/${aws:PrincipalTag/team}"
    assert some in reading(allow(to="*", only=False, StringNotEquals={ARN: some})).others


def test_a_rotations_two_ids_are_this_tenants():
    both = allow(StringEquals={KEY: [OWN, NEXT]})
    assert reading(both) == Reading((), (), (), (), ())
    found = read({"Statement": both}, BROKER, CUSTOMER, {OWN}, ())
    assert (found.open, found.unclear, found.listed) == ((), (), ((1, NEXT),))


@pytest.mark.parametrize("operator", ["StringEquals", "stringEquals", "ForAnyValue:StringEquals"])
def test_fixed_values_beside_the_tenants_are_listed_with_their_statement(operator):
    """Also where the tenant's own is in another statement, and where a value would be a pattern elsewhere."""
    old = allow(**{operator: {KEY: ["old-2", OWN, "old-1", "*", "x y"]}})
    found = reading(old, allow(StringEquals={KEY: "old-1"}), deny(StringEquals={KEY: "old-2"}))
    assert (found.open, found.unclear, found.listed) == ((), (), ((1, "old-1"), (2, "old-1")))


@pytest.mark.parametrize(
    "condition",
    [
        {"StringLike": {KEY: [OWN, "old-1"]}},
        {"StringEquals": {KEY: [OWN, "old-1"], NAME: "x"}, "StringLike": {KEY: "*"}},
        {"StringEqualsIfExists": {KEY: [OWN, "old-1"]}},
        {"ForAllValues:StringEquals": {KEY: [OWN, "old-1"]}},
        {"StringNotEquals": {KEY: "old-1"}},
        {"StringEquals": {NAME: "x"}},
        {"ForAnyValue:StringLike": {KEY: ["old-*", OWN]}},
    ],
    ids=json.dumps,
)
def test_only_a_list_under_string_equals_is_a_list(condition):
    """Every other way to let in more than the tenant's is a hole; a pattern beside the list adds nothing to it."""
    found = reading(DEMANDED, allow() | {"Condition": condition})
    is_list = {"StringEquals", "StringLike"} <= condition.keys()
    assert (found.open, bool(found.listed)) == (() if is_list else (2,), is_list)


@pytest.mark.parametrize(
    "choice",
    [
        {"StringEquals": {NAME: "maintenance"}},
        {"StringLike": {"STS:rolesessionname": "x-*"}},
        {"StringEquals": {"sts:SourceIdentity": "ops"}},
        {"Null": {"aws:SourceIdentity": "false"}},
        {"StringEquals": {"aws:RequestTag/team": "ops"}},
        {"StringEquals": {"aws:PrincipalTag/team": "ops"}},
        {"ForAllValues:StringEquals": {"aws:TagKeys": ["team"]}},
        {"DateGreaterThan": {NOW: "2030-01-01T00:00:00Z"}},
        {"NumericLessThan": {"aws:EpochTime": "1800000000"}},
        {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}},
        {"StringEquals": {"aws:SourceVpc": "vpc-1"}},
        {"StringEqualsIfExists": {"aws:SourceVpce": "vpce-1"}},
        {"StringEquals": {"aws:RequestedRegion": "eu-west-1"}},
        *({"StringEquals": {f"aws:{key}": "x"}} for key in ("Referer", "UserAgent", "VpceAccount", "VpceOrgID")),
        {"ForAnyValue:StringLike": {"aws:VpceOrgPaths": "o-1/*"}},
        {"ArnEquals": {"aws:SourceVpcArn": "arn:aws:ec2:us-east-1:111122223333:vpc/vpc-1"}},
        {"StringEquals": {"aws:Ec2InstanceSourceVpc": "vpc-1"}},
        {"IpAddress": {"aws:VpcSourceIp": "10.0.0.0/8"}},
        {"StringEquals": {"aws:Ec2InstanceSourcePrivateIPv4": "10.0.0.1"}},
        {"ArnLike": {"ec2:SourceInstanceArn": "arn:aws:ec2:*:*:instance/i-1"}},
        {"ArnLike": {"lambda:SourceFunctionArn": "arn:aws:lambda:*:*:function:x"}},
        {"DateGreaterThan": {"aws:TokenIssueTime": "2030-01-01T00:00:00Z"}},
        {"ForAnyValue:StringLike": {"sts:TransitiveTagKeys": ["team"]}},
        {"NumericLessThan": {"sts:DurationSeconds": "900"}},
        {"StringEquals": {"sts:RequestContext/identitycenter:UserId": "x"}},
        {"StringLike": {"aws:userid": "*:ops"}},
        {"StringLike": {"aws:userid": "AROA*:ops-?"}},
    ],
    ids=lambda choice: "-".join(key for keys in choice.values() for key in keys),
)
def test_what_differs_from_call_to_call_replaces_no_external_id(choice):
    """The probes' own calls may never meet it; and a Deny on it can be dodged."""
    assert reading(DEMANDED, allow(**choice)).open == (2,)
    assert reading(DEMANDED, allow(), deny(**choice)).open == (2,)
    beside = {"ForAnyValue:StringEquals": {KEY: OWN}}
    assert reading(DEMANDED, allow(**choice, **beside)).open == ()


@pytest.mark.parametrize(
    "never",
    [
        {"ArnLike": {ARN: "arn:aws:iam::111122223333:role/vendor/Other*"}},
        {"StringEquals": {"aws:PrincipalAccount": "999999999999"}},
        {"StringEquals": {"aws:PrincipalType": "User"}},
        {"StringNotEquals": {"aws:PrincipalType": "AssumedRole"}},
        {"Bool": {"aws:SecureTransport": "false"}},
        {"StringNotEquals": {"aws:ResourceAccount": CUSTOMER}},
    ],
    ids=lambda never: "-".join(key for keys in never.values() for key in keys),
)
def test_what_our_broker_never_is_lets_it_in_nowhere(never):
    assert reading(DEMANDED, allow(**never)).open == ()
    assert reading(DEMANDED, allow(), deny(**never)).open == (2,)


@pytest.mark.parametrize("key", ["aws:ViaAWSService", "aws:PrincipalIsAWSService"])
def test_no_service_calls_for_our_broker(key):
    assert reading(DEMANDED, allow(Bool={key: "false"})).open == (2,)
    assert reading(DEMANDED, allow(Bool={key: "true"})).open == ()


@pytest.mark.parametrize(("kind", "is_open"), [("User", True), ("AssumedRole", False)])
def test_a_broker_that_is_an_iam_user_is_a_user_to_the_policy(kind, is_open):
    user = Broker.parse("arn:aws:iam::111122223333:user/deputy")
    statement = allow(only=False, ArnEquals={ARN: user.arn}, StringEquals={"aws:PrincipalType": kind})
    found = read({"Version": "2012-10-17", "Statement": [statement]}, user, CUSTOMER, {OWN}, ())
    assert found.open == ((1,) if is_open else ())


@pytest.mark.parametrize(
    ("condition", "is_open"),
    [
        ({"StringLike": {"aws:userid": "*"}}, True),
        ({"StringLike": {"aws:userid": "AROA*:*"}}, True),
        ({"StringNotLike": {"aws:userid": "*:*"}}, False),
        ({"StringEquals": {"aws:userid": "AROA0123456789ABCDEF:deputy"}}, None),
        ({"StringLike": {"aws:userid": ["*:ops", "AROA0123456789ABCDEF:*"]}}, None),
        ({"StringLike": {"aws:userid": f"AROA{'?' * 17}:ops"}}, True),
        ({"StringLike": {"aws:userid": f"AR{'?' * 20}ops"}}, True),
        ({"StringNotLike": {"aws:userid": f"AROA{'?' * 17}:*"}}, False),
        ({"StringLike": {"aws:userid": f"AROA{'?' * 16}:ops"}}, None),
        ({"StringLike": {"aws:userid": "*:x:"}}, None),
        ({"StringLike": {"aws:userid": "*ABCDEF:ops"}}, None),
        ({"Null": {"aws:userid": "false"}}, True),
        ({"Null": {"aws:userid": "true"}}, False),
    ],
    ids=json.dumps,
)
def test_a_user_id_names_a_principal_which_may_be_the_broker(condition, is_open):
    """None: it may be another's. A pattern that fits each role, or each role's sessions of a name, fits the broker."""
    found = reading(DEMANDED, allow(**condition))
    assert (found.open, found.unclear) == ((2,) if is_open else (), () if is_open is not None else (2,))


ABOUT_THE_ID = [
    {"StringEquals": {KEY: "${aws:PrincipalTag/customer}"}},
    {"StringEqualsIgnoreCase": {KEY: OWN}},
    {"ArnLike": {KEY: "*"}},
]


@pytest.mark.parametrize(
    "condition",
    [
        {"StringEquals": {"aws:PrincipalOrgID": "o-1"}},
        {"StringLike": {"aws:userid": "AROA0123456789ABCDEF:*"}},
        {"BinaryEquals": {KEY: "QUJD"}},
        {"StringMatches": {NAME: "x"}},
        {"ForMostValues:StringEquals": {NAME: "x"}},
        *ABOUT_THE_ID,
        {"StringEquals": {}},
        {"StringEquals": []},
        {"StringEquals": {KEY: []}},
        {"StringEquals": {KEY: [{}]}},
    ],
    ids=json.dumps,
)
def test_what_is_not_understood_is_neither_a_demand_nor_a_hole(condition):
    made = allow(only=False) | {"Condition": condition}
    assert (reading(DEMANDED, made).open, reading(DEMANDED, made).unclear) == ((), (2,))
    # A Deny that is not understood may be all that closes it; one on the ID that was sent stops nobody who sends none.
    stops_nobody = condition in ABOUT_THE_ID
    assert reading(DEMANDED, allow(), made | {"Effect": "Deny"}).open == ((2,) if stops_nobody else ())
    # Beside a demand it does not matter.
    assert reading(DEMANDED | {"Condition": {**condition, "StringEquals": {KEY: OWN}}}).open == ()


def test_values_are_read_as_iam_reads_them():
    """A bracket is a bracket, JSON's true is the text "true", and Bool knows no other words."""
    bracket = allow(only=False, ArnLike={ARN: BROKER.arn.replace("Broker", "Bro[k]e*")})
    assert reading(DEMANDED, bracket).open == ()
    assert reading(DEMANDED, allow(StringEquals={"aws:SecureTransport": True})).open == (2,)
    found = reading(DEMANDED, allow(Bool={"aws:SecureTransport": "yes"}))
    assert (found.open, found.unclear) == ((), (2,))


@pytest.mark.parametrize(
    ("wanted", "lets_us_in"), [("true", True), ("TRUE", True), (True, True), ("false", False), ("False", False)]
)
def test_bool_knows_true_and_false_in_any_case(wanted, lets_us_in):
    """The broker's calls come over TLS, so a statement that demands TLS and no External ID is open."""
    found = reading(DEMANDED, allow(Bool={"aws:SecureTransport": wanted}))
    assert (found.open, found.unclear) == ((2,) if lets_us_in else (), ())


def test_null_asks_whether_an_external_id_is_sent():
    """Beside IfExists, which is satisfied when none is sent."""
    unless_absent = {KEY: OWN}
    assert reading(allow(Null={KEY: "false"}, StringEqualsIfExists=unless_absent)) == Reading((), (), (), (), ())
    assert reading(DEMANDED, allow(Null={KEY: "true"}, StringEqualsIfExists=unless_absent)).open == (2,)
    for unclear in ({"Null": {KEY: ["true", "false"]}}, {"Null": {KEY: "perhaps"}}, {"NullIfExists": {KEY: "true"}}):
        found = reading(DEMANDED, allow(**unclear))
        assert (found.open, found.unclear) == ((), (2,)), unclear


def test_every_action_but_some():
    others = {key: value for key, value in allow().items() if key != "Action"}
    assert reading(DEMANDED, others | {"NotAction": "sts:TagSession"}) == Reading((2,), (), (), (), ())
    assert reading(DEMANDED, others | {"NotAction": ["STS:assume*", "s3:*"]}) == Reading((), (), (), (), ())


def test_a_star_crosses_the_colons_of_a_text_and_not_of_an_arn():
    crossing, within = "arn:*DeputyBroker", "arn:*:iam::*:role/*Broker"
    assert reading(DEMANDED, allow(only=False, StringLike={ARN: crossing})).open == (2,)
    assert reading(DEMANDED, allow(only=False, ArnLike={ARN: within})).open == (2,)
    assert reading(DEMANDED, allow(only=False, ArnLike={ARN: crossing})).open == ()
    assert reading(DEMANDED, allow(only=False, ArnLike={ARN: within.replace("::*:", "::999*:")})).open == ()
    assert reading(DEMANDED, allow(only=False, ArnLike={ARN: f"{within}:x"})).open == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"Principal": {"AWS": "AROAABCDEFGHIJKLMNOP"}},  # IAM shows one for who was deleted
        {"Principal": {"AWS": "arn:aws:iam::111122223333:role/*"}},
        {"Principal": {"AWS": [1, {}]}},
        {"Principal": None},
        {"Action": []},
        {"Action": None},
        {"NotAction": "s3:*"},
        {"Resource": "*"},
        {"Condition": None},
        {"Condition": "x"},
    ],
    ids=json.dumps,
)
def test_a_statement_of_another_shape_is_unclear(changed):
    found = reading(DEMANDED, allow() | changed)
    assert (found.open, found.unclear) == ((), (2,))


@pytest.mark.parametrize(
    "policy",
    [
        None,
        [],
        "x",
        5,
        {},
        {"Statement": None},
        {"Statement": ["x"]},
        {"Statement": [DEMANDED | {"Effect": "Perhaps"}]},
    ],
    ids=json.dumps,
)
def test_a_policy_of_another_shape_is_unclear(policy):
    assert read(policy, BROKER, CUSTOMER, {OWN}, ()) == Reading((), (0,), (), (), ())


@pytest.mark.parametrize("made", [[], [deny()], [allow(StringEquals={KEY: FOREIGN})], [DEMANDED, deny()]])
def test_a_policy_that_does_not_explain_why_we_were_let_in_passes_nothing(made):
    found = reading(*made)
    assert found.open or found.unclear


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ([DEMANDED], ()),
        ([allow(to={"AWS": BROKER.arn}, only=False)], ()),
        ([allow(to={"AWS": SESSION}, only=False)], ()),
        ([allow(to="*")], ()),
        ([allow(to="*", only=False), deny(StringNotEquals={ARN: BROKER.arn})], ()),
        ([allow(to="*", only=False)], ("*",)),
        ([allow(only=False)], (ROOT,)),
        ([allow(to={"AWS": "111122223333"}, only=False)], ("111122223333",)),
        ([allow(to={"AWS": [BROKER.arn, "999999999999"]}, only=False)], ("999999999999",)),
        ([DEMANDED, allow(to={"Service": "ec2.amazonaws.com"}, only=False)], ("ec2.amazonaws.com",)),
        (
            [DEMANDED, allow(to={"Service": "ec2.amazonaws.com"}, only=False, StringEquals={KEY: OWN})],
            ("ec2.amazonaws.com",),
        ),
        ([allow(only=False, ArnEquals={ARN: [BROKER.arn, f"{BROKER.arn}2"]})], (f"{BROKER.arn}2",)),
        ([allow(only=False, StringEquals={ARN: f"{BROKER.arn}2"})], (f"{BROKER.arn}2",)),
        ([allow(only=False, ArnNotEquals={ARN: f"{BROKER.arn}2"})], (ROOT,)),
        ([allow(only=False, ArnLike={ARN: f"{ROOT[:-4]}role/[a]*"})], (ROOT, f"{ROOT[:-4]}role/[a]*")),
        ([allow(only=False, ArnEqualsIfExists={ARN: BROKER.arn})], ()),
        ([DEMANDED, deny(to={"AWS": "999999999999"})], ()),
        ([allow(only=False) | {"Action": "sts:TagSession"}, DEMANDED], ()),
    ],
)
def test_other_principals_are_named_as_the_policy_writes_them(made, expected):
    assert reading(*made).others == expected


def test_a_way_in_for_an_identity_provider_is_named_too():
    provider = f"arn:aws:iam::{CUSTOMER}:oidc-provider/token.example.com"
    web = allow(to={"Federated": provider}, only=False) | {"Action": "sts:AssumeRoleWithWebIdentity"}
    assert reading(DEMANDED, web).others == (provider,)


def test_everybody_but_some_is_named_so():
    everybody = {
        "Effect": "Allow",
        "NotPrincipal": {"AWS": ["999999999999", "888888888888"]},
        "Action": "sts:AssumeRole",
    }
    assert reading(DEMANDED, everybody).others == ("everybody but 999999999999, 888888888888",)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ([DEMANDED], ()),
        ([allow(StringEquals={KEY: OWN}, DateLessThan={NOW: "2030-01-01T00:00:00Z"})], ("2030-01-01T00:00:00Z",)),
        ([allow(StringEquals={KEY: OWN}, NumericLessThanEquals={"aws:EpochTime": 1900000000})], ("1900000000",)),
        ([allow(StringEquals={KEY: OWN}, DateGreaterThan={NOW: "2020-01-01T00:00:00Z"})], ()),
        ([DEMANDED, deny(DateGreaterThan={NOW: "2030-01-01T00:00:00Z"})], ("2030-01-01T00:00:00Z",)),
        (
            [DEMANDED, deny(DateGreaterThan={NOW: "2030-01-01T00:00:00Z"}, StringNotEquals={KEY: OWN})],
            ("2030-01-01T00:00:00Z",),
        ),
        ([DEMANDED, deny(to={"AWS": "999999999999"}, DateGreaterThan={NOW: "2030-01-01T00:00:00Z"})], ()),
        ([DEMANDED, allow(StringEquals={KEY: OWN}, DateLessThan={NOW: "2030-01-01T00:00:00Z"})], ()),
    ],
)
def test_dates_that_end_the_access_are_named(made, expected):
    assert reading(*made).ends == expected


# --- everybody ---

EVERYBODY = [{"Principal": "*"}, {"Principal": {"AWS": [ROOT, "*"]}}, {"NotPrincipal": {"AWS": "999999999999"}}]
ACCOUNT, ORGANIZATION, PATHS = "aws:PrincipalAccount", "aws:PrincipalOrgID", "aws:PrincipalOrgPaths"


NOT_UNDERSTOOD = [
    {"ForAllValues:StringEquals": {"aws:TagKeys": []}},
    {"BinaryEqualsIfExists": {"aws:x": "QQ=="}},
    {"BinaryEquals": {ACCOUNT: "QQ=="}},
    {"Bool": {}},
    {"StringEquals": {KEY: OWN, ACCOUNT: []}},
    {"StringNotEquals": {ACCOUNT: []}},
    {"ArnNotEquals": {ARN: [{}]}},
]


def everybody(who=EVERYBODY[0], **conditions):
    made = allow(only=False, **{"StringEquals": {KEY: OWN}} | conditions)
    return {key: value for key, value in made.items() if key != "Principal"} | who


@pytest.mark.parametrize("who", EVERYBODY, ids=json.dumps)
@pytest.mark.parametrize(
    "condition",
    [
        {},
        {"StringLike": {ARN: "*"}},
        {"ArnLike": {ARN: "arn:aws:iam::*:role/vendor/DeputyBroker"}},
        {"ArnLike": {ARN: [BROKER.arn, "arn:aws:iam::*:root"]}},
        {"StringLike": {ARN: "arn:*:iam::111122223333:role/x"}},  # a path may hold colons
        {"StringLike": {ARN: "arn:aws:iam::1111*"}},
        {"ArnNotEquals": {ARN: BROKER.arn}},
        {"ArnEqualsIfExists": {ARN: BROKER.arn}},
        {"ForAllValues:ArnEquals": {ARN: BROKER.arn}},
        {"StringEquals": {KEY: OWN, ARN: "${aws:PrincipalArn}"}},
        {"StringLike": {ACCOUNT: "1111*"}},
        {"StringLike": {ORGANIZATION: "o-*"}},
        {"StringEqualsIfExists": {ORGANIZATION: "o-1"}},
        {"ForAllValues:StringLike": {PATHS: "o-1/*"}},
        {"ForAnyValue:StringLike": {PATHS: "o-*"}},
        {"Null": {ORGANIZATION: "false"}},
        {"StringEquals": {KEY: OWN, "aws:PrincipalType": "AssumedRole"}},
        {"StringLike": {"aws:userid": "AROA0123456789ABCDEF:*"}},
        {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}},
        *NOT_UNDERSTOOD,
    ],
    ids=json.dumps,
)
def test_a_statement_for_everybody_is_open_to_any_account_that_knows_the_id(who, condition):
    assert reading(DEMANDED, everybody(who, **condition)).anybody == (2,)
    other_ways = everybody(who, **condition) | {"Action": "sts:AssumeRoleWithSAML"}
    assert reading(DEMANDED, other_ways).anybody == (2,)
    assert reading(DEMANDED, everybody(who, **condition) | {"Action": "sts:TagSession"}).anybody == ()
    assert reading(DEMANDED, everybody(who, **condition), deny(to={"AWS": "999999999999"})).anybody == (2,)
    assert reading(DEMANDED, everybody(who, **condition), deny(StringNotEquals={KEY: OWN})).anybody == (2,)


@pytest.mark.parametrize(
    "condition",
    [
        {"ArnEquals": {ARN: BROKER.arn}},
        {"ArnLike": {ARN: "arn:*:iam::111122223333:role/*"}},
        {"StringLike": {ARN: ["arn:aws:iam::111122223333:*", "arn:aws:sts::111122223333:*"]}},
        {"StringEquals": {ACCOUNT: BROKER.account_id}},
        {"ForAnyValue:StringEquals": {ACCOUNT: [BROKER.account_id, CUSTOMER]}},
        {"StringEqualsIgnoreCase": {ORGANIZATION: "o-1"}},
        {"StringEquals": {ORGANIZATION: "${aws:ResourceOrgID}"}},
        {"ForAnyValue:StringLike": {PATHS: ["o-1/r-1/*"]}},
    ],
    ids=json.dumps,
)
def test_a_statement_for_everybody_may_be_narrowed(condition):
    assert reading(DEMANDED, everybody(**condition)).anybody == ()
    [(operator, tests)] = condition.items()
    if not operator.startswith("For"):
        denied = {operator.replace("String", "StringNot").replace("Arn", "ArnNot"): tests}
        assert reading(DEMANDED, everybody(), deny(**denied)).anybody == ()


@pytest.mark.parametrize(
    "change",
    [
        *({"Condition": it} for it in [*NOT_UNDERSTOOD, None]),
        {"Principal": {"Federated": "*"}},
        {"NotPrincipal": {"AWS": [{}]}, "Principal": None},
        {"Resource": "*"},
    ],
    ids=json.dumps,
)
def test_a_deny_that_is_not_understood_narrows_nothing(change):
    assert reading(DEMANDED, everybody(), deny() | change).anybody == (2,)
    assert reading(DEMANDED, everybody(), deny()).anybody == ()


def test_a_deny_of_everybody_but_some_narrows_a_statement_for_everybody():
    some = {"Effect": "Deny", "NotPrincipal": {"AWS": [ROOT, BROKER.arn, SESSION]}, "Action": "sts:*"}
    assert reading(DEMANDED, everybody(), some).anybody == ()
    assert reading(DEMANDED, everybody(), some | {"Action": "sts:TagSession"}).anybody == (2,)


# --- the plain reading has the same result ---

more_values = st.lists(
    st.sampled_from(["ab", "aB", "a*", "*b", "a?", "*", 12, "", "${x}", "a b", "x:*:*:*:*:a*"]), max_size=3
)
USER_IDS = [
    *(
        "true",
        "false",
        "ops",
        "*",
        "AROA*",
        "AIDA*",
        "AR*:*",
        "*:ops",
        "AROA*?:o?s",
        "*ops",
        "*:??*",
        "AROAB*:*",
        "*B:*",
    ),
    *("*:x:", "AIDA*?", f"{'?' * 21}", f"AIDA{'?' * 17}", f"AIDA{'?' * 18}*", f"AROA{'?' * 17}:ops", f"{'?' * 21}:*"),
    *(f"{'?' * 22}ops", f"{'?' * 21}ops", f"{'?' * 21}*:*", f"{'?' * 22}*:*", f"A{'?' * 25}*", f"*{'?' * 22}ops"),
]
strange_comparison = st.tuples(
    st.one_of(operators, st.sampled_from(["Null", "NullIfExists", "BinaryEquals", "DateLessThan", "DateGreaterThan"])),
    st.sampled_from([KEY, ARN, NOW, ACCOUNT, ORGANIZATION]),
    more_values,
)
user_id_comparison = st.tuples(
    st.one_of(operators, st.sampled_from(["Null", "StringLike", "StringNotLike"])),
    st.sampled_from(["aws:userid", "AWS:UserId"]),
    st.lists(st.sampled_from(USER_IDS), min_size=1, max_size=2),
)
strange_statement = statements(
    ["Allow", "Allow", "Deny"],
    [*PRINCIPALS, {}, {"Principal": {"Federated": "x"}}],
    [*ACTIONS, {"Action": []}, {"Action": "*", "NotAction": "x"}, {"NotAction": ["STS:*saml", "x"]}],
    st.lists(st.one_of(strange_comparison, user_id_comparison, some_comparison), max_size=3),
)
strange_policies = st.one_of(policies, st.lists(st.one_of(strange_statement, demands), min_size=1, max_size=4))


@pytest.mark.parametrize(
    "broker", [BROKER, Broker.parse("arn:aws:iam::111122223333:user/deputy")], ids=["role", "user"]
)
def test_every_pattern_of_a_user_id_is_read_as_plainly(broker):
    for operator, value in itertools.product(["StringLike", "StringNotLike"], USER_IDS):
        condition = {operator: {"aws:userid": value}}
        demanded, opened = allow(only=False, StringEquals={KEY: OWN}), allow(only=False)
        for made in ([demanded, allow(only=False, **condition)], [demanded, opened, deny(**condition)]):
            found = read({"Statement": made}, broker, CUSTOMER, {OWN}, ())
            plain = plain_reading({"Statement": made}, broker, CUSTOMER, {OWN}, ())
            assert (found.open, found.unclear) == plain[:2], condition


@a_few
@given(strange_policies, st.sampled_from([(), (FOREIGN,), ("ab",)]))
def test_all_callers_judged_together_are_judged_as_each_alone(made, retired):
    policy = {"Statement": made}
    found = read(policy, BROKER, CUSTOMER, {OWN, NEXT}, retired)
    plain = plain_reading(policy, BROKER, CUSTOMER, {OWN, NEXT}, retired)
    assert (found.open, found.unclear, found.others, found.ends, found.listed) == plain
