"""The vendor's steps: its resources at AWS, the published templates, and Deputy on this machine."""

import json
import secrets
from contextlib import suppress
from functools import partial
from typing import Any

import requests
from botocore.exceptions import ClientError

from dev.aws_check import stacks
from dev.aws_check.accounts import Account, session_of
from dev.aws_check.deputy import LocalDeputy
from dev.aws_check.stage import Stage
from dev.demo import fact


def make_vendor(stage: Stage) -> None:
    run, vendor, answers = stage.run, stage.vendor, stage.answers
    stack = stacks.from_template(
        run,
        "broker",
        BrokerRoleName=run.broker_role,
        RolePrefix=run.prefix,
        TemplateBucketName=run.bucket(vendor),
    )
    create = partial(vendor.client("cloudformation").create_stack, **stack)
    answers.ask("a stack without its capabilities", partial(create, Capabilities=[]))
    create()
    outputs = stacks.complete(vendor, stack["StackName"], "CREATE_COMPLETE")
    answers.ask("a stack under a name that is taken", create)
    _look_for_tags(stage)
    # At AWS this URL is the output itself. In the sandbox only SQS knows the queue's address.
    name = outputs["RegistrationQueueUrl"].rpartition("/")[2]
    queue = vendor.client("sqs").get_queue_url(QueueName=name)["QueueUrl"]
    _look_at_policies(stage, queue)
    stage.settings |= {
        "DEPUTY_BROKER_PRINCIPAL_ARN": outputs["BrokerPrincipalArn"],
        "DEPUTY_TEMPLATE_BUCKET": outputs["TemplateBucket"],
        "DEPUTY_REGISTRATION_TOPIC_ARN": outputs["RegistrationTopicArn"],
        "DEPUTY_REGISTRATION_QUEUE_URL": queue,
        "DEPUTY_ROLE_PREFIX": run.prefix,
        "DEPUTY_VENDOR_NAME": "Deputy AWS check",
    }
    fact("broker", outputs["BrokerPrincipalArn"])


def _look_for_tags(stage: Stage) -> None:
    run, answers = stage.run, stage.answers
    tags = stage.vendor.client("iam").list_role_tags(RoleName=run.broker_role)["Tags"]
    answers.note("the stack's tag on its role", "there" if run.tags[0] in tags else "missing")
    tags = []
    with suppress(ClientError):  # NoSuchTagSet
        answer = stage.vendor.client("s3").get_bucket_tagging(Bucket=run.bucket(stage.vendor))
        tags = answer["TagSet"]
    answers.note("the stack's tag on its bucket", "there" if run.tags[0] in tags else "missing")


def _look_at_policies(stage: Stage, queue: str) -> None:
    """Look at what CloudFormation made of an empty list, and name a region to the queue."""
    answers, vendor = stage.answers, stage.vendor
    policy = vendor.client("iam").get_role_policy(
        RoleName=stage.run.broker_role, PolicyName="assume-customers-roles"
    )["PolicyDocument"]
    statements = {statement.get("Sid"): statement for statement in policy["Statement"]}
    condition = statements["NeverTheVendorsOtherAccounts"]["Condition"]["StringEquals"]
    answers.note(
        "the accounts in broker.yaml's Deny, where none were given",
        json.dumps(condition["aws:ResourceAccount"]),
    )
    sqs = vendor.client("sqs")
    own = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["Policy"])["Attributes"]
    names = f'["sns.amazonaws.com", "sns.{vendor.region}.amazonaws.com"]'
    changed = {"Policy": own["Policy"].replace('"sns.amazonaws.com"', names)}
    change = partial(sqs.set_queue_attributes, QueueUrl=queue)
    answers.ask("a queue's policy that names SNS of a region", partial(change, Attributes=changed))
    change(Attributes=own)


def become_broker(stage: Stage) -> None:
    """Allow exactly this operator to assume the run's broker role, and assume it.

    Without this change only ECS may assume that role.
    """
    run, vendor = stage.run, stage.vendor
    iam, sts = vendor.client("iam"), vendor.client("sts")
    trust = iam.get_role(RoleName=run.broker_role)["Role"]["AssumeRolePolicyDocument"]
    operator = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:{vendor.partition}:iam::{vendor.id}:root"},
        # Without sts:TagSession and sts:SetSourceIdentity. So the role refuses an operator's
        # transitive tag or source identity, as customers' roles do.
        "Action": "sts:AssumeRole",
        # The user id, because the ARN of a session lacks the path of its role
        "Condition": {"StringEquals": {"aws:userid": vendor.user_id}},
    }
    trust["Statement"] = [*trust["Statement"], operator]
    iam.update_assume_role_policy(RoleName=run.broker_role, PolicyDocument=json.dumps(trust))
    fact("changed", f"the trust policy of {run.broker_role}, so that {vendor.arn} may act as it")

    def assumed() -> dict[str, Any] | None:
        try:
            answer = sts.assume_role(
                RoleArn=stage.settings["DEPUTY_BROKER_PRINCIPAL_ARN"],
                RoleSessionName=f"aws-check-{run.id}",
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == "AccessDenied":  # not propagated by IAM yet
                return None
            raise
        return dict(answer["Credentials"])

    credentials = stage.answers.waited("a new role may be assumed", assumed, 180)
    stage.broker = Account("BROKER", session_of(credentials, vendor.region))
    stage.ends.callback(stage.broker.close)


def make_canary(stage: Stage) -> None:
    if len(stage.accounts) < 3:
        fact("skipped", "no CANARY profile was given")
        return
    stack = stacks.from_template(
        stage.run,
        "canary",
        BrokerPrincipalArn=stage.settings["DEPUTY_BROKER_PRINCIPAL_ARN"],
        RolePrefix=stage.run.prefix,
    )
    canary = stage.accounts[2]
    canary.client("cloudformation").create_stack(**stack)
    outputs = stacks.complete(canary, stack["StackName"], "CREATE_COMPLETE")
    stage.settings |= {
        "DEPUTY_CANARY_ROLE_ARN": outputs["CanaryRoleArn"],
        "DEPUTY_STRANGER_ROLE_ARN": outputs["StrangerRoleArn"],
    }
    fact("canary", outputs["CanaryRoleArn"])


def start_deputy(stage: Stage) -> None:
    stage.deputy = deputy = LocalDeputy(stage.data, stage.settings, stage.broker, stage.vendor)
    stage.ends.callback(deputy.stop)
    deputy.prepare()
    count = len(deputy.publish().splitlines())
    fact("templates", f"{count} published to {stage.settings['DEPUTY_TEMPLATE_BUCKET']}")
    deputy.start_worker()
    deputy.start_web()
    fact("Deputy", f"runs at {deputy.settings.url}; its logs are in {stage.data}")


def look_at_templates(stage: Stage) -> None:
    """Read the published templates as customers do, and try to replace them."""
    answers, s3 = stage.answers, stage.vendor.client("s3")
    bucket = stage.settings["DEPUTY_TEMPLATE_BUCKET"]
    key = s3.list_objects_v2(Bucket=bucket, Prefix="templates/")["Contents"][0]["Key"]
    base = f"{s3.meta.endpoint_url}/{bucket}"
    answers.note("a published template, read without credentials", _status(f"{base}/{key}"))
    other = f"private-{secrets.token_hex(4)}"
    s3.put_object(Bucket=bucket, Key=other, Body=b"private")
    answers.note(
        "another object of the bucket, read without credentials", _status(f"{base}/{other}")
    )

    upload = partial(s3.put_object, Bucket=bucket, Body=b"other")
    answers.ask(
        "a template, uploaded without If-None-Match", partial(upload, Key=f"templates/{other}")
    )
    answers.ask("a published template, uploaded again", partial(upload, Key=key, IfNoneMatch="*"))
    answers.ask("a published template, deleted", partial(s3.delete_object, Bucket=bucket, Key=key))
    rule = {"ID": "x", "Status": "Enabled", "Filter": {"Prefix": "templates/"}}
    rules = {"Rules": [rule | {"Expiration": {"Days": 1}}]}
    answers.ask(
        "a lifecycle rule for published templates",
        partial(s3.put_bucket_lifecycle_configuration, Bucket=bucket, LifecycleConfiguration=rules),
    )


def _status(url: str) -> str:
    return str(requests.get(url, timeout=30).status_code)
