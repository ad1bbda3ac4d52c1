"""What the onboarding routes take and give: kits, links, templates and permission sets."""

from marshmallow import fields, validate

from app.http.schemas import EXTERNAL_ID, Answer, Matches, Strict, like, one_of, text, time
from app.onboarding.page_links import LINK_SECONDS, LINK_SECONDS_MAX, LINK_SECONDS_MIN

_REGION = r"[a-z]{2}(-[a-z]+)+-[0-9]{1,2}"
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
    region = fields.String(validate=Matches(_REGION), metadata=like("eu-west-1"))
    permission_set = text(64, "inventory")


class Kit(Answer):
    external_id = fields.String(required=True, metadata=like(EXTERNAL_ID))
    broker_principal_arn = fields.String(required=True, metadata=like("arn:aws:iam::111122223333:role/DeputyBroker"))
    role_name = fields.String(required=True, metadata=like("deputy-7a2b6c18"))
    stack_name = fields.String(required=True, metadata=like("deputy-7a2b6c18"))
    region = fields.String(required=True, metadata=like("eu-west-1"))
    partition = fields.String(required=True, metadata=like("aws"))
    permission_set = fields.String(required=True, metadata=like("inventory"))
    template_url = fields.String(required=True, metadata=like(_TEMPLATE))
    template_version = fields.String(required=True, metadata=like("0a1b2c3d4e5f6071"))
    launch_stack_url = fields.String(required=True, metadata=like(f"{_CONSOLE}templateURL=..."))
    organization_launch_url = fields.String(
        required=True,
        metadata=like(
            f"{_CONSOLE}templateURL=...",
            "A launch link for a whole AWS organisation, to be opened in its management account or in "
            "a delegated administrator's. The administrator fills in the organizational units.",
        ),
    )
    registers_itself = fields.Boolean(
        required=True,
        metadata={"description": "Whether a stack launched by the links tells Deputy its role's ARN."},
    )
    trust_policy = fields.Dict(required=True, metadata=like(_TRUST))
    terraform = fields.String(required=True, metadata=like('resource "aws_iam_role" "deputy" { ... }'))
    aws_cli = fields.String(required=True, metadata=like("#!/bin/sh\n..."))


class LinkIn(Strict):
    permission_set = text(64, "inventory")
    region = fields.String(validate=Matches(_REGION), metadata=like("eu-west-1", "The one that the page begins with."))
    expires_in = fields.Integer(
        strict=True,
        load_default=LINK_SECONDS,
        validate=validate.Range(LINK_SECONDS_MIN, LINK_SECONDS_MAX),
        metadata=like(LINK_SECONDS, "Seconds until it stops working; 30 days unless given."),
    )


class LinkOut(Answer):
    id = fields.UUID(required=True)
    permission_set = fields.String(required=True, metadata=like("inventory"))
    region = fields.String(required=True, metadata=like("eu-west-1"))
    created_at = time(required=True)
    expires_at = time(required=True)
    revoked_at = time(required=True, allow_none=True)


class LinkCreated(Answer):
    id = fields.UUID(required=True)
    url = fields.String(
        required=True,
        metadata=like(
            "https://deputy.example.com/onboard/<43 characters>",
            "For the customer; shown this once, as only its hash is kept.",
        ),
    )
    expires_at = time(required=True)


class TemplateQuery(Strict):
    permission_set = text(64, "inventory")


class PermissionSetOut(Answer):
    name = fields.String(required=True, metadata=like("inventory"))
    version = fields.Integer(required=True, metadata=like(1))
    title = fields.String(required=True, metadata=like("Read the inventory"))
    description = fields.String(required=True, metadata=like("Lists what there is, and reads no content."))
    access = one_of("PermissionSetAccess", "read", "write")
    policy = fields.Dict(required=True, metadata=like(_POLICY, "The IAM policy document."))


class PermissionSets(Answer):
    items = fields.List(fields.Nested(PermissionSetOut), required=True)
