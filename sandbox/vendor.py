"""Creates the vendor's side and two customers in the sandbox, with real boto3 over real HTTP."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import boto3
from botocore.config import Config

VENDOR_ACCOUNT = "111122223333"
VENDOR_REGION = "us-east-1"
VENDOR_STACK = "deputy-broker"
REGION_STACK = "deputy-region"
CANARY_STACK = "deputy-canary"
# The canary's account is the first of these that is not one of the vendor's
_CANARY_ACCOUNTS = ("222233334444", "222244443333", "222255556666")
TEMPLATE_BUCKET = "deputy-templates-111122223333"
CUSTOMERS = {"444455556666": "Acme", "777788889999": "Globex"}
# Acme's account is the management account of an organisation with these accounts.
MEMBERS = {
    "444400000001": "Acme's web shop",
    "444400000002": "Acme's data lake",
    "444400000003": "Acme's playground",
}
ORGANIZATION: dict[str, dict[str, Any]] = {
    "ous": {
        "r-acme": list(MEMBERS),
        "ou-acme-production": ["444400000001", "444400000002"],
        "ou-acme-development": ["444400000003"],
    },
    "names": {
        "r-acme": "Root",
        "ou-acme-production": "Production",
        "ou-acme-development": "Development",
    },
}


@dataclass(frozen=True)
class VendorStack:
    """The outputs of cloudformation/broker.yaml, and of the other templates if they were deployed.

    `further_topic_arns`: those of broker-region.yaml, in the order of the regions.
    """

    broker_principal_arn: str
    template_bucket: str
    registration_topic_arn: str
    registration_queue_url: str
    registration_queue_arn: str
    further_topic_arns: tuple[str, ...] = ()
    canary_role_arn: str | None = None
    stranger_role_arn: str | None = None


@dataclass(frozen=True)
class Vendor:
    """The vendor's stack: its account, its name, and its parameters of broker.yaml."""

    account: str = VENDOR_ACCOUNT
    stack_name: str = VENDOR_STACK
    parameters: Mapping[str, str] = field(default_factory=dict)


def deploy_vendor(
    sandbox_url: str, template_text: str, vendor: Vendor | None = None
) -> VendorStack:
    """Create the vendor's stack as its administrator would.

    Raises RuntimeError, with AWS's reason, if that fails.
    """
    vendor = vendor or Vendor()
    parameters = {"TemplateBucketName": TEMPLATE_BUCKET, **vendor.parameters}
    outputs = _deploy(sandbox_url, vendor.account, vendor.stack_name, template_text, parameters)
    return _vendor_stack(sandbox_url, vendor.account, outputs)


def deploy_regions(
    sandbox_url: str, template_text: str, deployed: VendorStack, vendor: Vendor | None = None
) -> VendorStack:
    """Create the stack of broker-region.yaml in each region that this vendor's stack names.

    Raises the errors of `deploy_vendor`.
    """
    vendor = vendor or Vendor()
    regions = vendor.parameters.get("RegistrationRegions", "")
    parameters = {"RegistrationQueueArn": deployed.registration_queue_arn}
    topics = []
    for region in filter(None, regions.split(",")):
        outputs = _deploy(
            sandbox_url, vendor.account, REGION_STACK, template_text, parameters, region=region
        )
        topics.append(outputs["RegistrationTopicArn"])
    return replace(deployed, further_topic_arns=tuple(topics))


def deploy_canary(
    sandbox_url: str, template_text: str, deployed: VendorStack, vendor: Vendor | None = None
) -> VendorStack:
    """Create the canary's stack for this vendor, in an account of its own.

    Raises the errors of `deploy_vendor`.
    """
    vendor = vendor or Vendor()
    others = {vendor.account, *vendor.parameters.get("VendorAccountIds", "").split(",")}
    account = next(account for account in _CANARY_ACCOUNTS if account not in others)
    parameters = {"BrokerPrincipalArn": deployed.broker_principal_arn}
    for name in ("RolePrefix", "ImportedRoleNames", "VendorAccountIds"):
        if name in vendor.parameters:
            parameters[name] = vendor.parameters[name]
    outputs = _deploy(sandbox_url, account, CANARY_STACK, template_text, parameters)
    return replace(
        deployed,
        canary_role_arn=outputs["CanaryRoleArn"],
        stranger_role_arn=outputs["StrangerRoleArn"],
    )


def _deploy(
    sandbox_url: str,
    account: str,
    name: str,
    template_text: str,
    parameters: Mapping[str, str],
    *,
    region: str = VENDOR_REGION,
) -> dict[str, str]:
    """Create a stack, and return its outputs."""
    with closing(_client(sandbox_url, "cloudformation", account, region)) as cloudformation:
        cloudformation.create_stack(
            StackName=name,
            TemplateBody=template_text,
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
            ],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    if stack["StackStatus"] != "CREATE_COMPLETE":
        reason = stack.get("StackStatusReason", "no reason given")
        raise RuntimeError(f"{name} is {stack['StackStatus']}: {reason}")
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def _vendor_stack(sandbox_url: str, account: str, outputs: Mapping[str, str]) -> VendorStack:
    # CloudFormation's Ref returns a queue's URL at AWS. SQS itself returns the one at which this
    # sandbox answers.
    name = outputs["RegistrationQueueUrl"].rpartition("/")[2]
    with closing(_client(sandbox_url, "sqs", account)) as sqs:
        queue_url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    return VendorStack(
        broker_principal_arn=outputs["BrokerPrincipalArn"],
        template_bucket=outputs["TemplateBucket"],
        registration_topic_arn=outputs["RegistrationTopicArn"],
        registration_queue_url=queue_url,
        registration_queue_arn=outputs["RegistrationQueueArn"],
    )


def seed_customers(sandbox_url: str) -> None:
    """Create a bucket with an object in each customer's account.

    The permission sets let the vendor read buckets of this name.
    """
    for account, name in CUSTOMERS.items():
        bucket = f"deputy-shared-{name.lower()}"
        with closing(_client(sandbox_url, "s3", account)) as s3:
            s3.create_bucket(Bucket=bucket)
            s3.put_object(
                Bucket=bucket, Key="hello.txt", Body=f"Only {name} should see this.\n".encode()
            )


def _client(sandbox_url: str, service: str, account: str, region: str = VENDOR_REGION) -> Any:
    return boto3.session.Session().client(
        service,  # type: ignore[call-overload]
        region_name=region,
        endpoint_url=sandbox_url,
        aws_access_key_id=account,
        aws_secret_access_key="sandbox",
        config=Config(retries={"total_max_attempts": 1}),
    )
