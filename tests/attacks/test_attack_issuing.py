"""What a worker may ask for when it asks for credentials, and what it can't widen."""

from contextlib import closing

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.attacks.evidence import Scene, absent, on_sqlite, problem, refusal, unchanged, untouched
from tests.support.cast import World, path_of

FORBIDDEN = [
    "role_arn", "RoleArn", "external_id", "ExternalId", "account_id", "tenant_id", "connection_id",
    "session_name", "RoleSessionName", "role_session_name", "tags", "Tags", "transitive_tag_keys", "policy_arns",
    "PolicyArns", "source_identity", "SourceIdentity", "serial_number", "token_code", "provided_contexts", "policy",
    "Policy", "DurationSeconds", "region", "endpoint_url", "broker", "force", "verify", "__proto__", "",
]  # fmt: skip


@on_sqlite
@pytest.mark.parametrize("field", FORBIDDEN)
def test_nothing_but_duration_policy_and_reason_is_taken(scene: Scene, field: str):
    values = {"role_arn": scene.theirs["role_arn"], "external_id": scene.globex["external_id"]}
    value = values.get(field.replace("RoleArn", "role_arn").replace("ExternalId", "external_id"), "x")
    with unchanged(scene.world, scene.ours), untouched(scene.world, scene.theirs):
        response = scene.mallory.raw("POST", path_of(scene.ours, "/credentials"), {field: value})
        assert (field or "body") in problem(response, 422, "validation_failed")["errors"]
        event = refusal(scene.world, response)
        assert (event["tenant_id"], event["action"]) == (scene.acme["id"], "credentials.refused")


@pytest.mark.parametrize("what", ["/credentials", "/container-credentials"])
def test_the_query_and_headers_change_nothing(scene: Scene, what: str):
    query = f"role_arn={scene.theirs['role_arn']}&external_id={scene.globex['external_id']}&duration_seconds=43200"
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


@on_sqlite
@pytest.mark.parametrize(
    "wanted", [0, -1, 899, 3601, 43_200, 43_201, 2**31, 2**63, 10**30, 900.0, 3600.5, "3600", "", True, [900], [], {}]
)
def test_a_duration_is_a_whole_number_within_the_limits(scene: Scene, wanted):
    with unchanged(scene.world, scene.ours):
        response = scene.mallory.raw("POST", path_of(scene.ours, "/credentials"), {"duration_seconds": wanted})
        errors = problem(response, 422, "validation_failed")["errors"]
    assert set(errors) == {"duration_seconds"}
    assert wanted not in (3601, 43_200) or "3600" in errors["duration_seconds"][0], "it names the maximum"


def test_a_duration_that_is_null_is_refused(scene: Scene):
    """attacks.md, line 23, names it; leaving it out is how to ask for the default."""
    with unchanged(scene.world, scene.ours):
        response = scene.mallory.raw("POST", path_of(scene.ours, "/credentials"), {"duration_seconds": None})
        problem(response, 422, "validation_failed")


@pytest.mark.parametrize("name", ["a/b", "two words", "ünï", "x", "x" * 65, "evil\r\nX-Header: 1", "", None, 7, ["x"]])
def test_no_text_of_a_callers_enters_the_session_name(scene: Scene, name):
    for field in ("session_name", "reason"):
        calls = len(scene.world.calls_for(scene.ours["role_arn"]))
        response = scene.mallory.raw("POST", path_of(scene.ours, "/credentials"), {field: name})
        assert response.status_code in ({422} if field == "session_name" else {200, 422})
        for call in scene.world.calls_for(scene.ours["role_arn"])[calls:]:
            key_id = scene.mallory("GET", "/v1/audit-events?action=credentials.issued&limit=1")["items"][0]
            assert call.session_name.startswith(f"deputy-{key_id['actor']['id'].replace('-', '')}-")
            assert len(call.session_name) == 64


def test_another_tenants_id_as_the_reason_is_just_a_reason(scene: Scene):
    ours = scene.world.connection(scene.acme)  # with no session yet, so AWS is asked
    with untouched(scene.world, scene.theirs):
        scene.mallory("POST", path_of(ours, "/credentials"), {"reason": scene.globex["id"]})
    assert scene.globex["id"] not in scene.world.calls_for(ours["role_arn"])[-1].session_name


EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@pytest.mark.parametrize("policy", [None, EVERYTHING])
def test_a_broad_session_policy_widens_nothing(scene: Scene, policy):
    body = {} if policy is None else {"session_policy": policy}
    issued = scene.mallory("POST", path_of(scene.ours, "/credentials"), body)
    session = boto3.session.Session(issued["AccessKeyId"], issued["SecretAccessKey"], issued["SessionToken"])
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
                RoleArn=scene.theirs["role_arn"], RoleSessionName="mallory", ExternalId=scene.globex["external_id"]
            ),
        ):
            with pytest.raises(ClientError) as caught:
                refused()
            assert caught.value.response["Error"]["Code"] in {"AccessDenied", "AccessDeniedException"}


@pytest.mark.parametrize(
    "policy",
    [
        {"Statement": "x"},
        {"Statement": [{}]},
        {"Statement": 5},
        {"Statement": [{"Effect": "Perhaps", "Action": "*", "Resource": "*"}]},
        {"Version": "1999-01-01", "Statement": EVERYTHING["Statement"]},
        {"Statement": [{**EVERYTHING["Statement"][0], "Principal": "*"}]},
    ],
)
def test_a_policy_that_aws_does_not_take_is_a_fault_of_that_field(scene: Scene, policy):
    response = scene.mallory.raw("POST", path_of(scene.ours, "/credentials"), {"session_policy": policy})
    assert set(problem(response, 422, "validation_failed")["errors"]) == {"session_policy"}
    event = refusal(scene.world, response)
    assert (event["tenant_id"], event["connection_id"]) == (scene.acme["id"], scene.ours["id"])


@on_sqlite
@pytest.mark.parametrize(
    "policy",
    [
        "",
        "not json",
        "[]",
        "{}",
        {},
        3,
        [],
        {"Version": "2012-10-17"},
        {"Statement": []},
        "[" * 1000,
        '{"Statement": ' + "[" * 500 + "]" * 500 + "}",
        '{"Statement": [1], "Statement": [2]}',
        {"Statement": [{"Sid": "ł"}]},
        {"Statement": [{"Sid": "x" * 2030}]},
        {"Statement": [{"Sid": "€"}]},
        {"Statement": [{"Sid": "\u0100"}]},
        {"Statement": [{"Sid": "\u2028"}]},
        '{"Statement": [{"Sid": "\\ud800"}]}',
        '{"Statement": [{"Sid": "\\u0000"}]}',
        '{"Statement": [1e999]}',
        '{"Statement": [NaN]}',
        '{"Statement": [' + "9" * 5000 + "]}",
        "\ufeff" + '{"Statement": [1]}',
        '{"Statement": [1]} {"Statement": [2]}',
        "null",
        "true",
        '"{}"',
    ],
)
def test_a_policy_that_aws_could_not_read_never_reaches_it(scene: Scene, policy):
    with unchanged(scene.world, scene.ours):
        response = scene.mallory.raw("POST", path_of(scene.ours, "/credentials"), {"session_policy": policy})
        assert set(problem(response, 422, "validation_failed")["errors"]) == {"session_policy"}


def test_a_packed_policy_that_is_too_large_tells_by_how_much(scene: Scene, faults):
    """attacks.md, line 24: mapped to 4xx with percent."""
    faults.add("packed_policy_too_large", role_arn=scene.ours["role_arn"])
    body = {"session_policy": EVERYTHING, "duration_seconds": 1234}  # that nobody has asked for before
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
