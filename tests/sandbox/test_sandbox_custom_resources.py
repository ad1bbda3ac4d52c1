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


def with_policy(named: str) -> str:
    """The customer's template, with this DeletionPolicy on its registration."""
    return CUSTOMER_STACK.replace(
        "Condition: Registers\n    Properties:",
        f"Condition: Registers\n    DeletionPolicy: {named}\n    Properties:",
    )


RETAINED, KEPT_ALWAYS = with_policy("RetainExceptOnCreate"), with_policy("Retain")


@pytest.fixture
def created(stack, topic_reader) -> Stack:
    stack.create()
    respond(topic_reader.next("Create"))
    assert stack.status == "CREATE_COMPLETE"
    return stack


# Create.


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_a_stack_registers_once_its_role_exists_and_waits_for_the_answer(sandbox, region):
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


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Seconds": "0"}, "Invalid ServiceTimeout"),
        ({"Seconds": "3601"}, "Invalid ServiceTimeout"),
        ({"Seconds": "soon"}, "Invalid ServiceTimeout"),
        (
            {"Topic": "arn:aws:sns:eu-west-1:111122223333:elsewhere"},
            "Invalid parameter: TopicArn (Service: AmazonSNS;",
        ),
        ({"Topic": "nonsense"}, "Invalid parameter: TopicArn"),
        ({"Topic": "arn:aws:sns:us-east-1:111122223333:absent"}, "Topic does not exist"),
    ],
)
def test_a_registration_that_cannot_be_sent_fails_the_stack(stack, changes, reason):
    stack.create(**changes)
    assert (stack.status, stack.description) == ("ROLLBACK_COMPLETE", None)
    assert reason in stack.reason("CREATE_FAILED")


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


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"StackId": "arn:other"}, "property StackId"),
        ({"RequestId": "other"}, "property RequestId"),
        ({"LogicalResourceId": "Other"}, "property LogicalResourceId"),
        ({"Status": "DONE"}, "property Status"),
        ({"PhysicalResourceId": ""}, "Invalid PhysicalResourceId"),
        ({"PhysicalResourceId": "x" * 1025}, "Invalid PhysicalResourceId"),
        ({"Data": ["x"]}, "property Data"),
        (b"OK", "not valid JSON"),
        (b"[]", "not valid JSON"),
        (b"\xff", "not valid JSON"),
    ],
)
def test_a_wrong_answer_fails_the_stack(stack, topic_reader, change, reason):
    stack.create()
    request = topic_reader.next("Create")
    answered = (
        put(request["ResponseURL"], change)
        if isinstance(change, bytes)
        else respond(request, **change)
    )
    assert answered == 200
    assert reason in stack.reason("CREATE_FAILED")


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


def test_an_update_that_does_not_touch_the_registration_sends_nothing(created, topic_reader):
    template = CUSTOMER_STACK.replace("Description: !Ref Token", "Description: other")
    created.cloudformation.update_stack(**created.options({}, template))
    assert (created.status, created.description) == ("UPDATE_COMPLETE", "other")
    assert topic_reader.read() == []


def test_another_physical_id_is_a_replacement(created, topic_reader):
    created.update(Token="second")
    respond(topic_reader.next("Update"), PhysicalResourceId="registration-2")
    assert created.status == "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"
    old = topic_reader.next("Delete")
    assert (old["PhysicalResourceId"], old["ResourceProperties"]["Token"]) == (
        "registration-1",
        "first",
    )
    respond(old)
    assert created.status == "UPDATE_COMPLETE"
    created.delete()
    assert topic_reader.next("Delete")["PhysicalResourceId"] == "registration-2"


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


def test_a_stack_that_still_waits_can_be_deleted(stack, topic_reader):
    stack.create()
    request = topic_reader.next("Create")
    stack.delete()
    assert respond(request) == 404
    respond(topic_reader.next("Delete"))
    assert stack.status == "DELETE_COMPLETE"


def test_many_fast_answers_lose_none(sandbox, topic_reader):
    """The vendor answers while the stack calls are still being answered."""
    stacks = [
        Stack(sandbox, topic_reader.topic, account=f"30000000{number:04}") for number in range(12)
    ]
    ids = [stack.create() for stack in stacks]
    asked = topic_reader.serve(lambda: all(stack.status == "CREATE_COMPLETE" for stack in stacks))
    assert sorted(request["StackId"] for request in asked) == sorted(ids)
    for stack in stacks:
        stack.close()


# DeletionPolicy.


def created_with(stack, topic_reader, template, status="SUCCESS"):
    stack.id = stack.cloudformation.create_stack(**stack.options({}, template))["StackId"]
    respond(topic_reader.next("Create"), status, Reason="No.")


@pytest.mark.parametrize("template", [RETAINED, KEPT_ALWAYS])
def test_a_retained_registration_is_sent_neither_a_deletion_nor_its_removal(
    stack, topic_reader, template
):
    created_with(stack, topic_reader, template)
    stack.cloudformation.update_stack(**stack.options({"Topic": ""}, template))
    assert stack.status == "UPDATE_COMPLETE"
    stack.cloudformation.update_stack(**stack.options({}, template))
    respond(topic_reader.next("Create"))
    stack.delete()
    assert (stack.status, stack.description) == ("DELETE_COMPLETE", None)
    assert topic_reader.read() == []
    assert ("Registration", "DELETE_SKIPPED", "") in stack.events()


def test_the_rollback_of_what_created_it_is_sent_unless_it_is_always_retained(stack, topic_reader):
    created_with(stack, topic_reader, RETAINED, "FAILED")
    respond(topic_reader.next("Delete"))
    assert (stack.status, stack.description) == ("ROLLBACK_COMPLETE", None)
    stack.delete()
    created_with(stack, topic_reader, KEPT_ALWAYS, "FAILED")
    assert stack.status == "ROLLBACK_COMPLETE"
    assert topic_reader.read() == []
    stack.delete()
    stack.cloudformation.create_stack(**stack.options({"Topic": ""}, RETAINED))
    stack.cloudformation.update_stack(**stack.options({}, RETAINED))
    respond(topic_reader.next("Create"), "FAILED", Reason="No.")
    respond(topic_reader.next("Delete"))
    assert (
        stack.cloudformation.describe_stacks(StackName=stack.name)["Stacks"][0]["StackStatus"]
        == "UPDATE_ROLLBACK_COMPLETE"
    )


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
