"""Times in policies: when an access ends, which sessions it ends, and that a test can set the clock ahead."""

from datetime import UTC, datetime, timedelta

from tests.sandbox.sandbox_people import CUSTOMER, DENIED, VENDOR_ROOT, outcome, statement

ALL = statement("*", Resource="*")
EXPIRED = (403, "ExpiredToken")


def stamp(**later: int) -> str:
    return (datetime.now(UTC) + timedelta(**later)).strftime("%Y-%m-%dT%H:%M:%SZ")


def listing(people, session):
    return outcome(people.client("iam", session).list_roles)


def test_a_date_in_the_trust_policy_ends_new_sessions_alone(people, sandbox):
    until = {"DateLessThan": {"aws:CurrentTime": stamp(minutes=30)}}
    role = people.role(VENDOR_ROOT, until, policies=[ALL])
    session = people.assume(role)
    with sandbox.later(minutes=31):
        assert people.outcome(role) == DENIED
        assert listing(people, session) == "allowed"
    assert people.outcome(role) == "allowed"


def test_a_date_in_a_deny_ends_live_sessions(people, sandbox):
    after = {"DateGreaterThanEquals": {"aws:CurrentTime": stamp(minutes=30)}}
    role = people.role(VENDOR_ROOT, policies=[ALL, statement("*", "Deny", Resource="*", Condition=after)])
    session = people.assume(role)
    assert listing(people, session) == "allowed"
    with sandbox.later(minutes=31):
        assert people.outcome(role) == "allowed"
        assert listing(people, session) == DENIED


def test_a_deny_by_issue_time_ends_earlier_sessions_alone(people, sandbox):
    older = {"DateLessThan": {"aws:TokenIssueTime": stamp(minutes=10)}}
    role = people.role(VENDOR_ROOT, policies=[ALL, statement("*", "Deny", Resource="*", Condition=older)])
    earlier = people.assume(role)
    with sandbox.later(minutes=20):
        assert listing(people, earlier) == DENIED
        assert listing(people, people.assume(role)) == "allowed"


def test_long_term_keys_have_no_issue_time(people):
    """So AWS's policy for older sessions never ends those of a user: the plain operator is false without the key."""
    older = {"DateLessThan": {"aws:TokenIssueTime": stamp(hours=1)}}
    role = people.role(VENDOR_ROOT, extra=[statement("sts:*", "Deny", Principal="*", Condition=older)])
    assert people.outcome(role) == "allowed"


def test_the_clock_ages_sessions_and_comes_back(people, sandbox):
    role = people.role(VENDOR_ROOT, policies=[ALL])
    session = people.assume(role, DurationSeconds=900)
    with sandbox.later(minutes=10), sandbox.later(minutes=10):
        assert listing(people, session) == EXPIRED
    assert listing(people, session) == "allowed"


def test_aws_s_own_policies_may_be_boundaries(people):
    boundary = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
    session = people.assume(people.role(VENDOR_ROOT, policies=[ALL], PermissionsBoundary=boundary))
    assert listing(people, session) == DENIED
    assert outcome(people.client("s3", session).list_buckets) == "allowed"


def test_aws_s_own_policies_are_attached_and_detached(people):
    iam, role = people.client("iam", CUSTOMER), people.role(VENDOR_ROOT)
    wanted = {"RoleName": role.rpartition("/")[2], "PolicyArn": "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"}
    session = people.assume(role)
    buckets = people.client("s3", session).list_buckets
    for _ in range(2):  # attaching it again changes nothing
        iam.attach_role_policy(**wanted)
        assert outcome(buckets) == "allowed"
    iam.detach_role_policy(**wanted)
    assert outcome(buckets) == DENIED
    absent = (404, "NoSuchEntity")
    assert outcome(lambda: iam.detach_role_policy(**wanted)) == absent
    assert outcome(lambda: iam.attach_role_policy(**wanted | {"PolicyArn": f"{wanted['PolicyArn']}2"})) == absent


def test_a_boundary_may_be_changed_and_taken_off(people):
    iam = people.client("iam", CUSTOMER)
    role = people.role(VENDOR_ROOT, policies=[ALL])
    name, session = role.rpartition("/")[2], people.assume(role)
    iam.put_role_permissions_boundary(
        RoleName=name, PermissionsBoundary="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
    )
    assert listing(people, session) == DENIED
    iam.delete_role_permissions_boundary(RoleName=name)
    assert listing(people, session) == "allowed"
