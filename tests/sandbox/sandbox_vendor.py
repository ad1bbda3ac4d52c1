"""For tests of registration: a vendor's reader of a topic, which answers response URLs, and a
customer's stack.
"""

import itertools
import json
import urllib.request
from urllib.error import HTTPError

from botocore.exceptions import ClientError

from tests.sandbox.sandbox_people import CUSTOMER

_names = itertools.count()

CUSTOMER_STACK = """
Parameters:
  Topic: {Type: String, Default: ""}
  Name: {Type: String}
  Token: {Type: String, Default: first}
  Seconds: {Type: String, Default: "60"}
Conditions:
  Registers: !Not [!Equals [!Ref Topic, ""]]
Resources:
  Registration:
    Type: Custom::Registration
    Condition: Registers
    Properties:
      ServiceToken: !Ref Topic
      ServiceTimeout: !Ref Seconds
      Token: !Ref Token
      RoleArn: !GetAtt Role.Arn
      Number: 3
      Truth: true
  Role:
    Type: AWS::IAM::Role
    Properties:
      RoleName: !Ref Name
      Description: !Ref Token
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement: {Effect: Allow, Principal: {AWS: "111122223333"}, Action: sts:AssumeRole}
Outputs:
  Arn: {Value: !GetAtt Role.Arn}
  Word: {Condition: Registers, Value: !GetAtt Registration.Word}
"""


def let_topic_send(sqs, queue, queue_arn, topic, service="sns.amazonaws.com"):
    """The queue's policy lets the topic send, if SNS says that it is this service."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})


class TopicReader:
    """Reads the queue of its own topic. `account` owns both."""

    def __init__(self, aws, account="111122223333", region="us-east-1"):
        name = f"reader{next(_names)}"
        self.sns, self.sqs = aws.client("sns", account, region), aws.client("sqs", account, region)
        self.topic = self.sns.create_topic(Name=name)["TopicArn"]
        self.queue = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])[
            "Attributes"
        ]
        let_topic_send(self.sqs, self.queue, arn["QueueArn"], self.topic)
        self.sns.subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=arn["QueueArn"])

    def close(self):
        self.sns.close()
        self.sqs.close()

    def read(self, most=1):
        """The requests that are waiting, at most ten."""
        found = self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=most).get(
            "Messages", []
        )
        for message in found:
            self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return [json.loads(json.loads(message["Body"])["Message"]) for message in found]

    def next(self, kind):
        [request] = self.read()
        assert request["RequestType"] == kind
        return request


class Stack:
    """A customer's stack with a registration, in one region."""

    def __init__(self, sandbox, topic, region="us-east-1", account=CUSTOMER):
        self.cloudformation = sandbox.client("cloudformation", account, region)
        self.iam = sandbox.client("iam", account)
        self.name = f"registering{next(_names)}"
        self.topic = topic

    def close(self):
        self.cloudformation.close()
        self.iam.close()

    def options(self, changes, template=CUSTOMER_STACK):
        values = {"Topic": self.topic, "Name": f"deputy-{self.name}", **changes}
        return {
            "StackName": self.name,
            "TemplateBody": template,
            "Parameters": [
                {"ParameterKey": key, "ParameterValue": value} for key, value in values.items()
            ],
            "Capabilities": ["CAPABILITY_NAMED_IAM"],
        }

    def create(self, **changes):
        self.id = self.cloudformation.create_stack(**self.options(changes))["StackId"]
        return self.id

    def update(self, **changes):
        self.cloudformation.update_stack(**self.options(changes))

    def delete(self):
        self.cloudformation.delete_stack(StackName=self.name)

    def describe(self):
        return self.cloudformation.describe_stacks(StackName=self.id)["Stacks"][0]

    @property
    def status(self):
        return self.describe()["StackStatus"]

    @property
    def description(self):
        """Of the role; None if it is gone."""
        try:
            return self.iam.get_role(RoleName=f"deputy-{self.name}")["Role"]["Description"]
        except ClientError:
            return None

    def events(self):
        found = self.cloudformation.describe_stack_events(StackName=self.id)["StackEvents"]
        return [
            (
                event["LogicalResourceId"],
                event["ResourceStatus"],
                event.get("ResourceStatusReason", ""),
            )
            for event in reversed(found)
        ]

    def reason(self, status):
        return next(reason for _, found, reason in self.events() if found == status)


def respond(request, status="SUCCESS", **changes):
    """PUTs the answer. Returns the HTTP status."""
    answer = {
        "Status": status,
        "PhysicalResourceId": request.get("PhysicalResourceId", "registration-1"),
        "StackId": request["StackId"],
        "RequestId": request["RequestId"],
        "LogicalResourceId": request["LogicalResourceId"],
        "Data": {"Word": "hello"},
    } | changes
    return put(request["ResponseURL"], json.dumps(answer).encode())


def put(url, body=b"{}", method="PUT"):
    request = urllib.request.Request(url, body, {"Content-Type": ""}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status
    except HTTPError as error:
        with error:
            return error.code
