"""The recogniser of trust policies: held to the sandbox's own evaluator, and to policies as
people write them.
"""

import itertools
import json

import pytest
from hypothesis import event, given, settings, strategies as st

from app.config import Broker
from app.onboarding.kit import trust_policy as kit_policy
from app.proofs.trust_policy import Reading, read
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
USER_ID = "aws:userid"


def reading(*statements, **more) -> Reading:
    return read(
        {"Version": "2012-10-17", "Statement": list(statements)} | more,
        BROKER,
        CUSTOMER,
        {OWN, NEXT},
        (),
    )


def allow(*, to={"AWS": ROOT}, only=True, **conditions):  # noqa: B006  it is only read
    """The kit's statement under these conditions. Write a quantifier's colon as two underscores."""
    wanted = {operator.replace("__", ":"): keys for operator, keys in conditions.items()}
    if only:
        wanted["ArnEquals"] = wanted.get("ArnEquals", {}) | {ARN: BROKER.arn}
    return {
        "Effect": "Allow",
        "Principal": to,
        "Action": ["sts:AssumeRole", "sts:TagSession"],
        "Condition": wanted,
    }


def deny(*, to="*", **conditions):
    return allow(to=to, only=False, **conditions) | {"Effect": "Deny"}


DEMANDED = allow(StringEquals={KEY: OWN})
EC2 = {"Service": "ec2.amazonaws.com"}
OIDC = allow(
    to={"Federated": f"arn:aws:iam::{CUSTOMER}:oidc-provider/token.example.com"}, only=False
)
BUT_TWO = {"Effect": "Allow", "NotPrincipal": {"AWS": ["999999999999", "888888888888"]}}
TAGGED_ROLE = "arn:aws:iam::444455556666:role/${aws:PrincipalTag/team}"
IN_2030 = {NOW: "2030-01-01T00:00:00Z"}

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
        EXTERNAL_IDS,
        NAMES,
        [(None, None), ("deputy", "o-1")],
        ["2026-01-01T00:00:00Z", "2036-01-01T00:00:00Z"],
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


def comparisons(
    key: str, operator: st.SearchStrategy[str]
) -> st.SearchStrategy[tuple[str, str, list[str]]]:
    return st.tuples(
        operator,
        st.sampled_from([key, key.lower()]),
        st.lists(st.sampled_from(VALUES[key]), min_size=1, max_size=2),
    )


some_comparison = st.one_of(
    comparisons(KEY, operators),
    comparisons(KEY, st.sampled_from(["StringEquals", "StringNotEquals"])),
    st.tuples(
        st.just("Null"), st.sampled_from([KEY, NAME]), st.sampled_from([["true"], ["false"]])
    ),
    st.tuples(
        st.sampled_from(["DateLessThan", "DateGreaterThan"]),
        st.just(NOW),
        st.just(["2030-01-01T00:00:00Z"]),
    ),
    st.tuples(
        st.sampled_from(["IpAddress", "NotIpAddress"]),
        st.just("aws:SourceIp"),
        st.just(["192.0.2.0/24"]),
    ),
    *(comparisons(key, operators) for key in VALUES),
)


def condition(comparisons) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    for operator, key, values in comparisons:
        found.setdefault(operator, {})[key] = values
    return found


PRINCIPALS = [
    *(
        {"Principal": it}
        for it in [
            "*",
            {"AWS": "*"},
            {"AWS": ROOT},
            {"AWS": BROKER.account_id},
            {"AWS": BROKER.arn},
        ]
    ),
    {"Principal": {"AWS": [f"{BROKER.arn}2", BROKER.arn]}},
    {"Principal": {"AWS": SESSION}},
    {"Principal": {"AWS": "AROAABCDEFGHIJKLMNOP"}},
    {"Principal": {"AWS": f"arn:aws:iam::{CUSTOMER}:root", "Service": "ec2.amazonaws.com"}},
    {"NotPrincipal": {"AWS": f"arn:aws:iam::{CUSTOMER}:root"}},
]
ACTIONS = [
    *(
        {"Action": it}
        for it in [
            "sts:AssumeRole",
            "sts:AssumeRole",
            "STS:assume*",
            ["sts:TagSession", "*"],
            "sts:TagSession",
        ]
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


any_statement = statements(
    ["Allow", "Allow", "Deny"], PRINCIPALS, ACTIONS, st.lists(some_comparison, max_size=3)
)
# Two statements about the External ID, with one more condition at most: where a mistake shows
# soonest.
about_the_id = st.one_of(
    st.tuples(comparisons(KEY, operators)),
    st.tuples(comparisons(KEY, operators), some_comparison),
    st.just(()),
)
close_calls = st.tuples(
    statements(["Allow"], PRINCIPALS[:5], ACTIONS[:1], about_the_id),
    st.one_of(
        statements(["Deny"], PRINCIPALS, ACTIONS, about_the_id),
        statements(
            ["Deny"],
            PRINCIPALS[:2],
            ACTIONS[:1],
            st.tuples(comparisons(KEY, operators), some_comparison),
        ),
        statements(["Deny"], PRINCIPALS[:2], ACTIONS[:1], st.tuples(some_comparison)),
    ),
).map(list)
demands = st.sampled_from([DEMANDED, deny(StringNotEquals={KEY: OWN})])
policies = st.one_of(
    close_calls, st.lists(st.one_of(any_statement, demands), min_size=1, max_size=3)
)
# A broken reading survives 800 about as often as 200: to find more, it takes thousands, as below.
a_few = settings(max_examples=200, deadline=None, database=None)


@a_few
@given(policies)
def test_what_it_passes_the_sandbox_refuses_and_what_it_calls_open_the_sandbox_opens(made):
    """Without the tenant's ID, under every request that is tried here: other IDs and none, names,
    times, addresses.

    No customer is stopped for nothing. Left out of that: what differs from request to request,
    which is taken as it must be to get in, and more than one pattern, which no value may match.
    """
    text, found = json.dumps({"Version": "2012-10-17", "Statement": made}), reading(*made)
    event("passed" if not found.open and not found.unclear else "open" if found.open else "unclear")
    answers = [(context[KEY], lets_in(text, context)) for context in CONTEXTS]
    if not found.open and not found.unclear:
        assert {external_id for external_id, answer in answers if answer} <= {
            value for _, value in found.listed
        }
    varying = any(word in text for word in (NAME, NAME.lower(), "ourceI", "sourcei", NOW, SESSION))
    if not varying and sum(text.count(f'"{pattern}"') for pattern in VALUES[KEY][6:10]) <= 1:
        open_to = {external_id for external_id, answer in answers if answer is not False}
        assert not found.open or open_to
        assert {value for _, value in found.listed if value in EXTERNAL_IDS} <= open_to


EVERY_OPERATOR = [
    f"{quantifier}{name}{if_exists}"
    for quantifier in ("", "ForAllValues:", "ForAnyValue:")
    for name in [*TEXTS, "StringNotEqualsIgnoreCase", *ARNS]
    for if_exists in ("", "IfExists")
]


@pytest.mark.parametrize(
    "values",
    [[OWN], [OWN, NEXT], [FOREIGN], [OWN, FOREIGN], ["*"], ["dpy-*"], [OWN, OWN[:-1] + "?"]],
)
@pytest.mark.parametrize("key", [KEY, ARN])
def test_every_comparison_is_as_the_sandbox_has_it(key, values):
    """Alone in the statement that allows, and alone in one that denies. What the sandbox refuses to
    evaluate is not understood here either, and nor is the External ID without regard to case.
    """
    if key == ARN:
        values = [
            {OWN: BROKER.arn, "*": "arn:aws:iam::*:role/*/DeputyBroker"}.get(it, f"{BROKER.arn}2")
            for it in values
        ]
    for operator in EVERY_OPERATOR:
        tests = {operator: {key: values}}
        for made in (
            [allow(only=False) | {"Condition": tests}],
            [allow(), deny() | {"Condition": tests}],
        ):
            text, found = json.dumps({"Version": "2012-10-17", "Statement": made}), reading(*made)
            answers = {lets_in(text, context) for context in FOR_EACH_ID}
            assert found.open or found.unclear or found.listed or True not in answers, tests
            if None not in answers and "IgnoreCase" not in operator:
                assert bool(found.open or found.listed) == (True in answers), tests


@pytest.mark.soak
@settings(a_few, max_examples=10_000)
@given(policies)
def test_the_reader_agrees_with_the_sandbox_at_length(made):
    test_what_it_passes_the_sandbox_refuses_and_what_it_calls_open_the_sandbox_opens.hypothesis.inner_test(
        made
    )
    test_all_callers_judged_together_are_judged_as_each_alone.hypothesis.inner_test(
        made, (FOREIGN,)
    )


# --- policies as people write them: the statements, and what is judged ---

HOLE, UNCLEAR, CLOSED = {"open": (2,)}, {"unclear": (2,)}, {}
TIMES = {
    "Date": "2030-01-01T00:00:00Z",
    "Numeric": "900",
    "IpAddress": "203.0.113.0/24",
    "Null": "false",
}
# Keys whose values the caller or its network chooses, by the operator that usually compares them.
CHOSEN = {
    "StringEquals": (
        "STS:rolesessionname sts:SourceIdentity aws:RequestTag/team aws:PrincipalTag/team"
        " aws:SourceVpc aws:RequestedRegion aws:Referer aws:UserAgent aws:VpceAccount aws:VpceOrgID"
        " aws:Ec2InstanceSourceVpc aws:Ec2InstanceSourcePrivateIPv4"
        " sts:RequestContext/identitycenter:UserId"
    ),
    "StringEqualsIfExists": "aws:SourceVpce",
    "ForAnyValue:StringLike": "aws:VpceOrgPaths sts:TransitiveTagKeys",
    "ForAllValues:StringEquals": "aws:TagKeys",
    "Null": "aws:SourceIdentity",
    "ArnLike": "aws:SourceVpcArn ec2:SourceInstanceArn lambda:SourceFunctionArn",
    "DateGreaterThan": "aws:CurrentTime aws:TokenIssueTime",
    "NumericLessThan": "aws:EpochTime sts:DurationSeconds",
    "IpAddress": "aws:SourceIp aws:VpcSourceIp",
}
CHOICES = [
    {
        operator: {
            key: next((value for name, value in TIMES.items() if operator.startswith(name)), "x")
        }
    }
    for operator, keys in CHOSEN.items()
    for key in keys.split()
] + [{"StringLike": {USER_ID: pattern}} for pattern in ("*:ops", "AROA*:ops-?")]
BROKER_IS_NOT = [
    {"ArnLike": {ARN: "arn:aws:iam::111122223333:role/vendor/Other*"}},
    {"StringEquals": {"aws:PrincipalAccount": "999999999999"}},
    {"StringEquals": {"aws:PrincipalType": "User"}},
    {"StringNotEquals": {"aws:PrincipalType": "AssumedRole"}},
    {"Bool": {"aws:SecureTransport": "false"}},
    {"StringNotEquals": {"aws:ResourceAccount": CUSTOMER}},
    {"Bool": {"aws:ViaAWSService": "true"}},
    {"Bool": {"aws:PrincipalIsAWSService": "true"}},
]
NOT_UNDERSTOOD = [
    {"StringEquals": {"aws:PrincipalOrgID": "o-1"}},
    {"StringLike": {USER_ID: "AROA0123456789ABCDEF:*"}},
    {"BinaryEquals": {KEY: "QUJD"}},
    {"StringMatches": {NAME: "x"}},
    {"ForMostValues:StringEquals": {NAME: "x"}},
    {"StringEquals": {}},
    {"StringEquals": []},
    {"StringEquals": {KEY: []}},
    {"StringEquals": {KEY: [{}]}},
]
# A Deny of the External ID that was sent stops nobody who sends none.
NOT_UNDERSTOOD_OF_THE_ID = [
    {"StringEquals": {KEY: "${aws:PrincipalTag/customer}"}},
    {"StringEqualsIgnoreCase": {KEY: OWN}},
    {"ArnLike": {KEY: "*"}},
    *(
        {operator: {KEY: "12"}}
        for operator in ("NumericEquals", "DateEquals", "IpAddress", "ArnEquals", "Bool")
    ),
]
CROSSING, WITHIN = "arn:*DeputyBroker", "arn:*:iam::*:role/*Broker"
OTHERS_ACTIONS = {key: value for key, value in allow().items() if key != "Action"}


def if_only(condition):
    return allow(only=False) | {"Condition": condition}


def broker_if(**condition):
    """A second statement, which lets the broker in under this condition alone."""
    return [DEMANDED, allow(**condition)]


POLICIES = {
    "a choice of the caller's replaces no External ID, and a Deny of it can be dodged": [
        row
        for choice in CHOICES
        for row in (
            (broker_if(**choice), HOLE),
            ([DEMANDED, allow(), deny(**choice)], HOLE),
            (broker_if(**choice, **{"ForAnyValue:StringEquals": {KEY: OWN}}), CLOSED),
        )
    ],
    "what the broker never is lets it in nowhere": [
        row
        for never in BROKER_IS_NOT
        for row in ((broker_if(**never), CLOSED), ([DEMANDED, allow(), deny(**never)], HOLE))
    ],
    "what is not understood is neither a demand nor a hole, and does not matter beside a demand": [
        row
        for condition in NOT_UNDERSTOOD + NOT_UNDERSTOOD_OF_THE_ID
        for row in (
            ([DEMANDED, if_only(condition)], UNCLEAR),
            (
                [DEMANDED, allow(), if_only(condition) | {"Effect": "Deny"}],
                HOLE if condition in NOT_UNDERSTOOD_OF_THE_ID else UNCLEAR,
            ),
            ([if_only({**condition, "StringEquals": {KEY: OWN}})], CLOSED),
        )
    ],
    "a user id names a principal, which may be the broker": [
        (broker_if(**{operator: {USER_ID: value}}), judged)
        for operator, value, judged in (
            ("StringLike", "*", HOLE),
            ("StringLike", "AROA*:*", HOLE),
            ("StringNotLike", "*:*", CLOSED),
            ("StringEquals", "AROA0123456789ABCDEF:deputy", UNCLEAR),
            ("StringLike", ["*:ops", "AROA0123456789ABCDEF:*"], UNCLEAR),
            ("StringLike", f"AROA{'?' * 17}:ops", HOLE),
            ("StringLike", f"AR{'?' * 20}ops", HOLE),
            ("StringNotLike", f"AROA{'?' * 17}:*", CLOSED),
            ("StringLike", f"AROA{'?' * 16}:ops", UNCLEAR),
            ("StringLike", "*:x:", UNCLEAR),
            ("StringLike", "*ABCDEF:ops", UNCLEAR),
            ("Null", "false", HOLE),
            ("Null", "true", CLOSED),
        )
    ],
    "values are read as IAM reads them": [
        (
            [DEMANDED, allow(only=False, ArnLike={ARN: BROKER.arn.replace("Broker", "Bro[k]e*")})],
            CLOSED,
        ),
        (broker_if(StringEquals={"aws:SecureTransport": True}), HOLE),
        *((broker_if(Bool={"aws:SecureTransport": word}), HOLE) for word in ("true", "TRUE", True)),
        (broker_if(Bool={"aws:SecureTransport": "False"}), CLOSED),
        (broker_if(Bool={"aws:SecureTransport": "yes"}), UNCLEAR),
        *(
            (broker_if(Bool={key: "false"}), HOLE)
            for key in ("aws:ViaAWSService", "aws:PrincipalIsAWSService")
        ),
    ],
    "Null asks whether an External ID is sent, beside IfExists, which none satisfies": [
        ([allow(Null={KEY: "false"}, StringEqualsIfExists={KEY: OWN})], CLOSED),
        (broker_if(Null={KEY: "true"}, StringEqualsIfExists={KEY: OWN}), HOLE),
        (broker_if(Null={KEY: ["true", "false"]}), UNCLEAR),
        (broker_if(Null={KEY: "perhaps"}), UNCLEAR),
        (broker_if(NullIfExists={KEY: "true"}), UNCLEAR),
    ],
    "every action but some": [
        ([DEMANDED, OTHERS_ACTIONS | {"NotAction": "sts:TagSession"}], HOLE),
        ([DEMANDED, OTHERS_ACTIONS | {"NotAction": ["STS:assume*", "s3:*"]}], CLOSED),
    ],
    "a star crosses the colons of a text and not of an ARN": [
        ([DEMANDED, allow(only=False, **{operator: {ARN: pattern}})], judged | {"unclear": None})
        for operator, pattern, judged in (
            ("StringLike", CROSSING, HOLE),
            ("ArnLike", CROSSING, CLOSED),
            ("ArnLike", WITHIN, HOLE),
            ("ArnLike", WITHIN.replace("::*:", "::999*:"), CLOSED),
            ("ArnLike", f"{WITHIN}:x", CLOSED),
        )
    ],
    "a statement of another shape is unclear": [
        ([DEMANDED, allow() | changed], UNCLEAR)
        for changed in (
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
        )
    ],
    "fixed values beside the tenant's are listed, also where they would be patterns elsewhere": [
        (
            [
                allow(**{operator: {KEY: ["old-2", OWN, "old-1", "*", "x y"]}}),
                allow(StringEquals={KEY: "old-1"}),
                deny(StringEquals={KEY: "old-2"}),
            ],
            {"listed": ((1, "old-1"), (2, "old-1"))},
        )
        for operator in ("StringEquals", "stringEquals", "ForAnyValue:StringEquals")
    ],
    "only a list under StringEquals is a list, and each other way to let in more is a hole": (
        [
            ([DEMANDED, allow() | {"Condition": condition}], HOLE | {"listed": ()})
            for condition in (
                {"StringLike": {KEY: [OWN, "old-1"]}},
                {"StringEqualsIfExists": {KEY: [OWN, "old-1"]}},
                {"ForAllValues:StringEquals": {KEY: [OWN, "old-1"]}},
                {"StringNotEquals": {KEY: "old-1"}},
                {"ForAnyValue:StringLike": {KEY: ["old-*", OWN]}},
            )
        ]
        + [
            (
                broker_if(StringEquals={KEY: [OWN, "old-1"], NAME: "x"}, StringLike={KEY: "*"}),
                {"listed": ((2, "old-1"),)},
            )
        ]
    ),
    "the two External IDs of a rotation are this tenant's": [
        (
            [allow(StringEquals={KEY: [OWN, NEXT]})],
            {"listed": (), "others": (), "ends": (), "anybody": ()},
        )
    ],
    "other principals are named as the policy writes them": [
        (statements, {"open": None, "unclear": None, "others": others})
        for statements, others in (
            ([DEMANDED], ()),
            ([allow(to={"AWS": BROKER.arn}, only=False)], ()),
            ([allow(to={"AWS": SESSION}, only=False)], ()),
            ([allow(to="*")], ()),
            ([allow(to="*", only=False), deny(StringNotEquals={ARN: BROKER.arn})], ()),
            ([allow(to="*", only=False)], ("*",)),
            ([allow(only=False)], (ROOT,)),
            ([allow(to={"AWS": "111122223333"}, only=False)], ("111122223333",)),
            ([allow(to={"AWS": [BROKER.arn, "999999999999"]}, only=False)], ("999999999999",)),
            ([DEMANDED, allow(to=EC2, only=False)], ("ec2.amazonaws.com",)),
            (
                [DEMANDED, allow(to=EC2, only=False, StringEquals={KEY: OWN})],
                ("ec2.amazonaws.com",),
            ),
            (
                [allow(only=False, ArnEquals={ARN: [BROKER.arn, f"{BROKER.arn}2"]})],
                (f"{BROKER.arn}2",),
            ),
            ([allow(only=False, StringEquals={ARN: f"{BROKER.arn}2"})], (f"{BROKER.arn}2",)),
            ([allow(only=False, ArnNotEquals={ARN: f"{BROKER.arn}2"})], (ROOT,)),
            (
                [allow(only=False, ArnLike={ARN: f"{ROOT[:-4]}role/[a]*"})],
                (ROOT, f"{ROOT[:-4]}role/[a]*"),
            ),
            ([allow(only=False, ArnEqualsIfExists={ARN: BROKER.arn})], ()),
            ([DEMANDED, deny(to={"AWS": "999999999999"})], ()),
            ([allow(only=False) | {"Action": "sts:TagSession"}, DEMANDED], ()),
            (
                [DEMANDED, OIDC | {"Action": "sts:AssumeRoleWithWebIdentity"}],
                (OIDC["Principal"]["Federated"],),
            ),
            (
                [DEMANDED, BUT_TWO | {"Action": "sts:AssumeRole"}],
                ("everybody but 999999999999, 888888888888",),
            ),
            # An ARN that is written with a variable may be anybody's.
            ([allow(to="*", only=False, StringNotEquals={ARN: TAGGED_ROLE})], ("*", TAGGED_ROLE)),
        )
    ],
    "dates that end the access are named": [
        (statements, {"ends": ends})
        for statements, ends in (
            ([DEMANDED], ()),
            ([allow(StringEquals={KEY: OWN}, DateLessThan=IN_2030)], ("2030-01-01T00:00:00Z",)),
            (
                [
                    allow(
                        StringEquals={KEY: OWN}, NumericLessThanEquals={"aws:EpochTime": 1900000000}
                    )
                ],
                ("1900000000",),
            ),
            ([allow(StringEquals={KEY: OWN}, DateGreaterThan={NOW: "2020-01-01T00:00:00Z"})], ()),
            ([DEMANDED, deny(DateGreaterThan=IN_2030)], ("2030-01-01T00:00:00Z",)),
            (
                [DEMANDED, deny(DateGreaterThan=IN_2030, StringNotEquals={KEY: OWN})],
                ("2030-01-01T00:00:00Z",),
            ),
            ([DEMANDED, deny(to={"AWS": "999999999999"}, DateGreaterThan=IN_2030)], ()),
            ([DEMANDED, allow(StringEquals={KEY: OWN}, DateLessThan=IN_2030)], ()),
        )
    ],
}


@pytest.mark.parametrize("promise", POLICIES)
def test_a_policy_is_judged_as_the_table_says(promise):
    wrong = []
    for statements, expected in POLICIES[promise]:
        result = reading(*statements)._asdict()
        judged = {
            name: value
            for name, value in ({"open": (), "unclear": ()} | expected).items()
            if value is not None
        }
        if (differing := {name: result[name] for name in judged}) != judged:
            wrong.append((json.dumps(statements), differing, judged))
    assert wrong == []


def test_the_kits_own_policy_has_nothing_to_say():
    assert read(kit_policy(BROKER, OWN), BROKER, CUSTOMER, {OWN}, ()) == Reading((), (), (), (), ())
    both = {"Statement": allow(StringEquals={KEY: [OWN, NEXT]})}
    assert read(both, BROKER, CUSTOMER, {OWN}, ()).listed == ((1, NEXT),), (
        "without a rotation the next is nobody's"
    )


@pytest.mark.parametrize(("kind", "opened"), [("User", (1,)), ("AssumedRole", ())])
def test_a_broker_that_is_an_iam_user_is_a_user_to_the_policy(kind, opened):
    user = Broker.parse("arn:aws:iam::111122223333:user/deputy")
    statement = allow(
        only=False, ArnEquals={ARN: user.arn}, StringEquals={"aws:PrincipalType": kind}
    )
    assert (
        read({"Version": "2012-10-17", "Statement": [statement]}, user, CUSTOMER, {OWN}, ()).open
        == opened
    )


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


@pytest.mark.parametrize(
    "made", [[], [deny()], [allow(StringEquals={KEY: FOREIGN})], [DEMANDED, deny()]]
)
def test_a_policy_that_does_not_explain_why_we_were_let_in_passes_nothing(made):
    found = reading(*made)
    assert found.open or found.unclear


# --- everybody ---

EVERYBODY = [
    {"Principal": "*"},
    {"Principal": {"AWS": [ROOT, "*"]}},
    {"NotPrincipal": {"AWS": "999999999999"}},
]
ACCOUNT, ORGANIZATION, PATHS = "aws:PrincipalAccount", "aws:PrincipalOrgID", "aws:PrincipalOrgPaths"
NARROWS_NOTHING = [
    {"ForAllValues:StringEquals": {"aws:TagKeys": []}},
    {"BinaryEqualsIfExists": {"aws:x": "QQ=="}},
    {"BinaryEquals": {ACCOUNT: "QQ=="}},
    {"Bool": {}},
    {"StringEquals": {KEY: OWN, ACCOUNT: []}},
    {"StringNotEquals": {ACCOUNT: []}},
    {"ArnNotEquals": {ARN: [{}]}},
]
ANYBODYS = [
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
    {"StringLike": {USER_ID: "AROA0123456789ABCDEF:*"}},
    {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}},
    *NARROWS_NOTHING,
]
NARROWED = [
    {"ArnEquals": {ARN: BROKER.arn}},
    {"ArnLike": {ARN: "arn:*:iam::111122223333:role/*"}},
    {"StringLike": {ARN: ["arn:aws:iam::111122223333:*", "arn:aws:sts::111122223333:*"]}},
    {"StringEquals": {ACCOUNT: BROKER.account_id}},
    {"ForAnyValue:StringEquals": {ACCOUNT: [BROKER.account_id, CUSTOMER]}},
    {"StringEqualsIgnoreCase": {ORGANIZATION: "o-1"}},
    {"StringEquals": {ORGANIZATION: "${aws:ResourceOrgID}"}},
    {"ForAnyValue:StringLike": {PATHS: ["o-1/r-1/*"]}},
]


def everybody(who=EVERYBODY[0], **conditions):
    made = allow(only=False, **{"StringEquals": {KEY: OWN}} | conditions)
    return {key: value for key, value in made.items() if key != "Principal"} | who


@pytest.mark.parametrize("who", EVERYBODY, ids=json.dumps)
def test_a_statement_for_everybody_is_open_to_any_account_that_knows_the_id(who):
    for condition in ANYBODYS:
        statement = everybody(who, **condition)
        for statements, anybody in (
            ([statement], (2,)),
            ([statement | {"Action": "sts:AssumeRoleWithSAML"}], (2,)),
            ([statement | {"Action": "sts:TagSession"}], ()),
            ([statement, deny(to={"AWS": "999999999999"})], (2,)),
            ([statement, deny(StringNotEquals={KEY: OWN})], (2,)),
        ):
            assert reading(DEMANDED, *statements).anybody == anybody, statements


def test_a_statement_for_everybody_may_be_narrowed_by_itself_or_by_a_deny_of_the_others():
    for condition in NARROWED:
        assert reading(DEMANDED, everybody(**condition)).anybody == (), condition
        [(operator, tests)] = condition.items()
        if not operator.startswith("For"):
            denied = {operator.replace("String", "StringNot").replace("Arn", "ArnNot"): tests}
            assert reading(DEMANDED, everybody(), deny(**denied)).anybody == (), denied
    some = {
        "Effect": "Deny",
        "NotPrincipal": {"AWS": [ROOT, BROKER.arn, SESSION]},
        "Action": "sts:*",
    }
    assert reading(DEMANDED, everybody(), some).anybody == ()
    assert reading(DEMANDED, everybody(), some | {"Action": "sts:TagSession"}).anybody == (2,)


def test_a_deny_that_is_not_understood_narrows_nothing():
    assert reading(DEMANDED, everybody(), deny()).anybody == ()
    for change in (
        *({"Condition": condition} for condition in [*NARROWS_NOTHING, None]),
        {"Principal": {"Federated": "*"}},
        {"NotPrincipal": {"AWS": [{}]}, "Principal": None},
        {"Resource": "*"},
    ):
        assert reading(DEMANDED, everybody(), deny() | change).anybody == (2,), change


# --- the plain reading has the same result ---

more_values = st.lists(
    st.sampled_from(["ab", "aB", "a*", "*b", "a?", "*", 12, "", "${x}", "a b", "x:*:*:*:*:a*"]),
    max_size=3,
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
    *(
        "*:x:",
        "AIDA*?",
        f"{'?' * 21}",
        f"AIDA{'?' * 17}",
        f"AIDA{'?' * 18}*",
        f"AROA{'?' * 17}:ops",
        f"{'?' * 21}:*",
    ),
    *(
        f"{'?' * 22}ops",
        f"{'?' * 21}ops",
        f"{'?' * 21}*:*",
        f"{'?' * 22}*:*",
        f"A{'?' * 25}*",
        f"*{'?' * 22}ops",
    ),
]
strange_comparison = st.tuples(
    st.one_of(
        operators,
        st.sampled_from(
            ["Null", "NullIfExists", "BinaryEquals", "DateLessThan", "DateGreaterThan"]
        ),
    ),
    st.sampled_from([KEY, ARN, NOW, ACCOUNT, ORGANIZATION]),
    more_values,
)
user_id_comparison = st.tuples(
    st.one_of(operators, st.sampled_from(["Null", "StringLike", "StringNotLike"])),
    st.sampled_from([USER_ID, "AWS:UserId"]),
    st.lists(st.sampled_from(USER_IDS), min_size=1, max_size=2),
)
strange_statement = statements(
    ["Allow", "Allow", "Deny"],
    [*PRINCIPALS, {}, {"Principal": {"Federated": "x"}}],
    [
        *ACTIONS,
        {"Action": []},
        {"Action": "*", "NotAction": "x"},
        {"NotAction": ["STS:*saml", "x"]},
    ],
    st.lists(st.one_of(strange_comparison, user_id_comparison, some_comparison), max_size=3),
)
strange_policies = st.one_of(
    policies, st.lists(st.one_of(strange_statement, demands), min_size=1, max_size=4)
)


@pytest.mark.parametrize(
    "broker", [BROKER, Broker.parse("arn:aws:iam::111122223333:user/deputy")], ids=["role", "user"]
)
def test_every_pattern_of_a_user_id_is_read_as_plainly(broker):
    for operator, value in itertools.product(["StringLike", "StringNotLike"], USER_IDS):
        condition = {operator: {USER_ID: value}}
        demanded, opened = allow(only=False, StringEquals={KEY: OWN}), allow(only=False)
        for made in (
            [demanded, allow(only=False, **condition)],
            [demanded, opened, deny(**condition)],
        ):
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
