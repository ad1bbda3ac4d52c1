"""CloudFormation resource types that moto lacks or gets wrong.

Added: bucket, topic and queue policies, subscriptions, and role policies. Corrected: roles (moto updates hardly
anything of them and ignores their managed policies), managed policies (never updated nor deleted), and buckets.
"""

import json
from collections.abc import Mapping
from datetime import date
from functools import cache
from typing import Any

from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.exceptions import NotFoundException
from moto.iam.models import AWSManagedPolicy, ManagedPolicy, Role, iam_backends
from moto.s3.models import FakeBucket, s3_backends
from moto.sns.models import Topic, sns_backends
from moto.sqs.models import sqs_backends

_role_create = Role.create_from_cloudformation_json.__func__
_role_delete = Role.delete_from_cloudformation_json.__func__
_topic_update = Topic.update_from_cloudformation_json.__func__
_bucket_create = FakeBucket.create_from_cloudformation_json.__func__


def _text(document: Any) -> str:
    """A policy as JSON. YAML reads an unquoted `Version: 2012-10-17` as a date."""
    if isinstance(document, str):
        return document
    return json.dumps(
        document, default=lambda value: value.isoformat() if isinstance(value, date) else str(value)
    )


class _Added(CloudFormationModel):  # type: ignore[misc]  # moto is untyped here
    """What the added types share: they set something on other resources, and updating them sets it again."""

    def __init__(self, name: str, properties: Mapping[str, Any], account_id: str, region: str) -> None:
        self.name = name
        self.properties = properties
        self.account_id = account_id
        self.region = region
        self.apply()

    def apply(self) -> None:
        raise NotImplementedError

    def revoke(self) -> None:
        raise NotImplementedError

    @property
    def physical_resource_id(self) -> str:
        return self.name

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:  # noqa: ARG003 - moto's signature
        return False

    @classmethod
    def create_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: Mapping[str, Any],
        account_id: str,
        region_name: str,
        **_: Any,
    ) -> "_Added":
        return cls(resource_name, cloudformation_json["Properties"], account_id, region_name)

    @classmethod
    def update_from_cloudformation_json(
        cls, original_resource: "_Added", cloudformation_json: Mapping[str, Any], **_: Any
    ) -> "_Added":
        original_resource.revoke()
        original_resource.properties = cloudformation_json["Properties"]
        original_resource.apply()
        return original_resource

    def delete(self, account_id: str, region_name: str) -> None:  # noqa: ARG002 - moto's signature
        self.revoke()


class BucketPolicy(_Added):
    @property
    def _backend(self) -> Any:
        return s3_backends[self.account_id]["aws"]

    def apply(self) -> None:
        document = _text(self.properties["PolicyDocument"]).encode()
        self._backend.put_bucket_policy(self.properties["Bucket"], document)

    def revoke(self) -> None:
        if self.properties["Bucket"] in self._backend.buckets:
            self._backend.delete_bucket_policy(self.properties["Bucket"])


class TopicPolicy(_Added):
    def apply(self) -> None:
        for arn in self.properties["Topics"]:
            sns_backends[self.account_id][self.region].get_topic(arn).policy = _text(
                self.properties["PolicyDocument"]
            )

    def revoke(self) -> None:
        """A topic always has some policy: AWS, too, leaves the last one on it."""


class Subscription(_Added):
    def apply(self) -> None:
        backend = sns_backends[self.account_id][self.region]
        subscription = backend.subscribe(
            self.properties["TopicArn"], self.properties["Endpoint"], self.properties["Protocol"]
        )
        self.name = subscription.arn
        # moto takes any text here for "yes", and even "false".
        if str(self.properties.get("RawMessageDelivery", "false")).lower() == "true":
            backend.set_subscription_attributes(subscription.arn, "RawMessageDelivery", "true")

    def revoke(self) -> None:
        sns_backends[self.account_id][self.region].unsubscribe(self.name)


class QueuePolicy(_Added):
    def apply(self) -> None:
        self._set(_text(self.properties["PolicyDocument"]))

    def revoke(self) -> None:
        self._set("")

    def _set(self, policy: str) -> None:
        backend = sqs_backends[self.account_id][self.region]
        for url in self.properties["Queues"]:
            name = url.rpartition("/")[2]
            if name in backend.queues:
                backend.set_queue_attributes(name, {"Policy": policy})


class RolePolicy(_Added):
    @property
    def _role(self) -> Any:
        return iam_backends[self.account_id]["aws"].get_role(self.properties["RoleName"])

    def apply(self) -> None:
        self._role.put_policy(self.properties["PolicyName"], _text(self.properties["PolicyDocument"]))

    def revoke(self) -> None:
        try:
            self._role.policies.pop(self.properties["PolicyName"], None)
        except NotFoundException:
            return  # the role went first


# --- corrected: roles ---------------------------------------------------------------------------------------------


def _create_role(
    cls: type, /, name: str, template: dict[str, Any], account_id: str, region_name: str, **_: Any
) -> Any:
    properties = template["Properties"]
    role = _role_create(cls, name, template, account_id, region_name)
    try:
        _apply_role(role, properties)
    except Exception:
        iam_backends[account_id]["aws"].roles.pop(role.id)
        raise
    return role


def _update_role(
    cls: type,
    /,
    original_resource: Any,
    new_resource_name: str,
    cloudformation_json: dict[str, Any],
    **where: Any,
) -> Any:
    role, properties = original_resource, cloudformation_json["Properties"]
    if properties.get("RoleName", role.name) != role.name or properties.get("Path", "/") != role.path:
        name = properties.get("RoleName", new_resource_name)
        created = _create_role(cls, name, cloudformation_json, **where)
        Role.delete_from_cloudformation_json(role.name, cloudformation_json, **where)
        return created
    role.assume_role_policy_document = _text(properties["AssumeRolePolicyDocument"])
    role.description = properties.get("Description", "")
    role.permissions_boundary_arn = properties.get("PermissionsBoundary", "")
    role.tags = properties.get("Tags", [])
    _apply_role(role, properties)
    return role


def _delete_role(cls: type, /, resource_name: str, template: Any, account_id: str, region_name: str) -> None:
    """What the template attached goes with the role. Anything else that is attached keeps it alive, as at AWS."""
    role = iam_backends[account_id]["aws"].get_role(resource_name)
    for arn in role.__dict__.get("template_managed_policies", ()):
        role.managed_policies.pop(arn, None)
    _role_delete(cls, resource_name, template, account_id, region_name)


def _apply_role(role: Any, properties: Mapping[str, Any]) -> None:
    """The policies that the template gives the role, and no longer those that an earlier template gave it."""
    role.max_session_duration = str(properties.get("MaxSessionDuration", 3600))
    for name in role.__dict__.get("template_policies", ()):
        role.policies.pop(name, None)
    for arn in role.__dict__.get("template_managed_policies", ()):
        role.managed_policies.pop(arn, None)
    policies = {
        policy["PolicyName"]: _text(policy["PolicyDocument"]) for policy in properties.get("Policies", [])
    }
    role.policies.update(policies)
    role.template_policies = set(policies)
    role.template_managed_policies = set(properties.get("ManagedPolicyArns", []))
    for arn in role.template_managed_policies:
        role.managed_policies[arn] = _managed_policy(role.account_id, arn)


def _managed_policy(account_id: str, arn: str) -> Any:
    """The account's own, or AWS's: of those moto holds over a thousand, too many to load into each account."""
    own = iam_backends[account_id]["aws"].managed_policies.get(arn)
    if own is not None:
        return own
    found = _aws_managed_policies(account_id).get(arn)
    if found is None:
        raise NotFoundException(f"Policy {arn} does not exist or is not attachable.")
    return found


@cache
def _aws_managed_policies(account_id: str) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(aws_managed_policies_data)
    policies = [
        AWSManagedPolicy.from_data(name, account_id, "us-east-1", data) for name, data in known.items()
    ]
    return {policy.arn: policy for policy in policies}


# --- corrected: managed policies, buckets, topics -----------------------------------------------------------------


def _update_managed_policy(
    _cls: type, /, *, original_resource: Any, cloudformation_json: Mapping[str, Any], **_: Any
) -> Any:
    properties = cloudformation_json["Properties"]
    default = next(version for version in original_resource.versions if version.is_default)
    default.document = _text(properties["PolicyDocument"])
    _detach(original_resource)
    for name in properties.get("Roles", []):
        original_resource.attach_to(iam_backends[original_resource.account_id]["aws"].get_role(name))
    return original_resource


def _delete_managed_policy(self: Any, account_id: str, region_name: str) -> None:  # noqa: ARG001 - moto's signature
    _detach(self)
    iam_backends[account_id]["aws"].managed_policies.pop(self.arn, None)


def _detach(policy: Any) -> None:
    for role in iam_backends[policy.account_id]["aws"].roles.values():
        if policy.arn in role.managed_policies:
            policy.detach_from(role)


def _create_bucket(
    cls: type, /, name: str, template: dict[str, Any], account_id: str, region_name: str, **_: Any
) -> Any:
    """Moto ignores all properties of a bucket but encryption and tags."""
    bucket = _bucket_create(cls, name, template, account_id, region_name)
    properties, backend = template["Properties"], s3_backends[account_id]["aws"]
    if "VersioningConfiguration" in properties:
        backend.put_bucket_versioning(name, properties["VersioningConfiguration"]["Status"])
    if "PublicAccessBlockConfiguration" in properties:
        switches = properties["PublicAccessBlockConfiguration"].items()
        backend.put_public_access_block(name, {switch: str(value).lower() for switch, value in switches})
    return bucket


def _update_topic(
    cls: type, /, original_resource: Any, *, cloudformation_json: dict[str, Any], **more: Any
) -> Any:
    """Moto makes a new topic at every change, without the subscriptions that other resources gave the old one."""
    if cloudformation_json["Properties"].get("TopicName", original_resource.name) == original_resource.name:
        return original_resource
    return _topic_update(
        cls, original_resource=original_resource, cloudformation_json=cloudformation_json, **more
    )


def _topic_attribute(self: Any, name: str) -> str:
    """Moto does not know the attribute TopicArn, which is what Ref gives as well."""
    return str(self.arn if name == "TopicArn" else self.name)


def install() -> None:
    # moto looks for subclasses of its own base class alone, and keeps this map once it is made.
    parsing.get_model_map().update(
        {
            "AWS::IAM::RolePolicy": RolePolicy,
            "AWS::S3::BucketPolicy": BucketPolicy,
            "AWS::SNS::Subscription": Subscription,
            "AWS::SNS::TopicPolicy": TopicPolicy,
            "AWS::SQS::QueuePolicy": QueuePolicy,
        }
    )
    Role.create_from_cloudformation_json = classmethod(_create_role)
    Role.update_from_cloudformation_json = classmethod(_update_role)
    Role.delete_from_cloudformation_json = classmethod(_delete_role)
    ManagedPolicy.update_from_cloudformation_json = classmethod(_update_managed_policy)
    ManagedPolicy.delete = _delete_managed_policy
    FakeBucket.create_from_cloudformation_json = classmethod(_create_bucket)
    Topic.update_from_cloudformation_json = classmethod(_update_topic)
    Topic.has_cfn_attr = classmethod(lambda _cls, attribute: attribute in {"TopicName", "TopicArn"})
    Topic.get_cfn_attribute = _topic_attribute
