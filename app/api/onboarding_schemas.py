"""Kits, templates and permission sets, as they are asked for and answered."""

from marshmallow import fields

from app.http.fields import EXTERNAL_ID, like, matching, one_of, string, text
from app.http.schemas import Answer, Strict

REGION = r"[a-z]{2}(-[a-z]+)+-[0-9]{1,2}"
_TEMPLATE = "https://s3.eu-west-1.amazonaws.com/example-deputy-templates/templates/customer-role/inventory/0a1b.yaml"
_CONSOLE = "https://eu-west-1.console.aws.amazon.com/cloudformation/home?region=eu-west-1#/stacks/create/review?"
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::111122223333:root"},
            "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"],
            "Condition": {
                "StringEquals": {"sts:ExternalId": EXTERNAL_ID},
                "ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::111122223333:role/DeputyBroker"},
            },
        }
    ],
}
_POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Sid": "ReadTags", "Effect": "Allow", "Action": ["tag:GetResources"], "Resource": "*"}],
}


class TemplateQuery(Strict):
    permission_set = text(64, "inventory")


class KitQuery(Strict):
    region = matching(REGION, "eu-west-1")
    permission_set = text(64, "inventory")


class Kit(Answer):
    external_id = string(EXTERNAL_ID)
    broker_principal_arn = string("arn:aws:iam::111122223333:role/DeputyBroker")
    role_name = string("deputy-7a2b6c18")
    stack_name = string("deputy-7a2b6c18")
    region = string("eu-west-1")
    partition = string("aws")
    permission_set = string("inventory")
    template_url = string(_TEMPLATE)
    template_version = string("0a1b2c3d4e5f6071")
    launch_stack_url = string(f"{_CONSOLE}templateURL=...")
    organization_launch_url = string(
        f"{_CONSOLE}templateURL=...",
        "The launch link for a whole AWS organisation. Open it in the management account or a delegated administrator's, "
        "and fill in the organizational units there.",
    )
    registers_itself = fields.Boolean(
        metadata={"description": "Whether a stack launched by these links tells Deputy the ARN of its role."}
    )
    trust_policy = fields.Dict(metadata=like(_TRUST))
    terraform = string('resource "aws_iam_role" "deputy" { ... }')
    aws_cli = string("#!/bin/sh\n...")


class PermissionSetOut(Answer):
    name = string("inventory")
    version = fields.Integer(metadata=like(1))
    title = string("Read the inventory")
    description = string("Lists what there is, and reads no content.")
    access = one_of("PermissionSetAccess", "read", "write")
    policy = fields.Dict(metadata=like(_POLICY, "The IAM policy document."))


class PermissionSets(Answer):
    items = fields.List(fields.Nested(PermissionSetOut))
