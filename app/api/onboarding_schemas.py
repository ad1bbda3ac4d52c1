"""What the onboarding routes take and give: kits, links, templates and permission sets."""

from marshmallow import fields, validate

from app.api.schemas import Matches, Strict, text, time
from app.links import LINK_SECONDS, LINK_SECONDS_MAX, LINK_SECONDS_MIN

_REGION = r"[a-z]{2}(-[a-z]+)+-[0-9]{1,2}"


class KitQuery(Strict):
    region = fields.String(validate=Matches(_REGION))
    permission_set = text(64)


class Kit(Strict):
    external_id = fields.String(required=True)
    broker_principal_arn = fields.String(required=True)
    role_name = fields.String(required=True)
    stack_name = fields.String(required=True)
    region = fields.String(required=True)
    partition = fields.String(required=True)
    permission_set = fields.String(required=True)
    template_url = fields.String(required=True)
    template_version = fields.String(required=True)
    launch_stack_url = fields.String(required=True)
    organization_launch_url = fields.String(
        required=True,
        metadata={
            "description": "A launch link for a whole AWS organisation, to be opened in its management account or in "
            "a delegated administrator's. The administrator fills in the organizational units."
        },
    )
    registers_itself = fields.Boolean(
        required=True,
        metadata={"description": "Whether a stack launched by the links tells Deputy its role's ARN."},
    )
    trust_policy = fields.Dict(required=True)
    terraform = fields.String(required=True)
    aws_cli = fields.String(required=True)


class LinkIn(Strict):
    permission_set = text(64)
    region = fields.String(
        validate=Matches(_REGION), metadata={"description": "The one that the page begins with."}
    )
    expires_in = fields.Integer(
        strict=True,
        load_default=LINK_SECONDS,
        validate=validate.Range(LINK_SECONDS_MIN, LINK_SECONDS_MAX),
        metadata={"description": "Seconds until it stops working; 30 days unless given."},
    )


class LinkOut(Strict):
    id = fields.UUID(required=True)
    permission_set = fields.String(required=True)
    region = fields.String(required=True)
    created_at = time(required=True)
    expires_at = time(required=True)
    revoked_at = time(required=True, allow_none=True)


class LinkCreated(Strict):
    id = fields.UUID(required=True)
    url = fields.String(
        required=True,
        metadata={"description": "For the customer; shown this once, as only its hash is kept."},
    )
    expires_at = time(required=True)


class TemplateQuery(Strict):
    permission_set = text(64)


class PermissionSetOut(Strict):
    name = fields.String(required=True)
    version = fields.Integer(required=True)
    title = fields.String(required=True)
    description = fields.String(required=True)
    access = fields.String(required=True, validate=validate.OneOf(["read", "write"]))
    policy = fields.Dict(required=True, metadata={"description": "The IAM policy document."})


class PermissionSets(Strict):
    items = fields.List(fields.Nested(PermissionSetOut), required=True)
