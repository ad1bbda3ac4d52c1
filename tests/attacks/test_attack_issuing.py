"""What a worker may ask for when it asks for credentials, and what it can't widen."""

from contextlib import closing
from functools import partial

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.attacks.evidence import absent, case, problem, refusal, refusals, unchanged, untouched
from tests.support.cast import path_of

FORBIDDEN = [
    *("role_arn", "RoleArn", "external_id", "ExternalId", "account_id", "tenant_id"),
    *("session_name", "RoleSessionName", "tags", "Tags", "policy_arns", "PolicyArns"),
    *("source_identity", "policy", "DurationSeconds", "region", "endpoint_url", "__proto__", ""),
]


def credentials(api, connection, body):
    return api.raw("POST", path_of(connection, "/credentials"), body)


def test_nothing_but_duration_policy_and_reason_is_taken(scene):
    values = {"role_arn": scene.theirs["role_arn"], "external_id": scene.globex["external_id"]}
    values |= {"RoleArn": values["role_arn"], "ExternalId": values["external_id"]}
    responses = []
    with unchanged(scene.world, scene.ours), untouched(scene.world, scene.theirs):
        for field in FORBIDDEN:
            with case(field):
                response = credentials(scene.mallory, scene.ours, {field: values.get(field, "x")})
                assert (field or "body") in problem(response, 422, "validation_failed")["errors"]
                responses.append(response)
    for event in refusals(scene.world, *responses):
        assert (event["tenant_id"], event["action"]) == (scene.acme["id"], "credentials.refused")


def test_the_query_is_refused_or_ignored_and_headers_change_nothing(scene):
    query = (
        f"role_arn={scene.theirs['role_arn']}&external_id={scene.globex['external_id']}"
        "&duration_seconds=43200"
    )
    headers = {"X-Role-Arn": scene.theirs["role_arn"], "X-Tenant-Id": scene.globex["id"]}
    ours = scene.world.connection(scene.acme)
    with unchanged(scene.world, ours):
        refused = scene.mallory.raw("POST", f"{path_of(ours, '/credentials')}?{query}")
        problem(refused, 422, "validation_failed")
    for method, what in (("POST", "/credentials"), ("GET", f"/container-credentials?{query}")):
        ours = scene.world.connection(scene.acme)  # with no session yet, so AWS is asked
        with untouched(scene.world, scene.theirs), case(what):
            scene.mallory(method, path_of(ours, what), headers=headers)
        call = scene.world.calls_for(ours["role_arn"])[-1]
        assert (call.external_id, call.duration) == (scene.acme["external_id"], 3600)


def test_a_duration_is_a_whole_number_within_the_limits(scene):
    """Leaving it out is how to ask for the default, so null is refused."""
    with unchanged(scene.world, scene.ours):
        for seconds in (0, -1, 899, 3601, 43_201, 10**30, 900.0, 3600.5, "3600", True, None, [900]):
            with case(seconds=seconds):
                response = credentials(scene.mallory, scene.ours, {"duration_seconds": seconds})
                errors = problem(response, 422, "validation_failed")["errors"]
                assert set(errors) == {"duration_seconds"}
                if seconds == 3601:
                    assert "3600" in errors["duration_seconds"][0], "it names the maximum"


def test_no_text_of_a_callers_enters_the_session_name(scene):
    ours = scene.world.connection(scene.acme)  # with no session yet, so AWS is asked
    scene.mallory("POST", path_of(ours, "/credentials"), {"reason": scene.globex["id"]})
    event = scene.mallory("GET", "/v1/audit-events?action=credentials.issued&limit=1")["items"][0]
    session_name = scene.world.calls_for(ours["role_arn"])[-1].session_name
    assert session_name.startswith(f"deputy-{event['actor']['id'].replace('-', '')}-")
    assert len(session_name) == 64
    assert scene.globex["id"].replace("-", "") not in session_name


EVERYTHING = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}


def test_a_broad_session_policy_widens_nothing(scene):
    issued = credentials(scene.mallory, scene.ours, {"session_policy": EVERYTHING}).get_json()
    session = boto3.session.Session(
        issued["AccessKeyId"], issued["SecretAccessKey"], issued["SessionToken"]
    )
    options = {"endpoint_url": scene.world.aws.url, "region_name": "us-east-1"}
    with (
        closing(session.client("iam", **options)) as iam,
        closing(session.client("s3", **options)) as s3,
        closing(session.client("sts", **options)) as sts,
    ):
        assume = partial(
            sts.assume_role, RoleArn=scene.theirs["role_arn"], RoleSessionName="mallory"
        )
        for call in (
            partial(iam.create_user, UserName="mallory"),
            s3.list_buckets,
            assume,
            partial(assume, ExternalId=scene.globex["external_id"]),
        ):
            with pytest.raises(ClientError, match="AccessDenied"):
                call()


def test_a_policy_that_aws_does_not_take_is_a_fault_of_that_field(scene):
    for policy in (
        {"Statement": "x"},
        {"Version": "1999-01-01", "Statement": EVERYTHING["Statement"]},
        {"Statement": [{**EVERYTHING["Statement"][0], "Principal": "*"}]},
    ):
        with case(policy=policy):
            response = credentials(scene.mallory, scene.ours, {"session_policy": policy})
            assert set(problem(response, 422, "validation_failed")["errors"]) == {"session_policy"}
            assert refusal(scene.world, response)["connection_id"] == scene.ours["id"]


def test_a_policy_that_aws_could_not_read_never_reaches_it(scene):
    policies = ["", "not json", "[]", {}, 3, {"Version": "2012-10-17"}, {"Statement": []}, '"{}"']
    policies += ["[" * 1000, '{"Statement": [1], "Statement": [2]}', '{"Statement": [NaN]}']
    policies += [{"Statement": [{"Sid": sid}]} for sid in ("ł", "\u2028", "x" * 2030)]
    policies += ['{"Statement": [{"Sid": "\\ud800"}]}', '\ufeff{"Statement": [1]}']
    with unchanged(scene.world, scene.ours):
        for policy in policies:
            with case(policy=str(policy)[:50]):
                response = credentials(scene.mallory, scene.ours, {"session_policy": policy})
                errors = problem(response, 422, "validation_failed")["errors"]
                assert set(errors) == {"session_policy"}


def test_a_packed_policy_that_is_too_large_tells_by_how_much(scene, faults):
    """Mapped to a 4xx with percent."""
    faults.add("packed_policy_too_large", role_arn=scene.ours["role_arn"])
    # That nobody has asked for before
    body = {"session_policy": EVERYTHING, "duration_seconds": 1234}
    response = credentials(scene.mallory, scene.ours, body)
    [message] = problem(response, 422, "validation_failed")["errors"]["session_policy"]
    assert "157" in message


def test_no_two_keys_share_a_session(scene, world):
    """The session's name tells the customer's CloudTrail which key it was given to."""
    path, apis = path_of(scene.ours, "/credentials"), (scene.mallory, world.worker(scene.acme))
    issued = [api("POST", path)["AccessKeyId"] for api in apis]
    assert issued[0] != issued[1]
    recorded = world.audit(connection_id=scene.ours["id"], action="credentials.issued")[:2]
    assert [event["details"]["access_key_id"] for event in recorded] == issued[::-1]


def test_a_worker_can_do_nothing_but_issue(scene, world):
    worker = world.worker(scene.acme)
    with unchanged(world, scene.ours):
        for method, path in (
            ("GET", path_of(scene.ours)),
            ("POST", path_of(scene.ours, "/verify")),
            ("GET", f"/v1/tenants/{absent()}"),
            ("GET", "/v1/audit-events"),
            ("GET", "/v1/api-keys"),
        ):
            problem(worker.raw(method, path), 403, "forbidden")
