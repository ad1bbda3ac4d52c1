"""SNS-backed custom resources: the whole loop from a stack through topic and queue to the answer, and what can go
wrong.
"""

import re
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.sandbox.sandbox_people import CUSTOMER, outcome
from tests.sandbox.sandbox_vendor import CUSTOMER_STACK, Stack, TopicReader, put, respond
from tests.support.waiting import until

CUSTOMER_ROLE = (Path(__file__).parents[2] / "cloudformation" / "customer-role.yaml").read_text()


@pytest.fixture(params=["us-east-1", "eu-central-1"])
def region(request):
    return request.param


@pytest.fixture
def created(stack, topic_reader) -> Stack:
    stack.create()
    respond(topic_reader.next("Create"))
    assert stack.status == "CREATE_COMPLETE"
    return stack


# Create.


def test_the_request_says_what_aws_says_and_comes_after_the_role(stack, topic_reader):
    stack_id = stack.create()
    assert stack.description == "first"
    request = topic_reader.next("Create")
    role = f"arn:aws:iam::{CUSTOMER}:role/deputy-{stack.name}"
    url, request_id = request.pop("ResponseURL"), request.pop("RequestId")
    assert url
    assert re.fullmatch(r"[0-9a-f-]{36}", request_id)
    assert request == {
        "RequestType": "Create",
        "ServiceToken": topic_reader.topic,
        "StackId": stack_id,
        "LogicalResourceId": "Registration",
        "ResourceType": "Custom::Registration",
        "ResourceProperties": {
            "ServiceToken": topic_reader.topic,
            "ServiceTimeout": "60",
            "Token": "first",
            "RoleArn": role,
            "Number": "3",
            "Truth": "true",
        },
    }


def test_the_whole_loop_in_both_regions(sandbox, region):
    with closing(TopicReader(sandbox, region=region)) as reader, closing(Stack(sandbox, reader.topic, region)) as stack:
        stack.create()
        assert stack.status == "CREATE_IN_PROGRESS"
        assert "Outputs" not in stack.describe()
        request = reader.next("Create")
        url = urlsplit(request["ResponseURL"])
        assert f"{url.scheme}://{url.netloc}" == sandbox.url
        bucket = f"/cloudformation-custom-resource-response-{region.replace('-', '')}/"
        assert url.path.startswith(f"{bucket}arn%3Aaws%3Acloudformation%3A{region}%3A{CUSTOMER}%3Astack/")
        assert url.path.endswith(f"%7CRegistration%7C{request['RequestId']}")
        assert respond(request) == 200
        assert stack.status == "CREATE_COMPLETE"
        assert {o["OutputKey"]: o["OutputValue"] for o in stack.describe()["Outputs"]}["Word"] == "hello"
        steps = [(name, status) for name, status, _ in stack.events()]
        assert steps == [
            (stack.name, "CREATE_IN_PROGRESS"),
            ("Registration", "CREATE_IN_PROGRESS"),
            ("Registration", "CREATE_COMPLETE"),
            (stack.name, "CREATE_COMPLETE"),
        ]


def test_the_vendors_own_stack_hears_of_a_customers(sandbox, vendor):
    """broker.yaml's topic and queue, and the template that customers launch."""
    with (
        closing(Stack(sandbox, vendor.registration_topic_arn)) as stack,
        closing(sandbox.client("sqs", vendor.broker_principal_arn.split(":")[4])) as sqs,
    ):
        sqs.purge_queue(QueueUrl=vendor.registration_queue_url)
        values = {
            "ExternalId": "dpy-" + "0a" * 32,
            "RoleName": f"deputy-{stack.name}",
            "RegistrationTopicArn": stack.topic,
            "RegistrationToken": "token",
        }
        options = stack.options({}, CUSTOMER_ROLE)
        options["Parameters"] = [{"ParameterKey": k, "ParameterValue": v} for k, v in values.items()]
        stack.id = stack.cloudformation.create_stack(**options)["StackId"]
        reader = TopicReader.__new__(TopicReader)
        reader.sqs, reader.queue = sqs, vendor.registration_queue_url
        request = reader.next("Create")
        assert request["ResourceProperties"]["RoleArn"] == f"arn:aws:iam::{CUSTOMER}:role/deputy-{stack.name}"
        respond(request)
        assert stack.status == "CREATE_COMPLETE"
        stack.delete()  # which waits for nobody
        assert stack.status == "DELETE_COMPLETE"
        assert reader.read() == []
        stack.id = stack.cloudformation.create_stack(**options)["StackId"]
        respond(reader.next("Create"), "FAILED", Reason="No.")
        respond(reader.next("Delete"))
        assert stack.status == "ROLLBACK_COMPLETE"


def test_a_refusal_takes_the_role_away_and_says_why(stack, topic_reader):
    stack.create()
    respond(topic_reader.next("Create"), "FAILED", Reason="The token is void.")
    assert stack.status == "ROLLBACK_IN_PROGRESS"
    assert stack.description == "first"
    assert "Message returned: The token is void. (RequestId:" in stack.reason("CREATE_FAILED")
    undone = topic_reader.next("Delete")
    assert undone["PhysicalResourceId"] == "registration-1"
    respond(undone)
    assert stack.status == "ROLLBACK_COMPLETE"
    assert stack.description is None
    assert "failed to create: [Registration]" in stack.describe()["StackStatusReason"]


def test_silence_ends_the_waiting(stack, topic_reader):
    stack.create(Seconds="1")
    late = topic_reader.next("Create")
    until(lambda: stack.status == "ROLLBACK_IN_PROGRESS")
    assert (
        f"did not receive a response from your Custom Resource. Please check your logs for requestId [{late['RequestId']}]"
        in stack.reason("CREATE_FAILED")
    )
    assert respond(late) == 404
    until(lambda: stack.status == "ROLLBACK_FAILED")  # nobody has answered the deletion either
    assert topic_reader.next("Delete")["ResourceProperties"] == late["ResourceProperties"]


@pytest.mark.parametrize("seconds", ["0", "3601", "soon", "-1"])
def test_a_service_timeout_that_is_none(stack, topic_reader, seconds):
    stack.create(Seconds=seconds)
    assert stack.status == "ROLLBACK_COMPLETE"
    assert "Invalid ServiceTimeout" in stack.reason("CREATE_FAILED")


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("arn:aws:sns:eu-west-1:111122223333:elsewhere", "Invalid parameter: TopicArn (Service: AmazonSNS;"),
        ("nonsense", "Invalid parameter: TopicArn"),
        ("arn:aws:sns:us-east-1:111122223333:absent", "Topic does not exist"),
        ("arn:aws:lambda:us-east-1:111122223333:function:f", "The sandbox has no Lambda functions"),
    ],
)
def test_a_topic_of_another_region_or_none_at_all(sandbox, stack, topic, reason):
    with closing(sandbox.client("sns", "111122223333", "eu-west-1")) as sns:
        sns.create_topic(Name="elsewhere")
    stack.create(Topic=topic)
    assert stack.status == "ROLLBACK_COMPLETE"
    assert reason in stack.reason("CREATE_FAILED")
    assert stack.description is None


# Answers.


def test_an_answer_is_taken_once_and_only_at_its_own_url(stack, topic_reader):
    stack.create()
    request = topic_reader.next("Create")
    url = request["ResponseURL"]
    assert put(url.replace("X-Amz-Signature=", "X-Amz-Signature=0")) == 403
    assert put(url.replace("Registration", "Another")) == 403
    assert put(url.partition("?")[0]) == 403
    assert put(url, method="POST") == 403
    assert stack.status == "CREATE_IN_PROGRESS"
    assert respond(request) == 200
    assert respond(request, "FAILED") == 404
    assert stack.status == "CREATE_COMPLETE"


def test_an_answer_that_is_too_long_is_not_looked_at(stack, topic_reader):
    stack.create()
    request = topic_reader.next("Create")
    assert respond(request, Data={"Word": "x" * 4096}) == 200
    assert stack.status == "CREATE_IN_PROGRESS"
    respond(request)
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
    ],
)
def test_a_wrong_answer_fails_the_stack(stack, topic_reader, change, reason):
    stack.create()
    assert respond(topic_reader.next("Create"), **change) == 200
    assert reason in stack.reason("CREATE_FAILED")


@pytest.mark.parametrize("body", [b"", b"OK", b"[]", b"\xff"])
def test_an_answer_that_is_no_json_object_fails_the_stack(stack, topic_reader, body):
    stack.create()
    assert put(topic_reader.next("Create")["ResponseURL"], body) == 200
    assert "not valid JSON" in stack.reason("CREATE_FAILED")


def test_an_output_that_the_vendor_does_not_give_fails_the_stack(stack, topic_reader):
    stack.create()
    respond(topic_reader.next("Create"), Data={})
    assert "Vendor response doesn't contain Word" in stack.reason("ROLLBACK_IN_PROGRESS")


# Update.


def test_an_update_is_told_with_the_old_properties(created, topic_reader):
    created.update(Token="second")
    assert created.status == "UPDATE_IN_PROGRESS"
    assert outcome(lambda: created.update(Token="third")) == (400, "ValidationError")
    request = topic_reader.next("Update")
    assert request["PhysicalResourceId"] == "registration-1"
    assert request["ResourceProperties"]["Token"] == "second"
    assert request["OldResourceProperties"]["Token"] == "first"
    respond(request)
    assert created.status == "UPDATE_COMPLETE"
    assert created.description == "second"
    assert topic_reader.read() == []


def test_a_replaced_role_is_told_though_no_parameter_of_the_registration_has_changed(created, topic_reader):
    created.update(Name=f"deputy-{created.name}-b")
    request = topic_reader.next("Update")
    assert request["ResourceProperties"]["RoleArn"].endswith("-b")
    respond(request)
    assert created.status == "UPDATE_COMPLETE"


def test_an_update_that_does_not_touch_the_registration_tells_nobody(created, topic_reader):
    template = CUSTOMER_STACK.replace("Description: !Ref Token", "Description: other")
    created.cloudformation.update_stack(**created.options({}, template))
    assert created.status == "UPDATE_COMPLETE"
    assert created.description == "other"
    assert topic_reader.read() == []


def test_a_refused_update_is_taken_back(created, topic_reader):
    created.update(Token="second")
    respond(topic_reader.next("Update"), "FAILED", Reason="No.")
    assert created.status == "UPDATE_ROLLBACK_IN_PROGRESS"
    back = topic_reader.next("Update")
    assert back["ResourceProperties"]["Token"] == "first"
    assert back["OldResourceProperties"]["Token"] == "second"
    respond(back)
    assert created.status == "UPDATE_ROLLBACK_COMPLETE"
    assert created.description == "first"
    assert "Message returned: No." in created.reason("UPDATE_FAILED")
    created.update(Token="third")
    respond(topic_reader.next("Update"))
    assert created.status == "UPDATE_COMPLETE"


def test_another_physical_id_is_a_replacement(created, topic_reader):
    created.update(Token="second")
    respond(topic_reader.next("Update"), PhysicalResourceId="registration-2")
    assert created.status == "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"
    old = topic_reader.next("Delete")
    assert (old["PhysicalResourceId"], old["ResourceProperties"]["Token"]) == ("registration-1", "first")
    respond(old)
    assert created.status == "UPDATE_COMPLETE"
    created.delete()
    assert topic_reader.next("Delete")["PhysicalResourceId"] == "registration-2"


def test_a_registration_can_be_taken_away_and_brought_back(created, topic_reader):
    created.update(Topic="")
    respond(topic_reader.next("Delete"))
    assert created.status == "UPDATE_COMPLETE"
    assert created.description == "first"
    created.update()
    respond(topic_reader.next("Create"))
    assert created.status == "UPDATE_COMPLETE"
    created.delete()
    assert len(topic_reader.read(10)) == 1


def test_a_refused_removal_does_not_fail_the_update_and_is_not_tried_again(created, topic_reader):
    created.update(Topic="")
    respond(topic_reader.next("Delete"), "FAILED", Reason="No.")
    assert created.status == "UPDATE_COMPLETE"
    created.delete()
    assert created.status == "DELETE_COMPLETE"
    assert topic_reader.read() == []


def test_a_refused_update_brings_back_what_it_took_away(stack, topic_reader):
    second = "Resources:\n  Second: {Type: Custom::Second, Properties: {ServiceToken: !Ref Topic}}\n"
    template = CUSTOMER_STACK.replace("Resources:\n", second)
    stack.id = stack.cloudformation.create_stack(**stack.options({}, template))["StackId"]
    topic_reader.serve(lambda: stack.status == "CREATE_COMPLETE")
    stack.update(Token="second")  # with the template that has no Second
    respond(topic_reader.next("Update"), "FAILED", Reason="No.")
    respond(topic_reader.next("Update"))
    assert stack.status == "UPDATE_ROLLBACK_COMPLETE"
    stack.delete()
    asked = topic_reader.serve(lambda: stack.status == "DELETE_COMPLETE")
    assert {request["LogicalResourceId"] for request in asked} == {"Registration", "Second"}


# Delete.


def test_a_deletion_is_told_while_the_role_still_exists(created, topic_reader):
    created.delete()
    assert created.status == "DELETE_IN_PROGRESS"
    assert created.description == "first"
    request = topic_reader.next("Delete")
    assert request["PhysicalResourceId"] == "registration-1"
    created.delete()  # again, while it goes on
    respond(request)
    assert created.status == "DELETE_COMPLETE"
    assert created.description is None
    assert topic_reader.read() == []
    created.create()  # the name is free again


def test_a_refused_deletion_keeps_the_stack(created, topic_reader):
    created.delete()
    respond(topic_reader.next("Delete"), "FAILED", Reason="Not yet.")
    assert created.status == "DELETE_FAILED"
    assert created.description == "first"
    created.delete()
    respond(topic_reader.next("Delete"))
    assert created.status == "DELETE_COMPLETE"


def test_what_is_deleted_is_not_deleted_again_when_the_rest_fails(created, topic_reader):
    role = f"deputy-{created.name}"
    policy = '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}}'
    arn = created.iam.create_policy(PolicyName=role, PolicyDocument=policy)["Policy"]["Arn"]
    created.iam.attach_role_policy(RoleName=role, PolicyArn=arn)
    created.delete()
    respond(topic_reader.next("Delete"))
    assert created.status == "DELETE_FAILED"
    created.iam.detach_role_policy(RoleName=role, PolicyArn=arn)
    created.delete()
    assert created.status == "DELETE_COMPLETE"
    assert topic_reader.read() == []


def test_a_stack_that_still_waits_can_be_deleted(stack, topic_reader):
    stack.create()
    request = topic_reader.next("Create")
    stack.delete()
    assert respond(request) == 404
    respond(topic_reader.next("Delete"))
    assert stack.status == "DELETE_COMPLETE"


def test_a_change_set_waits_as_well(stack, topic_reader):
    options = stack.options({}) | {"ChangeSetName": "c", "ChangeSetType": "CREATE"}
    stack.id = stack.cloudformation.create_change_set(**options)["StackId"]
    stack.cloudformation.execute_change_set(ChangeSetName="c", StackName=stack.name)
    assert stack.status == "CREATE_IN_PROGRESS"
    respond(topic_reader.next("Create"))
    assert stack.status == "CREATE_COMPLETE"


def test_many_fast_answers_lose_none(sandbox, topic_reader):
    """The vendor answers while the stack calls are still being answered."""
    stacks = [Stack(sandbox, topic_reader.topic, account=f"30000000{number:04}") for number in range(12)]
    ids = [stack.create() for stack in stacks]
    asked = topic_reader.serve(lambda: all(stack.status == "CREATE_COMPLETE" for stack in stacks))
    assert sorted(request["StackId"] for request in asked) == sorted(ids)
    for stack in stacks:
        stack.close()
