"""The form of a stack's message, the addresses that may be answered, and the answer itself."""

import json

import pytest
from structlog.testing import capture_logs

from app.aws.stack_messages import Request, StackAnswers, stack_answers
from app.onboarding.registrations import REFUSAL
from tests.support.stacks import (
    BUCKET,
    FRANKFURT,
    HOST,
    PATH,
    TOPIC,
    TOPICS,
    Answers,
    Stack,
    envelope,
)

ROLE = "arn:aws:iam::444455556666:role/deputy-0123abcd"
STACK = Stack("http://127.0.0.1:9", "dpt_x", ROLE)


@pytest.fixture(scope="module")
def virginia() -> StackAnswers:
    return StackAnswers("us-east-1", "aws", None)


# --- the addresses ---


@pytest.mark.parametrize(
    ("region", "partition", "host"),
    [
        ("us-east-1", "aws", HOST),
        ("us-east-1", "aws", f"{BUCKET}.s3.us-east-1.amazonaws.com"),
        ("us-east-1", "aws", f"{HOST}:443"),
        (
            "ap-southeast-2",
            "aws",
            "cloudformation-custom-resource-response-apsoutheast2.s3-ap-southeast-2.amazonaws.com",
        ),
        (
            "eu-west-1",
            "aws",
            "cloudformation-custom-resource-response-euwest1.s3.eu-west-1.amazonaws.com",
        ),
        (
            "cn-north-1",
            "aws-cn",
            "cloudformation-custom-resource-response-cnnorth1.s3.cn-north-1.amazonaws.com.cn",
        ),
        (
            "us-gov-west-1",
            "aws-us-gov",
            "cloudformation-custom-resource-response-usgovwest1.s3-us-gov-west-1.amazonaws.com",
        ),
    ],
)
def test_awss_own_bucket_in_the_topics_region_is_allowed(region, partition, host):
    assert StackAnswers(region, partition, None).allows(f"https://{host}{PATH}")


def test_without_a_region_in_it_the_name_is_awss_own_only_in_the_partition_aws():
    """In another partition, anybody may own the same name in the global domain."""
    for region, partition in (("us-gov-west-1", "aws-us-gov"), ("cn-north-1", "aws-cn")):
        bucket = f"cloudformation-custom-resource-response-{region.replace('-', '')}"
        for suffix in ("amazonaws.com", "amazonaws.com.cn"):
            assert not StackAnswers(region, partition, None).allows(
                f"https://{bucket}.s3.{suffix}/x"
            )


ELSEWHERE = "http://localhost:4566"


def test_with_another_aws_answers_go_to_its_bucket_alone():
    local = StackAnswers("us-east-1", "aws", ELSEWHERE)
    assert local.allows(f"{ELSEWHERE}/{BUCKET}/a%7Cb?X-Amz-Signature=1")
    for url in (
        f"{ELSEWHERE}/{BUCKET}",
        f"{ELSEWHERE}/{BUCKET}-evil/x",
        f"{ELSEWHERE}/cloudformation-custom-resource-response-euwest1/x",
        f"{ELSEWHERE}/_sandbox/faults",
        f"{ELSEWHERE}/{BUCKET}/../_sandbox/faults",
        f"{ELSEWHERE}/{BUCKET}/%2e%2e/_sandbox/faults",
        f"{ELSEWHERE}//{BUCKET}/x",
        f"{ELSEWHERE}1/{BUCKET}/x",
        f"{ELSEWHERE}@evil.tld/{BUCKET}/x",
        f"https://localhost:4566/{BUCKET}/x",
        f"http://localhost:4567/{BUCKET}/x",
        f"http://localhost/{BUCKET}/x",
        f"http://127.0.0.1:4566/{BUCKET}/x",
        f"http://x@localhost:4566/{BUCKET}/x",
        f"https://{HOST}{PATH}",
    ):
        assert not local.allows(url), url


def test_the_environment_says_which_aws(monkeypatch):
    url = f"{ELSEWHERE}/{BUCKET}/x"
    monkeypatch.setenv("AWS_ENDPOINT_URL", ELSEWHERE)
    assert stack_answers("us-east-1", "aws").allows(url)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    at_aws = stack_answers("us-east-1", "aws")
    assert at_aws.allows(f"https://{HOST}{PATH}")
    assert not at_aws.allows(url)


# --- the answer ---


def parsed(kind="Create", **changes):
    return Request.parse(STACK.message(kind, **changes), TOPICS)


def to(answers, **changes):
    url = f"{answers.url}/{BUCKET}/stack%7Cx?Signature=secret-signature%3D"
    return StackAnswers("us-east-1", "aws", answers.url), parsed(ResponseURL=url, **changes)


def test_the_answer_is_as_cloudformation_wants_it():
    with Answers() as answers:
        ours, request = to(answers)
        assert ours.send(request, None)
    [(path, headers, body)] = answers.got
    assert path == f"/{BUCKET}/stack%7Cx?Signature=secret-signature%3D"
    assert headers["Content-Type"] == ""
    assert headers["Content-Length"] == str(len(body))
    assert "Authorization" not in headers
    assert json.loads(body) == {
        "Status": "SUCCESS",
        "PhysicalResourceId": request.physical_id,
        "StackId": STACK.stack_id,
        "RequestId": request.request_id,
        "LogicalResourceId": "Registration",
    }


@pytest.mark.parametrize(
    ("statuses", "final", "tries"),
    [
        ((503, 200), True, 2),
        ((503,), False, 2),
        # Its address has expired, or was never signed
        *(((status,), True, 1) for status in (400, 403, 404)),
    ],
)
def test_an_answer_that_is_not_taken_is_tried_once_more_unless_aws_refuses_it(
    statuses, final, tries
):
    """Junk must not cost twice what it has to, nor come again."""
    with Answers(*statuses) as answers:
        assert StackAnswers.send(*to(answers), None) is final
        assert len(answers.got) == tries


def test_without_a_server_the_answer_is_not_given_and_no_address_is_logged():
    with Answers() as answers:
        ours, request = to(answers)
    with capture_logs() as lines:
        assert not ours.send(request, None)
    assert [line["event"] for line in lines] == ["registration.unanswered"]
    assert "secret-signature" not in repr(lines)
    assert "secret-signature" not in repr(request)


def test_put_itself_refuses_a_strange_address(virginia):
    with Answers() as answers, pytest.raises(ValueError, match="not one of AWS's"):
        virginia.send(parsed(ResponseURL=f"{answers.url}/{BUCKET}/x"), None)
    assert answers.got == []


def test_the_longest_answer_is_within_4096_bytes():
    partition = "aws" + f"-{'p' * 16}" * 3
    message = STACK.message(
        "Delete",
        StackId=(
            f"arn:{partition}:cloudformation:{'r' * 32}:444455556666:stack/{'s' * 128}/{'i' * 64}"
        ),
        RequestId="r" * 128,
        LogicalResourceId="L" * 255,
        PhysicalResourceId='"' * 1024,
    )
    request = Request.parse(message, {"r" * 32: TOPIC})
    assert 3000 < len(request.answer(REFUSAL)) <= 4096


def test_the_physical_id_is_the_same_for_each_delivery_and_kept_afterwards():
    first, again = parsed(RequestId="one"), parsed(RequestId="one")
    assert first.physical_id == again.physical_id
    assert first.physical_id != parsed(LogicalResourceId="Other").physical_id
    for kind in ("Update", "Delete"):
        assert parsed(kind, PhysicalResourceId="as before").physical_id == "as before"
    assert parsed("Create", PhysicalResourceId="mine").physical_id == first.physical_id


# --- the form ---


def test_what_could_not_be_answered_is_no_request():
    stack_id = STACK.stack_id
    for field, values in {
        "RequestType": (None, "create", ["Create"]),
        "ResponseURL": (None, 1),
        "StackId": (
            None,
            "arn:aws:s3:::bucket",
            stack_id + "\n",
            stack_id + "0" * 600,
            stack_id.replace("4", chr(0xFF14)),
            stack_id.replace("arn:aws:", f"arn:aws-{'p' * 17}:"),
            stack_id.replace("arn:aws:", f"arn:aws{'-p' * 4}:"),
            stack_id.replace("us-east-1", "r" * 33),
        ),
        "RequestId": (None, "x" * 129),
        "LogicalResourceId": (None, '"', "L" * 256),
        "More": ("x" * 70_000, "\ud800", "\0"),
    }.items():
        for value in values:
            with pytest.raises(ValueError):
                pytest.fail(f"{parsed(**{field: value})}")
    for physical_id in ("", "x" * 1025, "\u00e9", 1):
        with pytest.raises(ValueError):
            pytest.fail(f"{parsed('Update', PhysicalResourceId=physical_id)}")


def test_each_topic_speaks_for_the_stacks_of_its_region_alone():
    ireland = STACK.stack_id.replace("us-east-1", "eu-west-1")
    frankfurt = STACK.stack_id.replace("us-east-1", "eu-central-1")
    assert parsed().region == "us-east-1"
    request = json.dumps(STACK.request(StackId=frankfurt))
    assert Request.parse(envelope(request, TopicArn=FRANKFURT), TOPICS).region == "eu-central-1"
    for stack_id in (frankfurt, ireland):
        with pytest.raises(ValueError, match="not in the topic's region"):
            parsed(StackId=stack_id)


def test_what_is_not_the_topics_envelope_is_no_request():
    request = json.dumps(STACK.request())
    for body in (
        *("", "hello", "[]", "null", "{}", "{" * 100_000, request),
        '{"Type": "Notification", "Type": "Notification"}',
        *(envelope(text) for text in ("hello", "[]", None, {"RequestType": "Create"}, "[" * 5000)),
        *(envelope(request, Type=kind) for kind in ("SubscriptionConfirmation", ["Notification"])),
        *(envelope(request, TopicArn=topic) for topic in (TOPIC + "2", None)),
    ):
        with pytest.raises(ValueError):
            pytest.fail(f"{Request.parse(body, TOPICS)}")


@pytest.mark.parametrize(
    "properties", [None, [], "x", {"RoleArn": 1, "RegistrationToken": ["dpt_"]}]
)
def test_a_property_that_is_no_text_is_an_empty_one(properties):
    request = parsed(ResourceProperties=properties)
    assert request.property("RoleArn") == request.property("RegistrationToken") == ""
