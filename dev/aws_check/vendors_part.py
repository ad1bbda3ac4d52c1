"""The vendor's steps: its resources at AWS, the published templates, and Deputy on this machine."""

import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from botocore.exceptions import ClientError

from dev.aws_check import stacks
from dev.aws_check.accounts import Account, session_of
from dev.aws_check.deputy import LocalDeputy
from dev.aws_check.stage import Stage, there
from dev.demo import fact
from dev.stack import ROOT

_TEMPLATES = ROOT / "cloudformation"


def make_vendor(stage: Stage) -> None:
    run, vendor, answers = stage.run, stage.vendor, stage.answers
    wanted = stacks.from_file(
        f"{run.prefix}broker",
        (_TEMPLATES / "broker.yaml").read_text(encoding="utf-8"),
        BrokerRoleName=run.broker_role,
        RolePrefix=run.prefix,
        TemplateBucketName=run.bucket(vendor),
    )
    cloudformation = vendor.client("cloudformation")
    answers.ask(
        "a stack without its capabilities",
        lambda: cloudformation.create_stack(**(wanted | {"Capabilities": []}), Tags=run.tags),
    )
    outputs = stacks.create(vendor, run, wanted)
    answers.ask(
        "a stack under a name that is taken",
        lambda: cloudformation.create_stack(**wanted, Tags=run.tags),
    )
    _look_for_tags(stage)
    # At AWS the output RegistrationQueueUrl is the same. In the sandbox only SQS knows its address.
    name = outputs["RegistrationQueueUrl"].rpartition("/")[2]
    queue = vendor.client("sqs").get_queue_url(QueueName=name)["QueueUrl"]
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
    role = stage.vendor.client("iam").list_role_tags(RoleName=run.broker_role)["Tags"]
    answers.note("the stack's tag on its role", "there" if run.tags[0] in role else "missing")
    bucket: list[dict[str, str]] = []
    with suppress(ClientError):  # NoSuchTagSet
        bucket = stage.vendor.client("s3").get_bucket_tagging(Bucket=run.bucket(stage.vendor))[
            "TagSet"
        ]
    answers.note("the stack's tag on its bucket", "there" if run.tags[0] in bucket else "missing")


def become_broker(stage: Stage) -> None:
    """Admit exactly this operator to the run's broker role, and assume it.

    Otherwise only ECS may use that role.
    """
    run, vendor = stage.run, stage.vendor
    iam, sts = vendor.client("iam"), vendor.client("sts")
    trust = iam.get_role(RoleName=run.broker_role)["Role"]["AssumeRolePolicyDocument"]
    operator = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:{vendor.partition}:iam::{vendor.id}:root"},
        # A transitive tag or a source identity of the operator's would be refused here, as
        # customers' roles refuse it.
        "Action": "sts:AssumeRole",
        # Not the ARN: that of a session lacks the path of its role.
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
            if error.response["Error"]["Code"] == "AccessDenied":  # IAM has not propagated it yet
                return None
            raise
        return dict(answer["Credentials"])

    credentials = stage.answers.waited("a new role may be assumed", assumed, 180)
    stage.broker = Account("BROKER", session_of(credentials, vendor.region))


def make_canary(stage: Stage) -> None:
    if stage.canary is None:
        fact("skipped", "no CANARY profile was given")
        return
    wanted = stacks.from_file(
        f"{stage.run.prefix}canary",
        (_TEMPLATES / "canary.yaml").read_text(encoding="utf-8"),
        BrokerPrincipalArn=stage.settings["DEPUTY_BROKER_PRINCIPAL_ARN"],
        RolePrefix=stage.run.prefix,
    )
    outputs = stacks.create(stage.canary, stage.run, wanted)
    stage.settings |= {
        "DEPUTY_CANARY_ROLE_ARN": outputs["CanaryRoleArn"],
        "DEPUTY_STRANGER_ROLE_ARN": outputs["StrangerRoleArn"],
    }
    fact("canary", outputs["CanaryRoleArn"])


def start_deputy(stage: Stage) -> None:
    stage.deputy = deputy = LocalDeputy(
        stage.data, stage.settings, there(stage.broker, "the broker"), stage.vendor
    )
    deputy.prepare()
    fact("templates", f"{deputy.publish()} published to {stage.settings['DEPUTY_TEMPLATE_BUCKET']}")
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

    def upload(name: str, **more: str) -> Callable[[], object]:
        return lambda: s3.put_object(Bucket=bucket, Key=name, Body=b"other", **more)

    answers.ask("a template, uploaded without If-None-Match", upload(f"templates/{other}"))
    answers.ask("a published template, uploaded again", upload(key, IfNoneMatch="*"))
    answers.ask("a published template, deleted", lambda: s3.delete_object(Bucket=bucket, Key=key))
    expiry: Any = {
        "ID": "x",
        "Status": "Enabled",
        "Filter": {"Prefix": "templates/"},
        "Expiration": {"Days": 1},
    }
    answers.ask(
        "a lifecycle rule for published templates",
        lambda: s3.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": [expiry]}
        ),
    )


def _status(url: str) -> str:
    try:
        # of S3, or of the sandbox
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310
            return str(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return str(error.code)
