"""SNS's deliveries to a queue: as at AWS, the queue's policy decides, and a refusal is silent."""

from contextlib import closing

import pytest

from tests.sandbox.sandbox_people import VENDOR
from tests.sandbox.sandbox_vendor import TopicReader, let_topic_send

SNS, HONG_KONG = "sns.amazonaws.com", "ap-east-1"


@pytest.mark.parametrize(
    ("topic_region", "queue_region", "service", "arrives"),
    [
        ("us-east-1", "us-east-1", SNS, True),
        ("eu-west-3", "us-east-1", SNS, True),
        ("eu-west-3", "us-east-1", "sns.eu-west-3.amazonaws.com", False),
        (HONG_KONG, "us-east-1", SNS, False),
        (HONG_KONG, "us-east-1", f"sns.{HONG_KONG}.amazonaws.com", True),
        (HONG_KONG, HONG_KONG, SNS, True),
        ("us-east-1", "us-east-1", "events.amazonaws.com", False),
    ],
)
def test_a_message_arrives_if_the_queue_lets_this_service_send_for_this_topic(
    sandbox, topic_region, queue_region, service, arrives
):
    with (
        closing(TopicReader(sandbox, region=queue_region)) as reader,
        closing(sandbox.client("sns", VENDOR, topic_region)) as sns,
    ):
        answer = reader.sqs.get_queue_attributes(QueueUrl=reader.queue, AttributeNames=["QueueArn"])
        queue_arn = answer["Attributes"]["QueueArn"]
        topic = sns.create_topic(Name="from-elsewhere")["TopicArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue_arn)
        for source, expected in ((topic, arrives), (f"{topic}-other", False)):
            let_topic_send(reader.sqs, reader.queue, queue_arn, source, service)
            sns.publish(TopicArn=topic, Message="{}")
            assert bool(reader.read()) is expected
        reader.sqs.set_queue_attributes(QueueUrl=reader.queue, Attributes={"Policy": ""})
        sns.publish(TopicArn=topic, Message="{}")
        assert reader.read() == []
        sns.delete_topic(TopicArn=topic)
