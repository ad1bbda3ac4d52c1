"""Issuing: the two shapes, who may, for what, and what is on record before anything leaves."""

import datetime as dt
import uuid
from contextlib import closing

import boto3
import pytest

from tests.support.cast import World, path_of


@pytest.fixture(scope="module")
def settled(aws, admin):
    """A connection for tests that change nothing of it."""
    return World(aws, admin).connection()


def test_a_post_answers_what_credential_process_prints_and_that_works_in_no_other_account(
    world, settled
):
    issued = world.worker({"id": settled["tenant_id"]})("POST", path_of(settled, "/credentials"))
    assert " ".join(issued) == (
        "Version AccessKeyId SecretAccessKey SessionToken Expiration AccountId"
    )
    assert issued["Version"] == 1
    assert issued["AccountId"] == settled["account_id"]
    left = dt.datetime.fromisoformat(issued["Expiration"]) - dt.datetime.now(dt.UTC)
    assert 3500 < left.total_seconds() <= 3600
    assert issued["Expiration"].endswith("Z")
    session = boto3.session.Session(
        issued["AccessKeyId"], issued["SecretAccessKey"], issued["SessionToken"]
    )
    with closing(session.client("sts", endpoint_url=world.aws.url, region_name="us-east-1")) as sts:
        who = sts.get_caller_identity()
    assert who["Account"] == settled["account_id"]
    assert who["Arn"].split("/")[1] == settled["role_arn"].rsplit("/", 1)[1]


def test_container_credentials_have_the_fields_that_sdks_expect_and_head_issues_nothing(
    world, settled
):
    issued = world.admin("GET", path_of(settled, "/container-credentials"))
    assert " ".join(issued) == ("AccessKeyId SecretAccessKey Token Expiration AccountId RoleArn")
    assert issued["AccountId"] == settled["account_id"]
    assert issued["RoleArn"] == settled["role_arn"]
    before = len(world.calls_for(settled["role_arn"]))
    assert world.admin.raw("HEAD", path_of(settled, "/container-credentials")).status_code == 405
    assert len(world.calls_for(settled["role_arn"])) == before


def test_a_container_refusal_says_why_as_sdks_read_it(world):
    """Java and Go read `code` and `message`, JavaScript `Code` and `Message`."""
    connection = world.connection()
    world.admin("POST", path_of(connection, "/suspend"), {"reason": "unpaid"})
    unknown = connection | {"id": str(uuid.uuid4())}
    for path, status, code in (
        (path_of(connection, "/container-credentials"), 409, "suspended"),
        (path_of(connection, "/container-credentials?"), 409, "suspended"),
        (path_of(unknown, "/container-credentials"), 404, "not_found"),
    ):
        problem = world.admin.refused("GET", path, expect=status, code=code)
        assert problem["Code"] == code
        assert problem["detail"] == problem["message"] == problem["Message"]
    assert "message" not in world.admin("POST", path_of(connection, "/credentials"), expect=409)


def test_a_reason_is_short_and_printable(world, settled):
    for reason in ("", " ", "x" * 201, "two\nlines", 5):
        world.admin("POST", path_of(settled, "/credentials"), {"reason": reason}, expect=422)
