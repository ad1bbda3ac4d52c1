"""What AWS answers, fact by fact. Each row: the fact, the call, and the answer that AWS
documents or was seen to give. `make aws-check` compares others with AWS (dev/aws_check/answers.py).
"""

import urllib.error
import urllib.request
from contextlib import ExitStack
from functools import partial

import pytest
from botocore.exceptions import ClientError

from sandbox.organization import organization
from tests.sandbox.sandbox_people import (
    CUSTOMER,
    DENIED,
    STRANGER,
    VENDOR,
    VENDOR_ROOT,
    document,
    outcome,
    statement,
)

INVALID, UNSUPPORTED = (400, "ValidationError"), (501, "SandboxUnsupported")
BAD_TOKEN, EXPIRED = (403, "InvalidClientTokenId"), (403, "ExpiredToken")
YES, ALL, ASSUME_ANY = "allowed", statement("*", Resource="*"), statement(Resource="*")
READ = statement("s3:Get*", Resource="arn:aws:s3:::shared/*")
S3_ONLY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
CLOSED = {"AWS": CUSTOMER}
CERTIFICATE, GOV = (
    f"arn:aws:acm:us-east-1:{CUSTOMER}:certificate/x",
    f"arn:aws-us-gov:iam::{CUSTOMER}:role/deputy",
)
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


def others(answer, call, values):
    """Those values to which AWS gives another answer."""
    return [value for value in values if call(value) != answer]


def text_of(call):
    with pytest.raises(ClientError) as raised:
        call()
    return raised.value.response["Error"]["Message"]


def open_to_all(p, **options):
    return p.role(VENDOR_ROOT, policies=[ALL], **options)


def vendors(p, *policies, **options):
    """A session of a role in the vendor's account, which a service on ECS has."""
    return p.assume(p.role({"AWS": VENDOR}, account=VENDOR, policies=list(policies), **options))


def as_user(p, policy=None, *, named=True):
    """A user asks for a role in its own account, which names it or its account."""
    user = p.user(VENDOR, policy)
    return p.outcome(p.role({"AWS": user["arn"] if named else VENDOR}, account=VENDOR), who=user)


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


def chained(p):
    role = p.role(VENDOR_ROOT, MaxSessionDuration=43200)
    session = vendors(p, ASSUME_ANY, MaxSessionDuration=43200)
    return p.outcome(role, who=session, DurationSeconds=3600)


def expired(p):
    session = p.assume(open_to_all(p), DurationSeconds=900)
    calls = [p.client("sts", session).get_caller_identity, p.client("s3", session).list_buckets]
    with p.sandbox.later(minutes=10), p.sandbox.later(minutes=10):
        answers = [outcome(call) for call in calls]
    return [*answers, *map(outcome, calls)]


def without_token(p):
    session = vendors(p)
    wrong = (
        {**session, "aws_session_token": "x"},
        {k: v for k, v in session.items() if "token" not in k},
    )
    return [outcome(p.client("sts", keys).get_caller_identity) for keys in wrong]


STS = {
    "the caller must be allowed too": (
        lambda p: others(
            DENIED,
            lambda policy: p.outcome(p.role(VENDOR_ROOT), who=p.user(VENDOR, policy)),
            TOO_LITTLE,
        ),
        [],
    ),
    "a root needs no identity policy": (lambda p: p.outcome(p.role(VENDOR_ROOT), who=VENDOR), YES),
    "a root is no principal of another account's role": (
        lambda p: p.outcome(p.role(CLOSED), who=VENDOR),
        DENIED,
    ),
    "in one account being named is enough": (as_user, YES),
    "in one account an account that is named delegates": (
        lambda p: as_user(p, named=False),
        DENIED,
    ),
    "an explicit deny outweighs being named": (
        lambda p: as_user(p, statement(effect="Deny", Resource="*")),
        DENIED,
    ),
    "a boundary limits what a session assumes": (
        lambda p: p.outcome(
            p.role(VENDOR_ROOT), who=vendors(p, ASSUME_ANY, PermissionsBoundary=S3_ONLY)
        ),
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
    "a chained session lasts an hour": (chained, YES),
    "who is refused does not learn a maximum": (
        lambda p: p.outcome(p.role(CLOSED), DurationSeconds=43200),
        DENIED,
    ),
    "AWS checks what boto3 does not": (
        lambda p: others(
            INVALID, lambda asked: p.outcome(**({"arn": p.role(VENDOR_ROOT)} | asked)), IMPOSSIBLE
        ),
        [],
    ),
    "a pattern's failure in AWS's words": (
        lambda p: text_of(lambda: p.assume(p.role(VENDOR_ROOT), "a b")).partition("[")[0],
        PATTERN_FAILED,
    ),
    "an ARN of something else": (
        lambda p: text_of(lambda: p.assume(CERTIFICATE)),
        "Request ARN is invalid",
    ),
    "a user's ARN is denied and not invalid": (lambda p: p.outcome(p.broker["arn"]), DENIED),
    "what the sandbox lacks": (
        lambda p: [
            p.outcome(p.role(VENDOR_ROOT), Tags=[{"Key": "a", "Value": "b"}]),
            p.outcome(p.role(VENDOR_ROOT), SourceIdentity="me"),
            outcome(p.client("sts", VENDOR).get_session_token),
        ],
        [UNSUPPORTED] * 3,
    ),
    "unknown keys": (lambda p: p.outcome(p.role(VENDOR_ROOT), who=UNKNOWN), BAD_TOKEN),
    "unknown keys at S3": (
        lambda p: outcome(p.client("s3", UNKNOWN).list_buckets),
        (403, "InvalidAccessKeyId"),
    ),
    "a session without its token": (without_token, [BAD_TOKEN] * 2),
    "expired sessions, at every service, until the clock comes back": (
        expired,
        [EXPIRED, EXPIRED, YES, YES],
    ),
    "twelve digits are the root of that account": (
        lambda p: p.client("sts", CUSTOMER).get_caller_identity()["Arn"],
        f"arn:aws:iam::{CUSTOMER}:root",
    ),
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
    assert (
        get(template),
        get(template, "HEAD"),
        get(template.replace("localhost", "127.0.0.1")),
    ) == (200, 200, 200)
    refused = [get(url) for url in (private, base, f"{base}?list-type=2", sandbox.url)]
    refused += [get(template, "PUT", b"evil"), get(template, "DELETE")]
    refused.append(get(sandbox.url, "POST", b"Action=AssumeRoleWithWebIdentity&Version=2011-06-15"))
    assert set(refused) == {403}
    assert outcome(stranger.get_object, Bucket=bucket, Key="templates/a.yaml") == YES
    assert outcome(stranger.get_object, Bucket=bucket, Key="private/b.txt") == DENIED
    assert outcome(stranger.put_object, Bucket=bucket, Key="x", Body=b"") == DENIED
    plain = {"Bool": {"aws:SecureTransport": "false"}}
    publish(
        people,
        bucket,
        statement(
            "s3:*", "Deny", Principal="*", Resource=f"arn:aws:s3:::{bucket}/*", Condition=plain
        ),
    )
    assert get(template) == 200, "a demand for TLS is taken as met"


# Organisations, and IAM's simulation.


@pytest.fixture
def govern():
    def govern(**policies):
        organization.govern(
            CUSTOMER, **{kind: policy_of(*found) for kind, found in policies.items()}
        )

    def policy_of(*statements):
        return {"Version": "2012-10-17", "Statement": list(statements)}

    with ExitStack() as stack:
        stack.callback(organization._policies.clear)
        yield govern


def test_an_organisations_policies_bind_roles_roots_and_outsiders(people, govern):
    role, root = open_to_all(people), people.client("iam", CUSTOMER)
    own = people.client("iam", people.assume(role, who=VENDOR))
    assert outcome(own.list_roles) == YES
    govern(service_control=[statement("s3:*", Resource="*")])
    assert outcome(own.list_roles) == DENIED
    assert text_of(root.list_roles).endswith(
        "because no service control policy allows the iam:ListRoles action"
    )
    govern(service_control=[ALL, statement("iam:*", effect="Deny", Resource="*")])
    assert text_of(root.list_roles).endswith("with an explicit deny in a service control policy")
    assert outcome(people.client("sqs", CUSTOMER).list_queues) == YES
    outsiders = {"StringNotEqualsIfExists": {"aws:PrincipalAccount": CUSTOMER}}
    govern(
        resource_control=[
            statement(effect="Deny", Principal="*", Resource="*", Condition=outsiders)
        ]
    )
    assert people.outcome(role, who=VENDOR) == DENIED
