"""The cast of the sandbox's tests, and how they act: real boto3 over real HTTP."""

import itertools
import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from sandbox.server import Sandbox

VENDOR, CUSTOMER, STRANGER = "111122223333", "444455556666", "999999999999"
OWN, FOREIGN = "dpy-own", "dpy-foreign"
VENDOR_ROOT = {"AWS": f"arn:aws:iam::{VENDOR}:root"}
DENIED = (403, "AccessDenied")
_numbers = itertools.count()


@dataclass
class People:
    """Makes users, roles and clients, and tells outcomes: "allowed" or (status, code)."""

    sandbox: Sandbox
    stack: ExitStack
    broker: dict[str, str] = field(default_factory=dict)
    session: boto3.session.Session = field(default_factory=boto3.session.Session)
    clients: dict[tuple, Any] = field(default_factory=dict)

    def client(self, service, keys):
        if isinstance(keys, str):
            keys = {"aws_access_key_id": keys, "aws_secret_access_key": "any"}
        known = (service, *sorted(keys.items()))
        if known in self.clients:
            return self.clients[known]
        made = self.session.client(
            service,
            region_name="us-east-1",
            endpoint_url=self.sandbox.url,
            config=Config(retries={"total_max_attempts": 1}, read_timeout=5),
            **keys,
        )
        self.stack.callback(made.close)
        self.clients[known] = made
        return made

    def user(self, account, policy=None):
        name = f"user{next(_numbers)}"
        iam = self.client("iam", account)
        iam.create_user(UserName=name)
        if policy is not None:
            iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {
            "name": name,
            "arn": f"arn:aws:iam::{account}:user/{name}",
            "aws_access_key_id": key["AccessKeyId"],
            "aws_secret_access_key": key["SecretAccessKey"],
        }

    def role(self, principal, condition=None, **options):
        """A role with one Allow statement, plus `extra` statements. Returns its ARN."""
        account = options.pop("account", CUSTOMER)
        name = options.pop("name", f"deputy-{next(_numbers)}")
        allow = statement("sts:AssumeRole", Principal=principal)
        if condition is not None:
            allow["Condition"] = condition
        iam = self.client("iam", account)
        statements = [allow, *options.pop("extra", [])]
        policies = options.pop("policies", [])
        made = iam.create_role(
            RoleName=name, AssumeRolePolicyDocument=document(*statements), **options
        )["Role"]
        for number, policy in enumerate(policies):
            iam.put_role_policy(
                RoleName=name, PolicyName=f"p{number}", PolicyDocument=document(policy)
            )
        return made["Arn"]

    def assume(self, arn, external_id=None, who=None, **options):
        if external_id is not None:
            options["ExternalId"] = external_id
        options.setdefault("RoleSessionName", "sess")
        sts = self.client("sts", keys(who or self.broker))
        answer = sts.assume_role(RoleArn=arn, **options)
        made = answer["Credentials"]
        return {
            "aws_access_key_id": made["AccessKeyId"],
            "aws_secret_access_key": made["SecretAccessKey"],
            "aws_session_token": made["SessionToken"],
        }

    def outcome(self, arn, external_id=None, **options):
        return outcome(self.assume, arn=arn, external_id=external_id, **options)


def keys(who):
    return {k: v for k, v in who.items() if k.startswith("aws_")} if isinstance(who, dict) else who


def statement(action="sts:AssumeRole", effect="Allow", **more):
    return {"Effect": effect, "Action": action, **more}


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def outcome(call, **options):
    try:
        call(**options)
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]
    return "allowed"
