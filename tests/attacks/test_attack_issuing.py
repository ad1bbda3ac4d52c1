"""What a worker may ask for when it asks for credentials, and what it can't widen."""

from contextlib import closing

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.attacks.evidence import (
    Scene,
    absent,
    case,
    on_sqlite,
    problem,
    refusal,
    refusals,
    unchanged,
    untouched,
)
from tests.support.cast import World, path_of

pytestmark = on_sqlite  # nothing here depends on the database

FORBIDDEN = [
    "role_arn", "RoleArn", "external_id", "ExternalId", "account_id", "tenant_id", "connection_id",
    "session_name", "RoleSessionName", "role_session_name", "tags", "Tags", "transitive_tag_keys",
    "policy_arns", "PolicyArns", "source_identity", "SourceIdentity", "serial_number", "token_code",
    "provided_contexts", "policy", "Policy", "DurationSeconds", "region", "endpoint_url", "broker",
    "force", "verify", "__proto__", "",
]  # fmt: skip


def test_nothing_but_duration_policy_and_reason_is_taken(scene: Scene):
    values = {"role_arn": scene.theirs["role_arn"], "external_id": scene.globex["external_id"]}
    values |= {"RoleArn": values["role_arn"], "ExternalId": values["external_id"]}
    responses = []
    with unchanged(scene.world, scene.ours), untouched(scene.world, scene.theirs):
        for field in FORBIDDEN:
            with case(field):
                response = scene.mallory.raw(
                    "POST", path_of(scene.ours, "/credentials"), {field: values.get(field, "x")}
                )
                assert (field or "body") in problem(response, 422, "validation_failed")["errors"]
                responses.append(response)
    for event in refusals(scene.world, *responses):
        assert (event["tenant_id"], event["action"]) == (scene.acme["id"], "credentials.refused")


@pytest.mark.parametrize("what", ["/credentials", "/container-credentials"])
def test_the_query_and_headers_change_nothing(scene: Scene, what: str):
    query = (
        f"role_arn={scene.theirs['role_arn']}&external_id={scene.globex['external_id']}"
        "&duration_seconds=43200"
    )
    headers = {"X-Role-Arn": scene.theirs["role_arn"], "X-Tenant-Id": scene.globex["id"]}
    ours = scene.world.connection(scene.acme)  # with no session yet, so AWS is asked
    with untouched(scene.world, scene.theirs):
        method = "POST" if what == "/credentials" else "GET"
        response = scene.mallory.raw(method, f"{path_of(ours, what)}?{query}", headers=headers)
    if response.status_code == 200:
        call = scene.world.calls_for(ours["role_arn"])[-1]
        assert (call.external_id, call.duration) == (scene.acme["external_id"], 3600)
    else:
        problem(response, 422, "validation_failed")


def test_a_duration_is_a_whole_number_within_the_limits(scene: Scene):
    """Leaving it out is how to ask for the default, so null is refused."""
    with unchanged(scene.world, scene.ours):
        for seconds in (
            0,
            -1,
            899,
            3601,
            43_200,
            43_201,
            2**63,
            10**30,
            900.0,
            3600.5,
            "3600",
            True,
            None,
            [900],
            {},
        ):
            with case(seconds=seconds):
                response = scene.mallory.raw(
                    "POST", path_of(scene.ours, "/credentials"), {"duration_seconds": seconds}
                )
                errors = problem(response, 422, "validation_failed")["errors"]
                assert set(errors) == {"duration_seconds"}
                assert seconds not in (3601, 43_200) or "3600" in errors["duration_seconds"][0], (
                    "it names the maximum"
                )


def test_no_text_of_a_callers_enters_the_session_name(scene: Scene):
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


def test_a_broad_session_policy_widens_nothing(scene: Scene):
    issued = scene.mallory(
        "POST", path_of(scene.ours, "/credentials"), {"session_policy": EVERYTHING}
    )
    session = boto3.session.Session(
        issued["AccessKeyId"], issued["SecretAccessKey"], issued["SessionToken"]
    )
    options = {"endpoint_url": scene.world.aws.url, "region_name": "us-east-1"}
    with (
        closing(session.client("iam", **options)) as iam,
        closing(session.client("s3", **options)) as s3,
        closing(session.client("sts", **options)) as sts,
    ):
        for refused in (
            lambda: iam.create_user(UserName="mallory"),
            s3.list_buckets,
            lambda: sts.assume_role(RoleArn=scene.theirs["role_arn"], RoleSessionName="mallory"),
            lambda: sts.assume_role(
                RoleArn=scene.theirs["role_arn"],
                RoleSessionName="mallory",
                ExternalId=scene.globex["external_id"],
            ),
        ):
            with pytest.raises(ClientError) as caught:
                refused()
            assert caught.value.response["Error"]["Code"] in {
                "AccessDenied",
                "AccessDeniedException",
            }


def test_a_policy_that_aws_does_not_take_is_a_fault_of_that_field(scene: Scene):
    for policy in (
        {"Statement": "x"},
        {"Version": "1999-01-01", "Statement": EVERYTHING["Statement"]},
        {"Statement": [{**EVERYTHING["Statement"][0], "Principal": "*"}]},
    ):
        with case(policy=policy):
            response = scene.mallory.raw(
                "POST", path_of(scene.ours, "/credentials"), {"session_policy": policy}
            )
            assert set(problem(response, 422, "validation_failed")["errors"]) == {"session_policy"}
            event = refusal(scene.world, response)
            assert (event["tenant_id"], event["connection_id"]) == (
                scene.acme["id"],
                scene.ours["id"],
            )


def test_a_policy_that_aws_could_not_read_never_reaches_it(scene: Scene):
    policies = [
        "",
        "not json",
        "[]",
        "{}",
        {},
        3,
        {"Version": "2012-10-17"},
        {"Statement": []},
        "null",
        '"{}"',
    ]
    policies += [
        "[" * 1000,
        '{"Statement": ' + "[" * 500 + "]" * 500 + "}",
        '{"Statement": [1], "Statement": [2]}',
    ]
    policies += [{"Statement": [{"Sid": sid}]} for sid in ("ł", "\u0100", "\u2028", "x" * 2030)]
    policies += [
        f'{{"Statement": [{item}]}}'
        for item in ('{"Sid": "\\ud800"}', '{"Sid": "\\u0000"}', "NaN", "9" * 5000)
    ]
    policies += ["\ufeff" + '{"Statement": [1]}', '{"Statement": [1]} {"Statement": [2]}']
    with unchanged(scene.world, scene.ours):
        for policy in policies:
            with case(policy=str(policy)[:50]):
                response = scene.mallory.raw(
                    "POST", path_of(scene.ours, "/credentials"), {"session_policy": policy}
                )
                assert set(problem(response, 422, "validation_failed")["errors"]) == {
                    "session_policy"
                }


def test_a_packed_policy_that_is_too_large_tells_by_how_much(scene: Scene, faults):
    """attacks.md, line 24: mapped to 4xx with percent."""
    faults.add("packed_policy_too_large", role_arn=scene.ours["role_arn"])
    # That nobody has asked for before
    body = {"session_policy": EVERYTHING, "duration_seconds": 1234}
    response = scene.mallory.raw("POST", path_of(scene.ours, "/credentials"), body)
    found = problem(response, 422, "validation_failed")
    assert set(found["errors"]) == {"session_policy"}
    assert "157" in found["errors"]["session_policy"][0]


def test_no_two_keys_share_a_session(scene: Scene, world: World):
    """The session's name tells the customer's CloudTrail which key it was given to."""
    callers = (scene.mallory, world.worker(scene.acme))
    issued = [caller("POST", path_of(scene.ours, "/credentials")) for caller in callers]
    assert issued[0]["AccessKeyId"] != issued[1]["AccessKeyId"]
    recorded = world.audit(connection_id=scene.ours["id"], action="credentials.issued")[:2]
    assert [event["details"]["access_key_id"] for event in reversed(recorded)] == [
        found["AccessKeyId"] for found in issued
    ]


def test_a_worker_can_do_nothing_but_issue(scene: Scene, world: World):
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
