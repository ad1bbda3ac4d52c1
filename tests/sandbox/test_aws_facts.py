"""What AWS answers, fact by fact. Each row: the fact, the call, and the answer that AWS documents or was seen to give."""

import urllib.error
import urllib.request
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from botocore.exceptions import ClientError

from sandbox.organization import organization
from sandbox.sts import StsCall
from tests.sandbox.sandbox_people import (
    CUSTOMER,
    DENIED,
    DENY_ALL,
    OWN,
    STRANGER,
    VENDOR,
    VENDOR_ROOT,
    document,
    outcome,
    policy,
    statement,
)

INVALID, UNSUPPORTED = (400, "ValidationError"), (501, "SandboxUnsupported")
MALFORMED, BAD_TOKEN, EXPIRED = (400, "MalformedPolicyDocument"), (403, "InvalidClientTokenId"), (403, "ExpiredToken")
YES, ALL, ASSUME_ANY = "allowed", statement("*", Resource="*"), statement(Resource="*")
READ = statement("s3:Get*", Resource="arn:aws:s3:::shared/*")
S3_ONLY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
CLOSED = {"AWS": CUSTOMER}
CERTIFICATE, GOV = f"arn:aws:acm:us-east-1:{CUSTOMER}:certificate/x", f"arn:aws-us-gov:iam::{CUSTOMER}:role/deputy"
ABSENT = f"arn:aws:iam::{CUSTOMER}:role/deputy-absent"
UNKNOWN = {"aws_access_key_id": "AKIAZZZZZZZZZZZZZZZZ", "aws_secret_access_key": "x"}
CASED = {"name": "deputy-Cased", "Path": "/vendor/acme/"}
IMPOSSIBLE = [
    {"DurationSeconds": 43201},
    *({"ExternalId": text} for text in ("bad id !", "x" * 1225, "ünï", "line\n")),
    *({"RoleSessionName": text} for text in ("a b", "x" * 65)),
    *({"arn": arn} for arn in ("deputy-deputy-deputy-deputy", CERTIFICATE, GOV)),
    {"Policy": "x" * 2049},
]
TOO_LITTLE = [
    None,
    READ,
    statement(Resource="arn:aws:iam::*:role/other-*"),
    statement(Resource="*", effect="Deny"),
    statement(Resource="*", Condition={"StringEquals": {"aws:ResourceAccount": VENDOR}}),
]
PATTERN_FAILED = (
    "1 validation error detected: Value 'a b' at 'externalId' failed to satisfy constraint:"
    " Member must satisfy regular expression pattern: "
)
NO_POLICIES = ["not json", "{}", '{"Version":"2012-10-17","Statement":{"Effect":"Allow"}}']


def others(answer, call, values):
    """Those values to which AWS gives another answer."""
    return [value for value in values if call(value) != answer]


def text_of(call):
    with pytest.raises(ClientError) as raised:
        call()
    return raised.value.response["Error"]["Message"]


def stamp(**later):
    return (datetime.now(UTC) + timedelta(**later)).strftime("%Y-%m-%dT%H:%M:%SZ")


def deny_if(condition, **more):
    return statement("*", "Deny", Condition=condition, **(more or {"Resource": "*"}))


def older_than(**later):
    return {"DateLessThan": {"aws:TokenIssueTime": stamp(**later)}}


def open_to_all(p, **options):
    return p.role(VENDOR_ROOT, policies=[ALL], **options)


def listing(p, session):
    return outcome(p.client("iam", session).list_roles)


def vendors(p, *policies, **options):
    """A session of a role in the vendor's account, which a service on ECS has."""
    return p.assume(p.role({"AWS": VENDOR}, account=VENDOR, policies=list(policies), **options))


def as_user(p, policy=None, *, named=True):
    """A user asks for a role in its own account, which names it or its account."""
    user = p.user(VENDOR, policy)
    return p.outcome(p.role({"AWS": user["arn"] if named else VENDOR}, account=VENDOR), who=user)


def managed_policy_on_and_off(p):
    iam, role = p.client("iam", CUSTOMER), p.role(VENDOR_ROOT)
    attachment, buckets = {"RoleName": role.rpartition("/")[2], "PolicyArn": S3_ONLY}, p.client("s3", p.assume(role))
    answers = []
    for call in (iam.attach_role_policy, iam.attach_role_policy, iam.detach_role_policy):
        call(**attachment)
        answers.append(outcome(buckets.list_buckets))
    return [*answers, outcome(iam.detach_role_policy, **attachment)]


def boundary_on_and_off(p):
    iam, role = p.client("iam", CUSTOMER), open_to_all(p, PermissionsBoundary=S3_ONLY)
    name, session = role.rpartition("/")[2], p.assume(role)
    answers = [listing(p, session), outcome(p.client("s3", session).list_buckets)]
    iam.delete_role_permissions_boundary(RoleName=name)
    answers.append(listing(p, session))
    iam.put_role_permissions_boundary(RoleName=name, PermissionsBoundary=S3_ONLY)
    return [*answers, listing(p, session)]


def refusals(p):
    texts = ((arn, text_of(partial(p.assume, arn))) for arn in (p.role(CLOSED), ABSENT))
    return [text.replace(arn, "ROLE").replace(p.broker["arn"], "BROKER") for arn, text in texts]


def spellings(p):
    arn = p.role(VENDOR_ROOT, **CASED)
    changes = (("", ""), ("Cased", "cased"), ("/vendor/acme/", "/"), ("acme", "Acme"))
    return [p.outcome(arn.replace(*change)) for change in changes]


def recreated(p):
    iam, ids = p.client("iam", CUSTOMER), set()
    for _ in range(2):
        role = p.role(VENDOR_ROOT, name="deputy-again")
        ids.add(p.client("sts", p.assume(role)).get_caller_identity()["UserId"])
        iam.delete_role(RoleName="deputy-again")
    return len(ids), p.outcome(role)


def identity_of_session(p):
    """Its role's own unique id, and the ARN without the role's path."""
    role = p.role(VENDOR_ROOT, name="deputy-pathed", Path="/a/b/")
    role_id = p.client("iam", CUSTOMER).get_role(RoleName="deputy-pathed")["Role"]["RoleId"]
    who = p.client("sts", p.assume(role)).get_caller_identity()
    return who["UserId"] == f"{role_id}:sess", who["Account"], who["Arn"]


def chained(p, seconds, call):
    role = p.role(VENDOR_ROOT, MaxSessionDuration=43200)
    return call(lambda: p.assume(role, who=vendors(p, ASSUME_ANY, MaxSessionDuration=43200), DurationSeconds=seconds))


def inert(p):
    session = p.assume(open_to_all(p), Policy=DENY_ALL, DurationSeconds=900)
    calls = {"s3": "list_buckets", "iam": "list_roles", "sqs": "list_queues", "ec2": "describe_instances"}
    answers = {outcome(getattr(p.client(service, session), name))[0] for service, name in calls.items()}
    return answers, p.client("sts", session).get_caller_identity()["Account"]


def reading_roles(p):
    other = p.role(VENDOR_ROOT).rpartition("/")[2]
    reads = statement(["iam:GetRole", "iam:ListRolePolicies"], Resource=f"arn:aws:iam::{CUSTOMER}:role/*/reader")
    role = p.role(VENDOR_ROOT, name="reader", Path="/a/", policies=[reads])
    narrow = document(statement("iam:GetRole", Resource=f"{role}2"))
    reader, narrowed = p.client("iam", p.assume(role)), p.client("iam", p.assume(role, Policy=narrow))
    return [
        outcome(call, RoleName=name)
        for call, name in (
            (reader.get_role, "reader"),
            (reader.list_role_policies, "reader"),
            (reader.get_role, other),
            (reader.list_role_policies, other),
            (narrowed.get_role, "reader"),
        )
    ]


def expired(p):
    session = p.assume(open_to_all(p), DurationSeconds=900)
    calls = [p.client("sts", session).get_caller_identity, p.client("s3", session).list_buckets]
    with p.sandbox.later(minutes=10), p.sandbox.later(minutes=10):
        answers = [outcome(call) for call in calls]
    return [*answers, *map(outcome, calls)]


def without_token(p):
    session = vendors(p)
    wrong = ({**session, "aws_session_token": "x"}, {k: v for k, v in session.items() if "token" not in k})
    return [outcome(p.client("sts", keys).get_caller_identity) for keys in wrong]


def expiration(p):
    asked = {"RoleArn": p.role(VENDOR_ROOT), "RoleSessionName": "sess", "DurationSeconds": 900}
    expires = p.client("sts", VENDOR).assume_role(**asked)["Credentials"]["Expiration"]
    return timedelta(seconds=890) < expires - datetime.now(UTC) <= timedelta(seconds=900)


def ended_trust(p):
    role = p.role(VENDOR_ROOT, {"DateLessThan": {"aws:CurrentTime": stamp(minutes=30)}}, policies=[ALL])
    session = p.assume(role)
    with p.sandbox.later(minutes=31):
        return p.outcome(role), listing(p, session)


def ended_permissions(p):
    after = {"DateGreaterThanEquals": {"aws:CurrentTime": stamp(minutes=30)}}
    role = p.role(VENDOR_ROOT, policies=[ALL, deny_if(after)])
    session = p.assume(role)
    with p.sandbox.later(minutes=31):
        return p.outcome(role), listing(p, session)


def revoked_older(p):
    role = p.role(VENDOR_ROOT, policies=[ALL, deny_if(older_than(minutes=10))])
    earlier = p.assume(role)
    with p.sandbox.later(minutes=20):
        return listing(p, earlier), listing(p, p.assume(role))


def recorded(p):
    role = p.role(VENDOR_ROOT, {"StringEquals": {"sts:ExternalId": OWN}})
    p.outcome(role, OWN, Policy=DENY_ALL, DurationSeconds=900)
    p.outcome(role)
    who = p.broker["arn"]
    return p.sandbox.sts_calls == [
        StsCall(who, role, OWN, "sess", 900, DENY_ALL, YES),
        StsCall(who, role, None, "sess", 3600, None, "AccessDenied"),
    ]


STS = {
    "the caller must be allowed too": (
        lambda p: others(DENIED, lambda policy: p.outcome(p.role(VENDOR_ROOT), who=p.user(VENDOR, policy)), TOO_LITTLE),
        [],
    ),
    "a root needs no identity policy": (lambda p: p.outcome(p.role(VENDOR_ROOT), who=VENDOR), YES),
    "a root is no principal of another account's role": (lambda p: p.outcome(p.role(CLOSED), who=VENDOR), DENIED),
    "in one account being named is enough": (as_user, YES),
    "in one account an account that is named delegates": (lambda p: as_user(p, named=False), DENIED),
    "an explicit deny outweighs being named": (lambda p: as_user(p, statement(effect="Deny", Resource="*")), DENIED),
    "a boundary limits what a session assumes": (
        lambda p: p.outcome(p.role(VENDOR_ROOT), who=vendors(p, ASSUME_ANY, PermissionsBoundary=S3_ONLY)),
        DENIED,
    ),
    "an absent role answers like one that refuses": (
        refusals,
        ["User: BROKER is not authorized to perform: sts:AssumeRole on resource: ROLE"] * 2,
    ),
    "case and path of an ARN count": (spellings, [YES, DENIED, DENIED, DENIED]),
    "a session has its role's unique id, and its ARN has no path": (
        identity_of_session,
        (True, CUSTOMER, f"arn:aws:sts::{CUSTOMER}:assumed-role/deputy-pathed/sess"),
    ),
    "a recreated role has another unique id": (recreated, (2, DENIED)),
    "durations up to the role's maximum": (
        lambda p: [
            p.outcome(p.role(VENDOR_ROOT, MaxSessionDuration=most), DurationSeconds=seconds)
            for most, seconds in ((43200, 43200), (3600, 900))
        ],
        [YES, YES],
    ),
    "above the role's maximum": (
        lambda p: text_of(lambda: p.assume(p.role(VENDOR_ROOT), DurationSeconds=3601)),
        "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
    ),
    "a chained session lasts an hour": (lambda p: chained(p, 3600, outcome), YES),
    "a chained session of more than an hour": (
        lambda p: chained(p, 3601, text_of),
        "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.",
    ),
    "who is refused does not learn a maximum": (lambda p: p.outcome(p.role(CLOSED), DurationSeconds=43200), DENIED),
    "AWS checks what boto3 does not": (
        lambda p: others(INVALID, lambda asked: p.outcome(**({"arn": p.role(VENDOR_ROOT)} | asked)), IMPOSSIBLE),
        [],
    ),
    "a pattern's failure in AWS's words": (
        lambda p: text_of(lambda: p.assume(p.role(VENDOR_ROOT), "a b")).partition("[")[0],
        PATTERN_FAILED,
    ),
    "an ARN of something else": (lambda p: text_of(lambda: p.assume(CERTIFICATE)), "Request ARN is invalid"),
    "a user's ARN is denied and not invalid": (lambda p: p.outcome(p.broker["arn"]), DENIED),
    "malformed session policies": (
        lambda p: others(MALFORMED, lambda text: p.outcome(p.role(VENDOR_ROOT), Policy=text), NO_POLICIES),
        [],
    ),
    "what the sandbox lacks": (
        lambda p: [
            p.outcome(p.role(VENDOR_ROOT), Tags=[{"Key": "a", "Value": "b"}]),
            p.outcome(p.role(VENDOR_ROOT), SourceIdentity="me"),
            outcome(p.client("sts", VENDOR).get_session_token),
        ],
        [UNSUPPORTED] * 3,
    ),
    "a session that may nothing knows who it is": (inert, ({403}, CUSTOMER)),
    "a session policy does not widen": (
        lambda p: listing(p, p.assume(p.role(VENDOR_ROOT, policies=[READ]), Policy=document(ALL))),
        DENIED,
    ),
    "a session reads the roles that its policies name": (reading_roles, [YES, YES, DENIED, DENIED, DENIED]),
    "unknown keys": (lambda p: p.outcome(p.role(VENDOR_ROOT), who=UNKNOWN), BAD_TOKEN),
    "unknown keys at S3": (lambda p: outcome(p.client("s3", UNKNOWN).list_buckets), (403, "InvalidAccessKeyId")),
    "a session without its token": (without_token, [BAD_TOKEN] * 2),
    "expired sessions, at every service, until the clock comes back": (expired, [EXPIRED, EXPIRED, YES, YES]),
    "twelve digits are the root of that account": (
        lambda p: p.client("sts", CUSTOMER).get_caller_identity()["Arn"],
        f"arn:aws:iam::{CUSTOMER}:root",
    ),
    "a session expires as was asked": (expiration, True),
    "a date in the trust policy ends new sessions alone": (ended_trust, (DENIED, YES)),
    "a date in a deny ends live sessions": (ended_permissions, (YES, DENIED)),
    "a deny by issue time ends earlier sessions alone": (revoked_older, (DENIED, YES)),
    "a user's keys have no issue time": (
        lambda p: p.outcome(p.role(VENDOR_ROOT, extra=[deny_if(older_than(hours=1), Principal="*")])),
        YES,
    ),
    "AWS's own policies are attached and detached": (
        managed_policy_on_and_off,
        [YES, YES, DENIED, (404, "NoSuchEntity")],
    ),
    "AWS's own policies are boundaries, and come off": (boundary_on_and_off, [DENIED, YES, YES, DENIED]),
    "the sandbox records each call": (recorded, True),
}


@pytest.mark.parametrize("fact", STS)
def test_sts_answers_as_aws(people, fact):
    call, answer = STS[fact]
    assert call(people) == answer


# S3.


def get(url, method="GET", data=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method)) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.fixture
def bucket(people):
    s3, name = people.client("s3", CUSTOMER), "deputy-shared-tests"
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="templates/a.yaml", Body=b"a")
    s3.put_object(Bucket=name, Key="private/b.txt", Body=b"b")
    yield name
    for item in s3.list_objects_v2(Bucket=name).get("Contents", []):
        s3.delete_object(Bucket=name, Key=item["Key"])
    s3.delete_bucket(Bucket=name)


def publish(people, bucket, *extra):
    allow = statement("s3:GetObject", Principal="*", Resource=f"arn:aws:s3:::{bucket}/templates/*")
    people.client("s3", CUSTOMER).put_bucket_policy(Bucket=bucket, Policy=document(allow, *extra))


def test_the_public_reads_what_is_published_and_nothing_else(people, sandbox, bucket):
    base, stranger = f"{sandbox.url}/{bucket}", people.client("s3", STRANGER)
    template, private = f"{base}/templates/a.yaml", f"{base}/private/b.txt"
    assert get(template) == 403
    publish(people, bucket)
    assert (get(template), get(template, "HEAD"), get(template.replace("localhost", "127.0.0.1"))) == (200, 200, 200)
    refused = [get(url) for url in (private, base, f"{base}?list-type=2", sandbox.url)]
    refused += [get(template, "PUT", b"evil"), get(template, "DELETE")]
    refused.append(get(sandbox.url, "POST", b"Action=AssumeRoleWithWebIdentity&Version=2011-06-15"))
    assert set(refused) == {403}
    assert outcome(stranger.get_object, Bucket=bucket, Key="templates/a.yaml") == YES
    assert outcome(stranger.get_object, Bucket=bucket, Key="private/b.txt") == DENIED
    assert outcome(stranger.put_object, Bucket=bucket, Key="x", Body=b"") == DENIED
    plain = {"Bool": {"aws:SecureTransport": "false"}}
    publish(
        people, bucket, statement("s3:*", "Deny", Principal="*", Resource=f"arn:aws:s3:::{bucket}/*", Condition=plain)
    )
    assert get(template) == 200, "a demand for TLS is taken as met"


def session(people, *policies, **options):
    return people.client("s3", people.assume(people.role(VENDOR_ROOT, policies=list(policies)), **options))


def test_a_session_may_do_what_its_role_and_its_policy_allow(people, bucket):
    mine = {"StringEquals": {"s3:prefix": "templates/", "aws:ResourceAccount": CUSTOMER}}
    s3 = session(
        people,
        statement("s3:ListAllMyBuckets", Resource="*"),
        statement("s3:ListBucket", Resource=f"arn:aws:s3:::{bucket}", Condition=mine),
        statement(["s3:GetObject", "s3:PutObject"], Resource=f"arn:aws:s3:::{bucket}/templates/*"),
    )
    narrow = session(people, statement("s3:*", Resource="*"), Policy=policy("s3:ListBucket"))
    calls = {
        "list buckets": (s3.list_buckets, {}, YES),
        "list": (s3.list_objects_v2, {"Prefix": "templates/"}, YES),
        "list elsewhere": (s3.list_objects_v2, {}, DENIED),
        "get": (s3.get_object, {"Key": "templates/a.yaml"}, YES),
        "get elsewhere": (s3.get_object, {"Key": "private/b.txt"}, DENIED),
        "put": (s3.put_object, {"Key": "templates/c", "Body": b"c"}, YES),
        "delete": (s3.delete_object, {"Key": "templates/a.yaml"}, DENIED),
        "delete many": (s3.delete_objects, {"Delete": {"Objects": [{"Key": "x"}]}}, DENIED),
        "policy": (s3.delete_bucket_policy, {}, DENIED),
        "narrowed get": (narrow.get_object, {"Key": "private/b.txt"}, DENIED),
    }
    answers = {
        name: outcome(call, **({} if name == "list buckets" else {"Bucket": bucket}) | options)
        for name, (call, options, _) in calls.items()
    }
    assert answers == {name: answer for name, (*_, answer) in calls.items()}


# Organisations, and IAM's simulation.


@pytest.fixture
def govern():
    def govern(**policies):
        organization.govern(CUSTOMER, **{kind: policy_of(*found) for kind, found in policies.items()})

    def policy_of(*statements):
        return {"Version": "2012-10-17", "Statement": list(statements)}

    with ExitStack() as stack:
        stack.callback(organization._policies.clear)
        yield govern


@pytest.fixture
def simulate(people):
    """`simulate(role, action, resource, key=value)`: IAM's decision, and the values that it lacked."""

    def simulate(role, action, resource, **context):
        entries = [
            {"ContextKeyName": k, "ContextKeyType": "string", "ContextKeyValues": [v]} for k, v in context.items()
        ]
        asked = {"ActionNames": [action], "ResourceArns": [resource], "ContextEntries": entries}
        [found] = people.client("iam", CUSTOMER).simulate_principal_policy(PolicySourceArn=role, **asked)[
            "EvaluationResults"
        ]
        assert (found["EvalActionName"], found["EvalResourceName"]) == (action, resource)
        limits = [found.get(f"{name}DecisionDetail") for name in ("PermissionsBoundary", "Organizations")]
        return (
            found["EvalDecision"],
            found["MissingContextValues"],
            [limit and next(iter(limit.values())) for limit in limits],
        )

    return simulate


def test_a_simulation_names_what_keeps_a_role_from_an_action(people, simulate, govern):
    deny, mine = statement("s3:GetObjectAcl", effect="Deny", Resource="*"), "aws:ResourceAccount"
    if_mine = statement("sqs:*", Resource="*", Condition={"StringEquals": {mine: CUSTOMER}})
    role = people.role(VENDOR_ROOT, policies=[READ, deny, if_mine])
    bounded = people.role(
        VENDOR_ROOT,
        policies=[ALL],
        PermissionsBoundary=people.client("iam", CUSTOMER).create_policy(
            PolicyName="simulated", PolicyDocument=document(READ)
        )["Policy"]["Arn"],
    )
    one, lacks, free = "arn:aws:s3:::shared/x", [mine.lower()], [None, None]
    assert simulate(role, "s3:GetObject", one) == ("allowed", lacks, free)
    assert simulate(role, "s3:GetObject", "*")[0] == simulate(role, "s3:PutObject", one)[0] == "implicitDeny"
    assert simulate(role, "s3:GetObjectAcl", one)[0] == "explicitDeny"
    assert simulate(role, "sqs:SendMessage", "*") == ("implicitDeny", lacks, free)
    assert simulate(role, "sqs:SendMessage", "*", **{mine: CUSTOMER}) == ("allowed", [], free)
    assert simulate(bounded, "s3:PutObject", "*") == ("implicitDeny", [], [False, None])
    govern(service_control=[ALL, statement("s3:*", effect="Deny", Resource="*")])
    assert simulate(bounded, "s3:GetObject", one) == ("explicitDeny", [], [True, False])


def test_a_simulation_refuses_what_it_does_not_answer(people):
    role = people.role(
        VENDOR_ROOT,
        name="deputy-simulating",
        policies=[statement("iam:Simulate*", Resource=f"arn:aws:iam::{CUSTOMER}:role/deputy-simulating")],
    )
    own, root = people.client("iam", people.assume(role, who=VENDOR)), people.client("iam", CUSTOMER)

    def code(client, **asked):
        action = {"PolicySourceArn": role, "ActionNames": ["s3:GetObject"]}
        return outcome(client.simulate_principal_policy, **action | asked)[1]

    assert own.simulate_principal_policy(PolicySourceArn=role, ActionNames=["s3:GetObject"])["EvaluationResults"]
    assert code(own, PolicySourceArn=people.role(VENDOR_ROOT)) == "AccessDenied"
    assert code(root, PolicySourceArn=ABSENT) == "NoSuchEntity"
    assert code(root, ActionNames=["s3:Get*"]) == "ValidationError"
    for more in ({"ResourceArns": ["arn:a", "arn:b"]}, {"CallerArn": f"arn:aws:iam::{CUSTOMER}:user/x"}):
        assert code(root, **more) == "SandboxUnsupported"


def test_an_organisations_policies_bind_roles_roots_and_outsiders(people, govern):
    role, root = open_to_all(people), people.client("iam", CUSTOMER)
    own = people.client("iam", people.assume(role, who=VENDOR))
    assert outcome(own.list_roles) == YES
    govern(service_control=[statement("s3:*", Resource="*")])
    assert outcome(own.list_roles) == DENIED
    assert text_of(root.list_roles).endswith("because no service control policy allows the iam:ListRoles action")
    govern(service_control=[ALL, statement("iam:*", effect="Deny", Resource="*")])
    assert text_of(root.list_roles).endswith("with an explicit deny in a service control policy")
    assert outcome(people.client("sqs", CUSTOMER).list_queues) == YES
    outsiders = {"StringNotEqualsIfExists": {"aws:PrincipalAccount": CUSTOMER}}
    govern(resource_control=[statement(effect="Deny", Principal="*", Resource="*", Condition=outsiders)])
    assert people.outcome(role, who=VENDOR) == DENIED
