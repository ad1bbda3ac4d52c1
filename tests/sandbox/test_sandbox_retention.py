"""DeletionPolicy: a retained custom resource is told nothing, but for the rollback of what created it."""

from contextlib import closing

import pytest
from botocore.exceptions import ClientError

from tests.sandbox.sandbox_people import CUSTOMER
from tests.sandbox.sandbox_vendor import CUSTOMER_STACK, Stack, respond

BUCKET = """
Resources:
  Bucket:
    Type: AWS::S3::Bucket
    DeletionPolicy: {policy}
    Properties: {{BucketName: {name}}}
  Topic:
    Type: AWS::SNS::Topic
    Properties: {{TopicName: {topic}}}
"""


def policy(named: str) -> str:
    """The customer's template, with this policy on its registration."""
    return CUSTOMER_STACK.replace(
        "Condition: Registers\n    Properties:", f"Condition: Registers\n    DeletionPolicy: {named}\n    Properties:"
    )


RETAINED, KEPT_ALWAYS = policy("RetainExceptOnCreate"), policy("Retain")


def create(stack: Stack, template: str = RETAINED, **changes: str) -> None:
    stack.id = stack.cloudformation.create_stack(**stack.options(changes, template))["StackId"]


def update(stack: Stack, template: str = RETAINED, **changes: str) -> None:
    stack.cloudformation.update_stack(**stack.options(changes, template))


@pytest.fixture
def created(stack, topic_reader) -> Stack:
    create(stack)
    respond(topic_reader.next("Create"))
    assert stack.status == "CREATE_COMPLETE"
    return stack


@pytest.mark.parametrize("template", [RETAINED, KEPT_ALWAYS])
def test_the_deletion_of_a_stack_tells_nobody_and_waits_for_nobody(stack, topic_reader, template):
    create(stack, template)
    respond(topic_reader.next("Create"))
    stack.delete()
    assert stack.status == "DELETE_COMPLETE"
    assert stack.description is None
    assert topic_reader.read() == []
    assert ("Registration", "DELETE_SKIPPED", "") in stack.events()


def test_the_rollback_of_a_creation_is_told(stack, topic_reader):
    create(stack)
    respond(topic_reader.next("Create"), "FAILED", Reason="No.")
    assert stack.status == "ROLLBACK_IN_PROGRESS"
    respond(topic_reader.next("Delete"))
    assert stack.status == "ROLLBACK_COMPLETE"
    assert stack.description is None


def test_what_is_always_retained_is_kept_from_a_rollback_too(stack, topic_reader):
    create(stack, KEPT_ALWAYS)
    respond(topic_reader.next("Create"), "FAILED", Reason="No.")
    assert stack.status == "ROLLBACK_COMPLETE"
    assert topic_reader.read() == []


def test_a_stack_that_is_deleted_while_it_is_created_tells_nobody(stack, topic_reader):
    create(stack)
    topic_reader.next("Create")
    stack.delete()
    assert stack.status == "DELETE_COMPLETE"
    assert topic_reader.read() == []


def test_an_update_that_no_longer_has_the_registration_tells_nobody(created, topic_reader):
    update(created, Topic="")
    assert created.status == "UPDATE_COMPLETE"
    assert topic_reader.read() == []


def test_the_rollback_of_an_update_is_told_of_what_that_update_created(stack, topic_reader):
    create(stack, Topic="")
    assert stack.status == "CREATE_COMPLETE"
    update(stack)
    respond(topic_reader.next("Create"), "FAILED", Reason="No.")
    respond(topic_reader.next("Delete"))
    assert stack.status == "UPDATE_ROLLBACK_COMPLETE"


def test_what_an_earlier_update_created_is_kept_from_the_rollback_of_a_later_one(created, topic_reader):
    update(created, Token="second")
    respond(topic_reader.next("Update"), "FAILED", Reason="No.")
    respond(topic_reader.next("Update"))
    assert created.status == "UPDATE_ROLLBACK_COMPLETE"
    created.delete()
    assert created.status == "DELETE_COMPLETE"
    assert topic_reader.read() == []


def test_a_replacement_has_a_policy_of_its_own(created, topic_reader):
    update(created, Token="second")
    respond(topic_reader.next("Update"), PhysicalResourceId="registration-2")
    old = topic_reader.next("Delete")
    assert old["PhysicalResourceId"] == "registration-1"
    respond(old)
    replacing = RETAINED.replace("DeletionPolicy:", "UpdateReplacePolicy: Retain\n    DeletionPolicy:")
    update(created, replacing, Token="third")
    respond(topic_reader.next("Update"), PhysicalResourceId="registration-3")
    assert created.status == "UPDATE_COMPLETE"
    assert topic_reader.read() == []


def test_a_policy_that_an_update_adds_holds_from_then_on(stack, topic_reader):
    create(stack, CUSTOMER_STACK)
    respond(topic_reader.next("Create"))
    update(stack, RETAINED)
    assert stack.status == "UPDATE_COMPLETE"
    stack.delete()
    assert stack.status == "DELETE_COMPLETE"
    assert topic_reader.read() == []


@pytest.mark.parametrize("named", ["Retain", "RetainExceptOnCreate", "Delete"])
@pytest.mark.parametrize("how", ["delete", "update"])
def test_other_resources_are_kept_as_well(sandbox, named, how):
    name = f"kept-{named.lower()}-{how}"
    template = BUCKET.format(policy=named, name=name, topic=name)
    with (
        closing(sandbox.client("cloudformation", CUSTOMER)) as cloudformation,
        closing(sandbox.client("s3", CUSTOMER)) as s3,
    ):
        cloudformation.create_stack(StackName=name, TemplateBody=template)
        if how == "delete":
            cloudformation.delete_stack(StackName=name)
        else:
            without = "Resources:\n  Topic:" + template.partition("  Topic:")[2]
            cloudformation.update_stack(StackName=name, TemplateBody=without)
        buckets = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    assert (name in buckets) is (named != "Delete")


@pytest.mark.parametrize(("named", "left"), [("Retain", True), ("RetainExceptOnCreate", False)])
def test_of_other_resources_too_a_rollback_takes_back_what_it_created(sandbox, named, left):
    name = f"rolled-back-{named.lower()}"
    broken = BUCKET.format(policy=named, name=name, topic=name) + (
        "  Policy:\n    Type: AWS::S3::BucketPolicy\n    DependsOn: Bucket\n"
        "    Properties: {Bucket: absent-for-sure, PolicyDocument: {}}\n"
    )
    with (
        closing(sandbox.client("cloudformation", CUSTOMER)) as cloudformation,
        closing(sandbox.client("s3", CUSTOMER)) as s3,
    ):
        cloudformation.create_stack(StackName=name, TemplateBody=broken)
        assert cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"] == "ROLLBACK_COMPLETE"
        try:
            s3.head_bucket(Bucket=name)
        except ClientError:
            assert not left
        else:
            assert left
