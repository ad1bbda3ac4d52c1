"""SNS's deliveries to SQS: like at AWS, a queue receives only what its policy lets SNS send.

moto delivers without looking at the policy.
"""

import re
from functools import cache, wraps
from typing import Any

from moto.sns import models
from moto.sqs.models import sqs_backends

from sandbox.policy import Request, evaluate_service

# Regions that are enabled in every account. From a topic in any other region, SNS sends to a
# different region as sns.<topic's region>.
_ENABLED_BY_DEFAULT = re.compile(
    "(ap-northeast|ap-southeast|us-east|us-west)-[12]|eu-west-[123]"
    "|(ap-south|ca-central|eu-central|eu-north|sa-east)-1|(cn|us-gov)-.*"
)


def _delivered_by(topic_region: str, queue_region: str) -> str:
    if topic_region == queue_region or _ENABLED_BY_DEFAULT.fullmatch(topic_region):
        return "sns.amazonaws.com"
    return f"sns.{topic_region}.amazonaws.com"


def _allowed(subscription: Any) -> bool:
    region, account, name = subscription.endpoint.split(":")[3:]
    queue = sqs_backends[account][region].queues.get(name)
    if queue is None or not queue.policy:
        return False
    service = _delivered_by(subscription.topic.sns_backend.region_name, region)
    context = {"aws:SourceArn": subscription.topic.arn, "aws:SecureTransport": "true"}
    request = Request("sqs:SendMessage", queue.queue_arn, context)
    return evaluate_service(queue.policy, service, request)


def _deliver(publish: Any) -> Any:
    @wraps(publish)
    def deliver(subscription: Any, *args: Any, **kwargs: Any) -> None:
        """Deliver a message, or lose it without an error, as AWS does."""
        if subscription.protocol != "sqs" or _allowed(subscription):
            publish(subscription, *args, **kwargs)

    return deliver


@cache
def install() -> None:
    models.Subscription.publish = _deliver(models.Subscription.publish)
