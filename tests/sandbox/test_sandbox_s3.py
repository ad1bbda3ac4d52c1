"""S3: accounts, bucket policies, what sessions may do, and what the public reads."""

import json
import urllib.error
import urllib.request
from contextlib import closing

import pytest
from botocore.config import Config

from tests.sandbox.sandbox_people import CUSTOMER, DENIED, STRANGER, VENDOR, VENDOR_ROOT, outcome, statement


def get(url, method="GET", data=None):
    request = urllib.request.Request(url, data, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


@pytest.fixture
def bucket(people):
    s3 = people.client("s3", CUSTOMER)
    name = "deputy-shared-tests"
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="templates/a.yaml", Body=b"a")
    s3.put_object(Bucket=name, Key="private/b.txt", Body=b"b")
    yield name
    for item in s3.list_objects_v2(Bucket=name).get("Contents", []):
        s3.delete_object(Bucket=name, Key=item["Key"])
    s3.delete_bucket(Bucket=name)


def publish(people, bucket, *extra):
    s3 = people.client("s3", CUSTOMER)
    allow = statement("s3:GetObject", Principal="*", Resource=f"arn:aws:s3:::{bucket}/templates/*")
    s3.put_bucket_policy(Bucket=bucket, Policy=policy(allow, *extra))


def test_the_public_reads_what_is_published_and_nothing_else(people, sandbox, bucket):
    base = f"{sandbox.url}/{bucket}"
    assert get(f"{base}/templates/a.yaml") == 403
    publish(people, bucket)
    assert get(f"{base}/templates/a.yaml") == 200
    assert get(f"{base}/templates/a.yaml", "HEAD") == 200
    assert get(f"{base}/private/b.txt") == 403
    assert get(base) == get(f"{base}?list-type=2") == get(sandbox.url) == 403
    assert get(f"{base}/templates/a.yaml", "PUT", b"evil") == get(f"{base}/templates/a.yaml", "DELETE") == 403


def test_by_address_as_well_as_by_name(people, sandbox, bucket):
    publish(people, bucket)
    assert get(f"{sandbox.url}/{bucket}/templates/a.yaml".replace("localhost", "127.0.0.1")) == 200


def test_a_public_access_block_counts(people, sandbox, bucket):
    publish(people, bucket)
    people.client("s3", CUSTOMER).put_public_access_block(
        Bucket=bucket, PublicAccessBlockConfiguration={"RestrictPublicBuckets": True}
    )
    assert get(f"{sandbox.url}/{bucket}/templates/a.yaml") == 403


def test_public_acls(people, sandbox, bucket):
    people.client("s3", CUSTOMER).put_object(Bucket=bucket, Key="open.txt", Body=b"x", ACL="public-read")
    assert get(f"{sandbox.url}/{bucket}/open.txt") == 200


def test_presigned_urls_carry_who_signed(people, bucket):
    params = {"Bucket": bucket, "Key": "private/b.txt"}
    for account, status in ((CUSTOMER, 200), (STRANGER, 403)):
        assert get(people.client("s3", account).generate_presigned_url("get_object", params)) == status


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_presigned_urls_expire(people, sandbox, bucket, version):
    keys = {"aws_access_key_id": CUSTOMER, "aws_secret_access_key": "any"}
    config = Config(signature_version=version, s3={"addressing_style": "path"})
    with closing(people.session.client("s3", "us-east-1", endpoint_url=sandbox.url, config=config, **keys)) as s3:
        params = {"Bucket": bucket, "Key": "private/b.txt"}
        assert get(s3.generate_presigned_url("get_object", params, ExpiresIn=60)) == 200
        assert get(s3.generate_presigned_url("get_object", params, ExpiresIn=0)) == 403
    assert get(f"{sandbox.url}/{bucket}/private/b.txt?AWSAccessKeyId={CUSTOMER}&Expires=soon&Signature=x") == 403


def test_a_demand_for_tls_is_taken_as_met(people, sandbox, bucket):
    condition = {"Bool": {"aws:SecureTransport": "false"}}
    deny = statement("s3:*", "Deny", Principal="*", Resource=f"arn:aws:s3:::{bucket}/*", Condition=condition)
    publish(people, bucket, deny)
    assert get(f"{sandbox.url}/{bucket}/templates/a.yaml") == 200


def test_buckets_belong_to_their_account(people, bucket):
    stranger = people.client("s3", STRANGER)
    assert outcome(lambda: stranger.get_object(Bucket=bucket, Key="private/b.txt")) == DENIED
    assert outcome(lambda: stranger.put_object(Bucket=bucket, Key="x", Body=b"")) == DENIED
    assert outcome(lambda: stranger.list_objects_v2(Bucket=bucket)) == DENIED
    publish(people, bucket)
    assert outcome(lambda: stranger.get_object(Bucket=bucket, Key="templates/a.yaml")) == "allowed"


def session(people, *policies, **options):
    return people.client("s3", people.assume(people.role(VENDOR_ROOT, policies=list(policies)), **options))


def test_a_session_may_do_what_its_role_allows(people, bucket):
    s3 = session(
        people,
        statement("s3:ListAllMyBuckets", Resource="*"),
        statement(
            "s3:ListBucket",
            Resource=f"arn:aws:s3:::{bucket}",
            Condition={"StringEquals": {"s3:prefix": "templates/", "aws:ResourceAccount": CUSTOMER}},
        ),
        statement(["s3:GetObject", "s3:PutObject"], Resource=f"arn:aws:s3:::{bucket}/templates/*"),
    )
    calls = {
        "list buckets": (s3.list_buckets, "allowed"),
        "list": (lambda: s3.list_objects_v2(Bucket=bucket, Prefix="templates/"), "allowed"),
        "list elsewhere": (lambda: s3.list_objects_v2(Bucket=bucket), DENIED),
        "get": (lambda: s3.get_object(Bucket=bucket, Key="templates/a.yaml"), "allowed"),
        "get elsewhere": (lambda: s3.get_object(Bucket=bucket, Key="private/b.txt"), DENIED),
        "put": (lambda: s3.put_object(Bucket=bucket, Key="templates/c", Body=b"c"), "allowed"),
        "put elsewhere": (lambda: s3.put_object(Bucket=bucket, Key="private/c", Body=b"c"), DENIED),
        "copy out": (
            lambda: s3.copy_object(Bucket=bucket, Key="templates/d", CopySource=f"{bucket}/private/b.txt"),
            DENIED,
        ),
        "delete": (lambda: s3.delete_object(Bucket=bucket, Key="templates/a.yaml"), DENIED),
        "delete many": (lambda: s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "x"}]}), DENIED),
        "location": (lambda: s3.get_bucket_location(Bucket=bucket), DENIED),
        "policy": (lambda: s3.delete_bucket_policy(Bucket=bucket), DENIED),
        "create": (lambda: s3.create_bucket(Bucket="deputy-other"), DENIED),
        "tags": (lambda: s3.get_object_tagging(Bucket=bucket, Key="templates/a.yaml"), DENIED),
        "upload": (lambda: s3.create_multipart_upload(Bucket=bucket, Key="private/e"), DENIED),
    }
    assert {name: outcome(call) for name, (call, _) in calls.items()} == {
        name: wanted for name, (_, wanted) in calls.items()
    }


def test_a_session_policy_narrows_what_a_role_may_do(people, bucket):
    everything = statement("s3:*", Resource="*")
    only_list = policy(statement("s3:ListBucket", Resource="*"))
    s3 = session(people, everything, Policy=only_list)
    assert outcome(lambda: s3.list_objects_v2(Bucket=bucket)) == "allowed"
    assert outcome(lambda: s3.get_object(Bucket=bucket, Key="private/b.txt")) == DENIED
    assert outcome(s3.list_buckets) == DENIED


def test_across_accounts_both_sides_must_allow(people, bucket):
    role = people.role({"AWS": VENDOR}, account=VENDOR, policies=[statement("s3:GetObject", Resource="*")])
    s3 = people.client("s3", people.assume(role))
    read = lambda: s3.get_object(Bucket=bucket, Key="private/b.txt")  # noqa: E731
    assert outcome(read) == DENIED
    grant = statement("s3:GetObject", Principal={"AWS": VENDOR}, Resource=f"arn:aws:s3:::{bucket}/*")
    people.client("s3", CUSTOMER).put_bucket_policy(Bucket=bucket, Policy=policy(grant))
    assert outcome(read) == "allowed"


def test_other_services_go_by_the_name_of_the_action(people):
    role = people.role(VENDOR_ROOT, policies=[statement("sqs:ListQueues", Resource="arn:aws:sqs:*:*:x")])
    keys = people.assume(role)
    assert outcome(people.client("sqs", keys).list_queues) == "allowed"
    assert outcome(lambda: people.client("sqs", keys).create_queue(QueueName="q"))[0] == 403
    assert outcome(people.client("iam", keys).list_roles) == DENIED


def test_unsigned_calls_to_other_services_are_refused(sandbox):
    assert get(sandbox.url, "POST", b"Action=AssumeRoleWithWebIdentity&Version=2011-06-15") == 403
