"""CloudFormation resource types that moto lacks or implements wrongly.

Added: bucket, topic and queue policies, subscriptions, and role policies. Corrected: managed
policies (moto neither updates nor deletes them), topics and buckets. Roles are in cfn_roles.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from moto.iam.exceptions import NotFoundException
from moto.iam.models import ManagedPolicy, iam_backends
from moto.s3.models import FakeBucket, s3_backends
from moto.sns.models import Topic, sns_backends
from moto.sqs.models import sqs_backends

from sandbox.cfn_roles import policy_text

_topic_update = Topic.update_from_cloudformation_json.__func__
_bucket_create = FakeBucket.create_from_cloudformation_json.__func__


class _Added(CloudFormationModel):  # type: ignore[misc]  # moto is untyped here
    """The base of the added types, which set a property of another resource.

    An update revokes the old property and applies the new one.
    """

    def __init__(
        self, name: str, properties: Mapping[str, Any], account_id: str, region: str
    ) -> None:
        self.name = name
        self.properties = properties
        self.account_id = account_id
        self.region = region
        self.apply()

    @abstractmethod
    def apply(self) -> None:
        """Set the property on the other resource."""

    @abstractmethod
    def revoke(self) -> None:
        """Remove the property from the other resource."""

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
        document = policy_text(self.properties["PolicyDocument"]).encode()
        self._backend.put_bucket_policy(self.properties["Bucket"], document)

    def revoke(self) -> None:
        if self.properties["Bucket"] in self._backend.buckets:
            self._backend.delete_bucket_policy(self.properties["Bucket"])


class TopicPolicy(_Added):
    def apply(self) -> None:
        for arn in self.properties["Topics"]:
            sns_backends[self.account_id][self.region].get_topic(arn).policy = policy_text(
                self.properties["PolicyDocument"]
            )

    def revoke(self) -> None:
        """Keep the last policy: a topic always has one, at AWS too."""


class Subscription(_Added):
    def apply(self) -> None:
        backend = sns_backends[self.account_id][self.region]
        subscription = backend.subscribe(
            self.properties["TopicArn"], self.properties["Endpoint"], self.properties["Protocol"]
        )
        self.name = subscription.arn
        # moto takes any text for true, even "false"
        if str(self.properties.get("RawMessageDelivery", "false")).lower() == "true":
            backend.set_subscription_attributes(subscription.arn, "RawMessageDelivery", "true")

    def revoke(self) -> None:
        sns_backends[self.account_id][self.region].unsubscribe(self.name)


class QueuePolicy(_Added):
    def apply(self) -> None:
        self._set(policy_text(self.properties["PolicyDocument"]))

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
        self._role.put_policy(
            self.properties["PolicyName"], policy_text(self.properties["PolicyDocument"])
        )

    def revoke(self) -> None:
        try:
            self._role.policies.pop(self.properties["PolicyName"], None)
        except NotFoundException:
            return  # the role was deleted first


def _update_managed_policy(
    _cls: type, /, *, original_resource: Any, cloudformation_json: Mapping[str, Any], **_: Any
) -> Any:
    properties = cloudformation_json["Properties"]
    default = next(version for version in original_resource.versions if version.is_default)
    default.document = policy_text(properties["PolicyDocument"])
    _detach(original_resource)
    for name in properties.get("Roles", []):
        original_resource.attach_to(
            iam_backends[original_resource.account_id]["aws"].get_role(name)
        )
    return original_resource


# The unused arguments are moto's signature
def _delete_managed_policy(self: Any, account_id: str, region_name: str) -> None:  # noqa: ARG001
    _detach(self)
    iam_backends[account_id]["aws"].managed_policies.pop(self.arn, None)


def _detach(policy: Any) -> None:
    for role in iam_backends[policy.account_id]["aws"].roles.values():
        if policy.arn in role.managed_policies:
            policy.detach_from(role)


def _create_bucket(
    cls: type, /, name: str, template: dict[str, Any], account_id: str, region_name: str, **_: Any
) -> Any:
    """Create a bucket with its versioning and its public access block.

    moto applies only a bucket's encryption and tags.
    """
    bucket = _bucket_create(cls, name, template, account_id, region_name)
    properties, backend = template["Properties"], s3_backends[account_id]["aws"]
    if "VersioningConfiguration" in properties:
        backend.put_bucket_versioning(name, properties["VersioningConfiguration"]["Status"])
    if "PublicAccessBlockConfiguration" in properties:
        switches = properties["PublicAccessBlockConfiguration"].items()
        backend.put_public_access_block(
            name, {switch: str(value).lower() for switch, value in switches}
        )
    return bucket


def _update_topic(
    cls: type, /, original_resource: Any, *, cloudformation_json: dict[str, Any], **more: Any
) -> Any:
    """Keep the topic, and thereby its subscriptions, unless its name changes.

    At every update moto creates a new topic without the subscriptions that other resources added.
    """
    name = original_resource.name
    if cloudformation_json["Properties"].get("TopicName", name) == name:
        return original_resource
    return _topic_update(
        cls, original_resource=original_resource, cloudformation_json=cloudformation_json, **more
    )


def _topic_attribute(self: Any, name: str) -> str:
    """Return a topic's attribute. moto lacks TopicArn, which has the same value as Ref."""
    return str(self.arn if name == "TopicArn" else self.name)


def install() -> None:
    # moto registers only direct subclasses of its own base class, and caches this map
    parsing.get_model_map().update(
        {
            "AWS::IAM::RolePolicy": RolePolicy,
            "AWS::S3::BucketPolicy": BucketPolicy,
            "AWS::SNS::Subscription": Subscription,
            "AWS::SNS::TopicPolicy": TopicPolicy,
            "AWS::SQS::QueuePolicy": QueuePolicy,
        }
    )
    ManagedPolicy.update_from_cloudformation_json = classmethod(_update_managed_policy)
    ManagedPolicy.delete = _delete_managed_policy
    FakeBucket.create_from_cloudformation_json = classmethod(_create_bucket)
    Topic.update_from_cloudformation_json = classmethod(_update_topic)
    Topic.has_cfn_attr = classmethod(lambda _cls, attribute: attribute in {"TopicName", "TopicArn"})
    Topic.get_cfn_attribute = _topic_attribute
