"""Issuing: the two shapes, who may, for what, and what is on record before anything leaves."""

import datetime as dt
import re
import uuid
from contextlib import closing

import boto3
import pytest

from tests.support.cast import SESSION_NAME, World, path_of


@pytest.fixture(scope="module")
def settled(aws, admin):
    """A connection for tests that change nothing of it."""
    return World(aws, admin).connection()


@pytest.fixture
def connection(world: World) -> dict:
    return world.connection()


def test_a_post_answers_what_credential_process_prints(world: World, connection):
    issued = world.worker(connection_tenant(connection))("POST", path_of(connection, "/credentials"))
    assert sorted(issued) == ["AccessKeyId", "AccountId", "Expiration", "SecretAccessKey", "SessionToken", "Version"]
    assert issued["Version"] == 1
    assert issued["AccountId"] == connection["account_id"]
    left = dt.datetime.fromisoformat(issued["Expiration"]) - dt.datetime.now(dt.UTC)
    assert 3500 < left.total_seconds() <= 3600
    assert issued["Expiration"].endswith("Z")


def test_issued_credentials_work_in_the_customers_account_and_in_no_other(world: World, settled):
    issued = world.admin("POST", path_of(settled, "/credentials"))
    session = boto3.session.Session(issued["AccessKeyId"], issued["SecretAccessKey"], issued["SessionToken"])
    with closing(session.client("sts", endpoint_url=world.aws.url, region_name="us-east-1")) as sts:
        who = sts.get_caller_identity()
    assert who["Account"] == settled["account_id"]
    assert who["Arn"].split("/")[1] == settled["role_arn"].rsplit("/", 1)[1]


def test_container_credentials_have_the_fields_that_sdks_expect(world: World, settled):
    got = world.admin("GET", path_of(settled, "/container-credentials"))
    assert sorted(got) == ["AccessKeyId", "AccountId", "Expiration", "RoleArn", "SecretAccessKey", "Token"]
    assert got["AccountId"] == settled["account_id"]
    assert got["RoleArn"] == settled["role_arn"]


def test_a_container_refusal_says_why_as_sdks_read_it(world: World, connection):
    """Java and Go read `code` and `message`, JavaScript `Code` and `Message`."""
    world.admin("POST", path_of(connection, "/suspend"), {"reason": "unpaid"})
    for path in (path_of(connection, "/container-credentials"), path_of(connection, "/container-credentials?")):
        found = world.admin("GET", path, expect=409)
        assert (found["code"], found["Code"]) == ("suspended", "suspended")
        assert found["detail"] == found["message"] == found["Message"]
    found = world.admin("GET", path_of({**connection, "id": str(uuid.uuid4())}, "/container-credentials"), expect=404)
    assert (found["Code"], found["Message"]) == ("not_found", found["detail"])
    assert "message" not in world.admin("POST", path_of(connection, "/credentials"), expect=409)


def test_head_on_container_credentials_issues_nothing(world: World, settled):
    before = len(world.calls_for(settled["role_arn"]))
    assert world.admin.raw("HEAD", path_of(settled, "/container-credentials")).status_code == 405
    assert len(world.calls_for(settled["role_arn"])) == before


def test_the_issuance_is_on_record_with_who_what_and_until_when(world: World, connection):
    worker = world.worker(connection_tenant(connection))
    issued = worker("POST", path_of(connection, "/credentials"), {"reason": "nightly scan", "duration_seconds": 900})
    event = world.audit(connection_id=connection["id"], action="credentials.issued")[0]
    assert event["outcome"] == "ok"
    assert event["actor"]["kind"] == "api_key"
    assert event["tenant_id"] == connection["tenant_id"]
    assert event["details"]["access_key_id"] == issued["AccessKeyId"]
    assert event["details"]["duration_seconds"] == 900
    assert event["details"]["source"] == "sts"
    assert event["details"]["reason"] == "nightly scan"
    at = dt.datetime.fromisoformat(event["details"]["expires_at"])
    assert at == dt.datetime.fromisoformat(issued["Expiration"])


def test_the_request_id_joins_answer_and_audit_log(world: World, connection):
    response = world.admin.raw("POST", path_of(connection, "/credentials"), headers={"X-Request-Id": "mine"})
    event = world.audit(connection_id=connection["id"], action="credentials.issued")[0]
    assert event["request_id"] == response.headers["X-Request-Id"] != "mine"


def test_the_session_name_is_ours_and_tells_which_key(world: World, connection):
    world.admin("POST", path_of(connection, "/credentials"))
    event = world.audit(connection_id=connection["id"], action="credentials.issued")[0]
    name = world.calls_for(connection["role_arn"])[-1].session_name
    assert name == event["details"]["session_name"]
    assert re.fullmatch(SESSION_NAME, name), "proofs have names of this form"
    key = uuid.UUID(event["actor"]["id"]).hex
    assert re.fullmatch(rf"deputy-{key}-[0-9a-f]{{24}}", name)
    assert len(name) <= 64


@pytest.mark.parametrize(
    "raw",
    ['{"duration_seconds": 1e309}', '{"duration_seconds": NaN}', '{"duration_seconds": 9, "duration_seconds": 900}'],
)
def test_a_number_that_is_not_json_is_malformed(world: World, settled, raw):
    world.admin.refused(
        "POST",
        path_of(settled, "/credentials"),
        data=raw,
        content_type="application/json",
        expect=400,
        code="malformed_request",
    )


def test_a_session_policy_reaches_aws_compact_and_only_narrows(world: World, connection):
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}]}
    for given in (policy, __import__("json").dumps(policy, indent=4)):
        issued = world.admin("POST", path_of(connection, "/credentials"), {"session_policy": given})
        sent = world.calls_for(connection["role_arn"])[-1].policy
        assert (
            sent == '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:ListBucket","Resource":"*"}]}'
        )
        assert issued["AccessKeyId"]


@pytest.mark.parametrize("reason", ["", " ", "x" * 201, "two\nlines", "nul\u0000", 5])
def test_a_reason_is_short_and_printable(world: World, settled, reason):
    expect = 400 if isinstance(reason, str) and "\0" in reason else 422
    world.admin("POST", path_of(settled, "/credentials"), {"reason": reason}, expect=expect)


def connection_tenant(connection):
    return {"id": connection["tenant_id"]}
