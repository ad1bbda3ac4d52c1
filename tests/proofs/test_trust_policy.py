"""The recogniser of trust policies: held to the sandbox's own evaluator, and to policies as
people write them.
"""

import itertools
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import event, given, settings, strategies as st

from app.ids import Broker
from app.onboarding.kit_trust_policy import trust_policy as kit_policy
from app.proofs.policy_statements import Globs
from app.proofs.trust_policy import Reading, read
from sandbox.policy import Caller, Grant, Kind, Request, UnsupportedPolicy, evaluate_resource
from tests.proofs.plain_reading import is_one, plain_others, plain_reading

BROKER = Broker.parse("arn:aws:iam::111122223333:role/vendor/DeputyBroker")
ROOT = "arn:aws:iam::111122223333:root"
CUSTOMER = "444455556666"
ATTACKER = f"arn:aws:iam::{CUSTOMER}:role/attacker"
SESSION = "arn:aws:sts::111122223333:assumed-role/DeputyBroker/deputy"
CALLER = Caller(Kind.SESSION, BROKER.account_id, SESSION, BROKER.arn, "AROAABCDEFGHIJKLMNOP:deputy")
OWN, NEXT = f"dpy-{'0123456789abcdef' * 4}", f"dpy-{'fedcba9876543210' * 4}"
FOREIGN = f"{OWN[:20]}{'0' * 32}{OWN[-16:]}"
KEY, ARN, NAME, NOW = "sts:ExternalId", "aws:PrincipalArn", "sts:RoleSessionName", "aws:CurrentTime"
USER_ID = "aws:userid"


def reading(*statements, **more):
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
ACCOUNTS = ["111122223333", "999999999999"]  # the broker's first
TABLES = yaml.safe_load(
    Path(__file__)
    .with_name("trust_policies.yaml")
    .read_text()
    .replace("<own>", OWN)
    .replace("<OWN>", OWN.upper())
    .replace("<own but the last>", OWN[:-1])
    .replace("<next>", NEXT)
    .replace("<foreign>", FOREIGN)
)
VALUES, PRINCIPALS, ACTIONS = TABLES["values"], TABLES["principals"], TABLES["actions"]
USER_IDS = TABLES["user ids"]
HOLE, UNCLEAR, CLOSED = {"open": (2,)}, {"unclear": (2,)}, {}

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


def lets_in(text, context, caller=CALLER):
    """None: the sandbox cannot evaluate this policy either."""
    keys = {key: value for key, value in context.items() if value is not None}
    try:
        request = Request("sts:AssumeRole", f"arn:aws:iam::{CUSTOMER}:role/deputy-x", keys)
        return evaluate_resource(text, caller, request, trust=True) > Grant.NONE
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


def comparisons(key, operator):
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


def condition(comparisons):
    found = {}
    for operator, key, values in comparisons:
        found.setdefault(operator, {})[key] = values
    return found


def statements(effects, principals, actions, comparisons):
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
for_others = st.tuples(
    statements(["Allow"], PRINCIPALS, ACTIONS[:1], about_the_id),
    statements(
        ["Deny"], PRINCIPALS, ACTIONS[:1], st.lists(comparisons(ARN, operators), max_size=2)
    ),
    any_statement,
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


ABSENT_KEY = TABLES["absent key"]
OF_KINDS = {
    "positive": {
        "x": "StringEquals StringEqualsIgnoreCase StringLike",
        ROOT: "ArnEquals ArnLike",
        "1": "NumericEquals NumericLessThan NumericGreaterThanEquals",
        "2030-01-01": "DateEquals DateLessThanEquals DateGreaterThan",
        "192.0.2.0/24": "IpAddress",
        "false": "Bool",
    },
    "negated": {
        "x": "StringNotEquals StringNotEqualsIgnoreCase StringNotLike",
        ROOT: "ArnNotEquals ArnNotLike",
        "1": "NumericNotEquals",
        "2030-01-01": "DateNotEquals",
        "192.0.2.0/24": "NotIpAddress",
    },
}


def unsettled(operator):
    return operator.startswith("ForAnyValue") and operator.endswith("IfExists")


@pytest.mark.parametrize(("kind", "quantifier", "if_exists", "holds", "source"), ABSENT_KEY)
def test_a_comparison_with_an_absent_key_is_as_the_table_says(
    kind, quantifier, if_exists, holds, source
):
    """Both of the reader and of the sandbox, which answers as was seen where AWS's documentation
    can be read both ways.
    """
    expected = {"true": HOLE, "false": CLOSED, "seen false": UNCLEAR}[holds]
    for value, names in OF_KINDS[kind].items():
        for name in names.split():
            condition = {f"{quantifier}{name}{if_exists}": {"sts:DurationSeconds": value}}
            made = [DEMANDED, if_only(condition)]
            found = reading(*made)
            assert {"open": found.open, "unclear": found.unclear} == (
                {"open": (), "unclear": ()} | expected
            ), (condition, source)
            text = json.dumps({"Version": "2012-10-17", "Statement": made})
            assert lets_in(text, CONTEXTS[0]) == (holds == "true"), (condition, source)


@a_few
@given(st.one_of(policies, for_others))
def test_each_principal_that_the_policy_names_and_the_sandbox_lets_in_is_named(made):
    policy = json.dumps({"Version": "2012-10-17", "Statement": made})
    named = {arn for arn in NAMED_ARNS if f'"{arn}"' in policy}
    event(f"{len(named)} named")
    let_in = {arn for arn in named if any(lets_in(policy, *it) for it in requests_of(arn))}
    assert let_in <= {*reading(*made).others}


NAMED_ARNS = [arn for arn in VALUES[ARN] if is_one(arn) and arn != BROKER.arn]


def requests_of(arn):
    """The requests of a session of this role, and who makes them."""
    account, _, name = arn.split(":")[4], *arn.rpartition("/")[1:]
    session = f"arn:aws:sts::{account}:assumed-role/{name}/deputy"
    caller = Caller(Kind.SESSION, account, session, arn, "AROAZZZZZZZZZZZZZZZZ:deputy")
    theirs = {ARN: arn, "aws:PrincipalAccount": account}
    for context in [CONTEXTS[0] | {KEY: OWN}, *CONTEXTS[::7]]:
        yield context | theirs, caller


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
            if None not in answers and "IgnoreCase" not in operator and not unsettled(operator):
                assert bool(found.open or found.listed) == (True in answers), tests


def test_a_wildcard_of_an_arn_crosses_colons_in_its_last_part_alone():
    """IAM takes colons in paths."""
    pattern = ("arn:aws:iam::1*:role/*", True)
    arns = ["arn:aws:iam::12:role/a:b/Broker", "arn:aws:iam::1:2:role/Broker"]
    assert [bool(Globs([pattern]).matching(arn)) for arn in arns] == [True, False]


def test_every_wildcard_of_a_text_crosses_colons():
    globs = Globs([("a*b*c", False), ("a*", True)])
    assert globs.matching("a:bc") == globs.accepting[("a*b*c", False)]


def test_each_deny_takes_its_own_requests_away():
    """One denies requests without an External ID, the other those with a foreign one."""
    unclear = {"StringEquals": {"aws:PrincipalOrgID": "o-1"}}  # the broker's is not known
    for condition, expected in (({}, ()), (unclear, (1,))):
        absent = deny(Null={KEY: "true"}, **condition)
        foreign = deny(ForAnyValue__StringNotEquals={KEY: OWN}, **condition)
        for both in ([absent, foreign], [foreign, absent]):
            made = reading(allow(), *both)
            assert (made.open, made.unclear) == ((), expected)
        assert reading(allow(), absent).open == reading(allow(), foreign).open == (1,)


def test_a_deny_that_ignores_case_holds_for_each_form_that_the_policy_names():
    for forms in ([OWN, OWN.upper()], [OWN.upper(), OWN]):
        named = allow(StringEquals={KEY: forms})
        assert reading(named).listed
        assert not reading(named, deny(StringEqualsIgnoreCase={KEY: OWN.title()})).listed


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
    test_each_principal_that_the_policy_names_and_the_sandbox_lets_in_is_named.hypothesis.inner_test(
        made
    )


# --- policies as people write them: the statements, and what is judged ---

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
    "NumericLessThan": "aws:EpochTime",
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
OF_THE_ID = TABLES["not understood of the External ID"]


def if_only(condition):
    return allow(only=False) | {"Condition": condition}


def broker_if(**condition):
    """A second statement, which lets the broker in under this condition alone."""
    return [DEMANDED, allow(**condition)]


def statement(written):
    """A statement as the tables write it."""
    if written == "demanded":
        return DEMANDED
    changes = dict(written)
    [kind] = {"allow", "bare", "deny"} & changes.keys()
    conditions = changes.pop(kind)
    to = changes.pop("to", "*" if kind == "deny" else {"AWS": ROOT})
    effect = {"Effect": "Deny" if kind == "deny" else "Allow"}
    whole = allow(to=to, only=kind == "allow", **conditions) | effect | changes
    return {key: value for key, value in whole.items() if value != "absent"}


def tuples(value):
    return tuple(tuples(each) for each in value) if isinstance(value, list) else value


def table(rows, field="", **judged):
    """Rows of the tables: statements, and what is judged. `field`: the one that each row has."""
    words = {"hole": HOLE, "unclear": UNCLEAR, "closed": CLOSED}

    def expected(written):
        if isinstance(written, str):
            return words[written]
        fields = written if isinstance(written, dict) else judged | {field: written}
        return {name: tuples(value) for name, value in fields.items()}

    return [([statement(each) for each in policy], expected(written)) for policy, written in rows]


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
        for never in TABLES["what the broker never is"]
        for row in ((broker_if(**never), CLOSED), ([DEMANDED, allow(), deny(**never)], HOLE))
    ],
    "one of several values in any case lets the broker in": [
        (broker_if(StringEqualsIgnoreCase={"aws:PrincipalAccount": ACCOUNTS}), HOLE)
    ],
    "what is not understood is neither a demand nor a hole, and does not matter beside a demand": [
        row
        for condition in (*TABLES["not understood"], *OF_THE_ID)
        for row in (
            ([DEMANDED, if_only(condition)], UNCLEAR),
            (
                [DEMANDED, allow(), if_only(condition) | {"Effect": "Deny"}],
                HOLE if condition in OF_THE_ID else UNCLEAR,
            ),
            ([if_only({**condition, "StringEquals": {KEY: OWN}})], CLOSED),
        )
    ],
    "a statement of another shape is unclear": [
        ([DEMANDED, allow() | changed], UNCLEAR) for changed in TABLES["shapes that are unclear"]
    ],
    "other principals are named as the policy writes them": table(
        TABLES["other principals"], "others", open=None, unclear=None
    ),
    "whom a Deny excepts is named": [
        (
            [
                allow(to=to, only=False, StringEquals={KEY: OWN}),
                deny(**{operator: {ARN: [BROKER.arn, ATTACKER]}}),
            ],
            {"others": (ATTACKER,)},
        )
        for to in ("*", {"AWS": [ROOT, "444455556666"]})
        for operator in EVERY_OPERATOR
        if "Not" in operator and "ForAny" not in operator and "IgnoreCase" not in operator
    ],
    "dates that end the access are named": table(TABLES["ends"], "ends"),
    **{promise: table(rows) for promise, rows in TABLES["policies"].items()},
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


def test_sessions_of_a_role_with_the_name_of_a_broker_that_is_a_user_are_others():
    user = Broker.parse("arn:aws:iam::111122223333:user/DeputyBroker")
    named = allow(to={"AWS": [user.arn, SESSION]}, only=False)
    assert read({"Statement": named}, user, CUSTOMER, {OWN}, ()).others == (SESSION,)
    assert read({"Statement": named}, BROKER, CUSTOMER, {OWN}, ()).others == (user.arn,)
    assert (
        read(
            {"Statement": [DEMANDED, allow(to={"AWS": SESSION}, only=False)]},
            user,
            CUSTOMER,
            {OWN},
            (),
        ).open
        == ()
    )


@pytest.mark.parametrize(
    "policy",
    [
        *(None, [], "x", 5, {}, {"Statement": None}, {"Statement": ["x"]}),
        {"Statement": [DEMANDED | {"Effect": "Perhaps"}]},
    ],
    ids=json.dumps,
)
def test_a_policy_of_another_shape_is_unclear(policy):
    assert read(policy, BROKER, CUSTOMER, {OWN}, ()) == Reading(unclear=(0,))


@pytest.mark.parametrize(
    "statements", [[], [deny()], [allow(StringEquals={KEY: FOREIGN})], [DEMANDED, deny()]]
)
def test_a_policy_that_does_not_explain_why_we_were_let_in_passes_nothing(statements):
    judged = reading(*statements)
    assert judged.open or judged.unclear


# --- everybody ---

EVERYBODY = [
    {"Principal": "*"},
    {"Principal": {"AWS": [ROOT, "*"]}},
    {"NotPrincipal": {"AWS": "999999999999"}},
]
ACCOUNT, ORGANIZATION = "aws:PrincipalAccount", "aws:PrincipalOrgID"
NARROWS_NOTHING = TABLES["everybody"]["narrows nothing"]


def everybody(who=EVERYBODY[0], **conditions):
    made = allow(only=False, **{"StringEquals": {KEY: OWN}} | conditions)
    return {key: value for key, value in made.items() if key != "Principal"} | who


@pytest.mark.parametrize("who", EVERYBODY, ids=json.dumps)
def test_a_statement_for_everybody_is_open_to_any_account_that_knows_the_id(who):
    for condition in (*TABLES["everybody"]["anybody's"], *NARROWS_NOTHING):
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
    for condition in TABLES["everybody"]["narrowed"]:
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
    nobody = {"Effect": "Allow", "NotPrincipal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    assert reading(DEMANDED, nobody).anybody == ()


def test_a_deny_that_is_not_understood_narrows_nothing():
    assert reading(DEMANDED, everybody(), deny()).anybody == ()
    for change in (
        *({"Condition": condition} for condition in [*NARROWS_NOTHING, None]),
        {"Principal": {"Federated": "*"}},
        {"NotPrincipal": {"AWS": [{}]}, "Principal": None},
        {"Resource": "*"},
    ):
        assert reading(DEMANDED, everybody(), deny() | change).anybody == (2,), change


PUBLIC = TABLES["public providers"]


@pytest.mark.parametrize("host", PUBLIC)
def test_a_public_identity_provider_lets_in_anybody_unless_a_claim_says_whose_login_it_is(host):
    way = {"Action": "sts:AssumeRoleWithWebIdentity"}
    for name in (host, f"arn:aws:iam::{CUSTOMER}:oidc-provider/{host}"):
        for condition in PUBLIC[host]["anybody's"]:
            statement = everybody({"Principal": {"Federated": name}}) | way
            statement["Condition"] = condition
            assert reading(DEMANDED, statement).anybody == (2,), statement
            assert reading(DEMANDED, statement | {"Action": "sts:AssumeRole"}).anybody == ()
        for condition in PUBLIC[host]["narrowed"]:
            statement = everybody({"Principal": {"Federated": name}}) | way
            narrowed = statement | {"Condition": condition}
            assert reading(DEMANDED, narrowed).anybody == (), narrowed
            assert reading(DEMANDED, narrowed).others == (name,)
            [(operator, tests)] = condition.items()
            if not operator.startswith("For"):
                denied = deny(**{operator.replace("String", "StringNot"): tests}) | {"Action": "*"}
                assert reading(DEMANDED, statement, denied).anybody == (), denied


def test_a_provider_of_one_organisation_is_another_principal_and_not_anybody():
    for name in ("token.example.com", "token.actions.githubusercontent.com/vendor"):
        provider = {"Federated": f"arn:aws:iam::{CUSTOMER}:oidc-provider/{name}"}
        statement = allow(to=provider, only=False) | {"Action": "sts:AssumeRoleWithWebIdentity"}
        found = reading(DEMANDED, statement)
        assert (found.anybody, found.others) == ((), (provider["Federated"],))


# --- the plain reading has the same result ---

more_values = st.lists(
    st.sampled_from(["ab", "aB", "a*", "*b", "a?", "*", 12, "", "${x}", "a b", "x:*:*:*:*:a*"]),
    max_size=3,
)
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
strange_statement = statements(
    ["Allow", "Allow", "Deny"],
    [*PRINCIPALS, {}, {"Principal": {"Federated": "x"}}],
    [
        *ACTIONS,
        {"Action": []},
        {"Action": "*", "NotAction": "x"},
        {"NotAction": ["STS:*saml", "x"]},
    ],
    st.lists(st.one_of(strange_comparison, some_comparison), max_size=3),
)
strange_policies = st.one_of(
    policies, for_others, st.lists(st.one_of(strange_statement, demands), min_size=1, max_size=4)
)


@pytest.mark.parametrize(
    "broker", [BROKER, Broker.parse("arn:aws:iam::111122223333:user/deputy")], ids=["role", "user"]
)
def test_a_brokers_type_and_every_pattern_of_its_user_id_are_read_as_plainly(broker):
    kinds = [{"StringEquals": {"aws:PrincipalType": kind}} for kind in ("User", "AssumedRole")]
    patterns = itertools.product(["StringLike", "StringNotLike"], USER_IDS)
    for condition in (*kinds, *({operator: {USER_ID: value}} for operator, value in patterns)):
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
    assert (found.open, found.unclear, found.listed) == plain
    assert {*found.others} == plain_others(policy, BROKER)
