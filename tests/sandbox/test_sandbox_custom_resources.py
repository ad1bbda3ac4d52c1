"""SNS-backed custom resources: what the vendor hears of a customer's stack, and what becomes of
the stack by its answers.
"""

import re
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from tests.sandbox.sandbox_people import CUSTOMER, outcome
from tests.sandbox.sandbox_vendor import CUSTOMER_STACK, Stack, TopicReader, put, respond
from tests.support.waiting import until

NOTHING = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}'
)
RETAINED = CUSTOMER_STACK.replace(
    "Condition: Registers\n    Properties:",
    "Condition: Registers\n    DeletionPolicy: RetainExceptOnCreate\n    Properties:",
)


@pytest.fixture
def created(stack, topic_reader) -> Stack:
    stack.create()
    respond(topic_reader.next("Create"))
    assert stack.status == "CREATE_COMPLETE"
    return stack


# Create.


def test_a_stack_registers_once_its_role_exists_and_waits_for_the_answer(sandbox):
    region = "eu-central-1"
    with (
        closing(TopicReader(sandbox, region=region)) as reader,
        closing(Stack(sandbox, reader.topic, region)) as stack,
    ):
        stack_id = stack.create()
        assert (stack.status, stack.description) == ("CREATE_IN_PROGRESS", "first")
        assert "Outputs" not in stack.describe()
        request = reader.next("Create")
        url, request_id = urlsplit(request["ResponseURL"]), request["RequestId"]
        assert re.fullmatch(r"[0-9a-f-]{36}", request_id)
        bucket = f"/cloudformation-custom-resource-response-{region.replace('-', '')}/"
        assert f"{url.scheme}://{url.netloc}" == sandbox.url
        assert url.path.startswith(
            f"{bucket}arn%3Aaws%3Acloudformation%3A{region}%3A{CUSTOMER}%3Astack/"
        )
        assert url.path.endswith(f"%7CRegistration%7C{request_id}")
        assert {
            name: value
            for name, value in request.items()
            if name not in {"ResponseURL", "RequestId"}
        } == {
            "RequestType": "Create",
            "ServiceToken": reader.topic,
            "StackId": stack_id,
            "LogicalResourceId": "Registration",
            "ResourceType": "Custom::Registration",
            "ResourceProperties": {
                "ServiceToken": reader.topic,
                "ServiceTimeout": "60",
                "Token": "first",
                "RoleArn": f"arn:aws:iam::{CUSTOMER}:role/deputy-{stack.name}",
                "Number": "3",
                "Truth": "true",
            },
        }
        assert respond(request) == 200
        assert stack.status == "CREATE_COMPLETE"
        assert {o["OutputKey"]: o["OutputValue"] for o in stack.describe()["Outputs"]}[
            "Word"
        ] == "hello"
        assert [(name, status) for name, status, _ in stack.events()] == [
            (stack.name, "CREATE_IN_PROGRESS"),
            ("Registration", "CREATE_IN_PROGRESS"),
            ("Registration", "CREATE_COMPLETE"),
            (stack.name, "CREATE_COMPLETE"),
        ]


def test_a_refusal_takes_the_role_away_and_says_why(stack, topic_reader):
    stack.create()
    respond(topic_reader.next("Create"), "FAILED", Reason="The token is void.")
    assert (stack.status, stack.description) == ("ROLLBACK_IN_PROGRESS", "first")
    assert "Message returned: The token is void. (RequestId:" in stack.reason("CREATE_FAILED")
    undone = topic_reader.next("Delete")
    assert undone["PhysicalResourceId"] == "registration-1"
    respond(undone)
    assert (stack.status, stack.description) == ("ROLLBACK_COMPLETE", None)
    assert "failed to create: [Registration]" in stack.describe()["StackStatusReason"]


def test_silence_ends_the_waiting(stack, topic_reader):
    stack.create(Seconds="1")
    late = topic_reader.next("Create")
    until(lambda: stack.status == "ROLLBACK_IN_PROGRESS")
    silence = (
        "did not receive a response from your Custom Resource. Please check your logs for requestId"
    )
    assert f"{silence} [{late['RequestId']}]" in stack.reason("CREATE_FAILED")
    assert respond(late) == 404
    until(lambda: stack.status == "ROLLBACK_FAILED")  # nobody has answered the deletion either
    assert topic_reader.next("Delete")["ResourceProperties"] == late["ResourceProperties"]


# Answers.


def test_an_answer_is_taken_once_and_only_at_its_own_url(stack, topic_reader):
    stack.create()
    request = topic_reader.next("Create")
    url = request["ResponseURL"]
    for wrong in (
        url.replace("Signature=", "Signature=0"),
        url.replace("Registration", "A"),
        url.partition("?")[0],
    ):
        assert put(wrong) == 403
    assert put(url, method="POST") == 403
    assert respond(request, Data={"Word": "x" * 4096}) == 200  # which AWS does not read
    assert stack.status == "CREATE_IN_PROGRESS"
    assert respond(request) == 200
    assert respond(request, "FAILED") == 404
    assert stack.status == "CREATE_COMPLETE"


def test_a_wrong_answer_fails_the_stack(sandbox, topic_reader):
    for change, reason in (
        ({"StackId": "arn:other"}, "property StackId"),
        ({"Status": "DONE"}, "property Status"),
        ({"PhysicalResourceId": "x" * 1025}, "Invalid PhysicalResourceId"),
        ({"Data": ["x"]}, "property Data"),
        (b"[]", "not valid JSON"),
    ):
        with closing(Stack(sandbox, topic_reader.topic)) as stack:
            stack.create()
            request = topic_reader.next("Create")
            is_text = isinstance(change, bytes)
            answer = put(request["ResponseURL"], change) if is_text else respond(request, **change)
            assert answer == 200
            assert reason in stack.reason("CREATE_FAILED")
            topic_reader.read(10)  # what the rollback has sent


# Update.


def test_an_update_sends_the_old_properties_and_a_refused_one_is_taken_back(created, topic_reader):
    created.update(Token="second")
    assert created.status == "UPDATE_IN_PROGRESS"
    assert outcome(lambda: created.update(Token="third")) == (400, "ValidationError")
    for token, old in (("second", "first"), ("first", "second")):
        request = topic_reader.next("Update")
        assert request["PhysicalResourceId"] == "registration-1"
        assert request["ResourceProperties"]["Token"] == token
        assert request["OldResourceProperties"]["Token"] == old
        respond(request, "FAILED" if token == "second" else "SUCCESS", Reason="No.")
    assert (created.status, created.description) == ("UPDATE_ROLLBACK_COMPLETE", "first")
    assert "Message returned: No." in created.reason("UPDATE_FAILED")
    created.update(Token="third", Name=f"deputy-{created.name}-b")
    request = topic_reader.next("Update")
    assert request["ResourceProperties"]["RoleArn"].endswith("-b"), "the role was replaced"
    respond(request)
    assert created.status == "UPDATE_COMPLETE"
    assert topic_reader.read() == []


def test_a_stack_whose_rollback_failed_too_takes_no_update(created, topic_reader):
    created.update(Token="second")
    for _ in range(2):
        respond(topic_reader.next("Update"), "FAILED", Reason="No.")
    assert created.status == "UPDATE_ROLLBACK_FAILED"
    assert outcome(lambda: created.update(Topic="")) == (400, "ValidationError")
    created.delete()
    respond(topic_reader.next("Delete"))
    assert created.status == "DELETE_COMPLETE"


def test_an_update_that_does_not_touch_the_registration_sends_nothing(created, topic_reader):
    template = CUSTOMER_STACK.replace("Description: !Ref Token", "Description: other")
    created.cloudformation.update_stack(**created.options({}, template))
    assert (created.status, created.description) == ("UPDATE_COMPLETE", "other")
    assert topic_reader.read() == []


# Delete.


def test_a_deletion_is_sent_while_the_role_exists_and_a_refused_one_keeps_the_stack(
    created, topic_reader
):
    created.delete()
    assert created.status == "DELETE_IN_PROGRESS"
    respond(topic_reader.next("Delete"), "FAILED", Reason="Not yet.")
    assert (created.status, created.description) == ("DELETE_FAILED", "first")
    created.delete()
    created.delete()  # again, while it goes on
    respond(topic_reader.next("Delete"))
    assert (created.status, created.description) == ("DELETE_COMPLETE", None)
    assert topic_reader.read() == []
    created.create()  # the name is free again


def test_a_role_with_a_policy_that_the_stack_did_not_make_is_not_deleted(created, topic_reader):
    revoked = {"RoleName": f"deputy-{created.name}", "PolicyName": "AWSRevokeOlderSessions"}
    created.iam.put_role_policy(**revoked, PolicyDocument=NOTHING)
    created.delete()
    respond(topic_reader.next("Delete"))
    assert (created.status, created.description) == ("DELETE_FAILED", "first")
    assert "must delete policies first" in created.reason("DELETE_FAILED")
    created.iam.delete_role_policy(**revoked)
    created.delete()
    assert (created.status, created.description) == ("DELETE_COMPLETE", None)


# DeletionPolicy.


def test_a_retained_registration_is_sent_no_deletion_but_by_the_rollback_of_its_creation(
    stack, topic_reader
):
    stack.id = stack.cloudformation.create_stack(**stack.options({}, RETAINED))["StackId"]
    respond(topic_reader.next("Create"), "FAILED", Reason="No.")
    respond(topic_reader.next("Delete"))
    assert (stack.status, stack.description) == ("ROLLBACK_COMPLETE", None)
    stack.delete()
    stack.id = stack.cloudformation.create_stack(**stack.options({}, RETAINED))["StackId"]
    respond(topic_reader.next("Create"))
    stack.cloudformation.update_stack(**stack.options({"Topic": ""}, RETAINED))
    assert stack.status == "UPDATE_COMPLETE"
    stack.cloudformation.update_stack(**stack.options({}, RETAINED))
    respond(topic_reader.next("Create"))
    stack.delete()
    assert (stack.status, stack.description) == ("DELETE_COMPLETE", None)
    assert topic_reader.read() == []
    assert ("Registration", "DELETE_SKIPPED", "") in stack.events()


def test_a_later_rollback_keeps_it_and_a_policy_that_an_update_adds_counts(created, topic_reader):
    created.cloudformation.update_stack(**created.options({}, RETAINED))
    assert created.status == "UPDATE_COMPLETE"
    created.cloudformation.update_stack(**created.options({"Token": "second"}, RETAINED))
    for status in ("FAILED", "SUCCESS"):
        respond(topic_reader.next("Update"), status, Reason="No.")
    assert created.status == "UPDATE_ROLLBACK_COMPLETE"
    replacing = RETAINED.replace(
        "DeletionPolicy:", "UpdateReplacePolicy: Retain\n    DeletionPolicy:"
    )
    created.cloudformation.update_stack(**created.options({"Token": "third"}, replacing))
    respond(topic_reader.next("Update"), PhysicalResourceId="registration-2")
    assert created.status == "UPDATE_COMPLETE"
    created.delete()
    assert created.status == "DELETE_COMPLETE"
    assert topic_reader.read() == []
