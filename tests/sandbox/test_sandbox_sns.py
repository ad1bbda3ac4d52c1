"""SNS's deliveries to a queue: as at AWS, the queue's policy decides, and a refusal is silent."""

from contextlib import closing

import pytest

from tests.sandbox.sandbox_people import VENDOR
from tests.sandbox.sandbox_vendor import TopicReader, let_topic_send

SNS, HONG_KONG = "sns.amazonaws.com", "ap-east-1"


@pytest.mark.parametrize(
    ("queue_region", "topics"),
    [
        (
            "us-east-1",
            [
                ("us-east-1", SNS, True),
                ("eu-west-3", SNS, True),
                ("eu-west-3", "sns.eu-west-3.amazonaws.com", False),
                (HONG_KONG, SNS, False),
                (HONG_KONG, f"sns.{HONG_KONG}.amazonaws.com", True),
                ("us-east-1", "events.amazonaws.com", False),
            ],
        ),
        (HONG_KONG, [(HONG_KONG, SNS, True)]),
    ],
)
def test_a_message_arrives_if_the_queue_lets_this_service_send_for_this_topic(
    sandbox, queue_region, topics
):
    with closing(TopicReader(sandbox, region=queue_region)) as reader:
        answer = reader.sqs.get_queue_attributes(QueueUrl=reader.queue, AttributeNames=["QueueArn"])
        queue_arn = answer["Attributes"]["QueueArn"]
        for number, (topic_region, service, arrives) in enumerate(topics):
            with closing(sandbox.client("sns", VENDOR, topic_region)) as sns:
                topic = sns.create_topic(Name=f"from-elsewhere-{number}")["TopicArn"]
                sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue_arn)
                for source, expected in ((topic, arrives), (f"{topic}-other", False)):
                    let_topic_send(reader.sqs, reader.queue, queue_arn, source, service)
                    sns.publish(TopicArn=topic, Message="{}")
                    assert bool(reader.read()) is expected, (topic_region, service)
                reader.sqs.set_queue_attributes(QueueUrl=reader.queue, Attributes={"Policy": ""})
                sns.publish(TopicArn=topic, Message="{}")
                assert reader.read() == []
                sns.delete_topic(TopicArn=topic)
