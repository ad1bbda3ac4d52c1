"""Kits, templates and permission sets, as they are asked for and answered."""

from marshmallow import fields

from app.http.fields import EXTERNAL_ID, Matches, like, one_of, text
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


class KitQuery(Strict):
    region = fields.String(validate=Matches(REGION), metadata=like("eu-west-1"))
    permission_set = text(64, "inventory")


class Kit(Answer):
    external_id = fields.String(metadata=like(EXTERNAL_ID))
    broker_principal_arn = fields.String(metadata=like("arn:aws:iam::111122223333:role/DeputyBroker"))
    role_name = fields.String(metadata=like("deputy-7a2b6c18"))
    stack_name = fields.String(metadata=like("deputy-7a2b6c18"))
    region = fields.String(metadata=like("eu-west-1"))
    partition = fields.String(metadata=like("aws"))
    permission_set = fields.String(metadata=like("inventory"))
    template_url = fields.String(metadata=like(_TEMPLATE))
    template_version = fields.String(metadata=like("0a1b2c3d4e5f6071"))
    launch_stack_url = fields.String(metadata=like(f"{_CONSOLE}templateURL=..."))
    organization_launch_url = fields.String(
        metadata=like(
            f"{_CONSOLE}templateURL=...",
            "A launch link for a whole AWS organisation, to be opened in its management account or in "
            "a delegated administrator's. The administrator fills in the organizational units.",
        )
    )
    registers_itself = fields.Boolean(
        metadata={"description": "Whether a stack launched by the links tells Deputy its role's ARN."}
    )
    trust_policy = fields.Dict(metadata=like(_TRUST))
    terraform = fields.String(metadata=like('resource "aws_iam_role" "deputy" { ... }'))
    aws_cli = fields.String(metadata=like("#!/bin/sh\n..."))


class TemplateQuery(Strict):
    permission_set = text(64, "inventory")


class PermissionSetOut(Answer):
    name = fields.String(metadata=like("inventory"))
    version = fields.Integer(metadata=like(1))
    title = fields.String(metadata=like("Read the inventory"))
    description = fields.String(metadata=like("Lists what there is, and reads no content."))
    access = one_of("PermissionSetAccess", "read", "write")
    policy = fields.Dict(metadata=like(_POLICY, "The IAM policy document."))


class PermissionSets(Answer):
    items = fields.List(fields.Nested(PermissionSetOut))
