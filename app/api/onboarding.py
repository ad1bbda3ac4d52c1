"""The onboarding kit and its templates."""

from uuid import UUID

from flask import Response
from marshmallow import fields

from app.api.kit.authentication import public
from app.api.kit.blueprint import Blueprint, JsonObject, principal, services
from app.api.kit.schemas import (
    EXTERNAL_ID,
    NEXT_EXTERNAL_ID,
    Answer,
    Strict,
    doc,
    flag,
    line,
    matching,
    nested,
    number,
    string,
)
from app.config import Broker
from app.onboarding import kit as onboarding
from app.settings.checks import REGION

_TEMPLATE = "https://s3.eu-west-1.amazonaws.com/example-deputy-templates/templates/customer-role/inventory/0a1b.yaml"
_HOME = "https://eu-west-1.console.aws.amazon.com/cloudformation/home?region=eu-west-1"
_CONSOLE = f"{_HOME}#/stacks/create/review?"
_BROKER = "arn:aws:iam::111122223333:role/DeputyBroker"


class TemplateQuery(Strict):
    permission_set = line(64, "inventory")


class KitQuery(TemplateQuery):
    region = matching(REGION, "eu-west-1")


class StackUpdateOut(Answer):
    console_url = string(f"{_HOME}#/stacks?filteringText=deputy-7a2b6c18")
    aws_cli = string("aws cloudformation update-stack ...")


class KitUpdateOut(Answer):
    stack = fields.Nested(StackUpdateOut)
    stack_set = nested(StackUpdateOut, "The stack of a whole organisation.")
    terraform = string('resource "aws_iam_role" "deputy" { ... }')
    aws_cli = string("#!/bin/sh\n...")


class KitSchema(Answer):
    external_id = string(EXTERNAL_ID)
    next_external_id = string(
        NEXT_EXTERNAL_ID, "During a rotation the one that roles accept as well.", allow_none=True
    )
    broker_principal_arn = string(_BROKER)
    role_name = string("deputy-7a2b6c18")
    stack_name = string("deputy-7a2b6c18")
    region = string("eu-west-1")
    partition = string("aws")
    permission_set = string("inventory")
    permission_set_version = number(1)
    template_url = string(_TEMPLATE)
    template_version = string("0a1b2c3d4e5f6071")
    launch_stack_url = string(
        f"{_CONSOLE}templateURL=...",
        "The launch link: AWS's console, where only the permission set's parameters are to be"
        " filled in.",
    )
    organization_launch_url = string(
        f"{_CONSOLE}templateURL=...",
        "The launch link for a whole AWS organisation. Open it in the management account or a"
        " delegated administrator's, and fill in the organizational units and the permission set's"
        " parameters there.",
    )
    registers_itself = flag(
        "Whether a stack launched by these links tells Deputy the ARN of its role."
    )
    trust_policy = fields.Dict(
        metadata=doc(onboarding.trust_policy(Broker.parse(_BROKER), EXTERNAL_ID))
    )
    terraform = string('resource "aws_iam_role" "deputy" { ... }')
    aws_cli = string("#!/bin/sh\n...")
    update = nested(
        KitUpdateOut, "How a role that is there already is brought to what this kit asks for."
    )


bp = Blueprint("onboarding", "What a customer needs to create the role.", noun="onboarding")


@bp.operation(
    "GET", "/v1/tenants/<uuid:tenant_id>/onboarding", "connections:read", KitSchema, takes=KitQuery
)
def get_kit(query: JsonObject, tenant_id: UUID) -> onboarding.Kit:
    """Read the onboarding kit: link, template, trust policy, Terraform and AWS CLI."""
    return services.onboarding.kit(principal(), tenant_id, **query)


_answers_template = bp.response(
    200, {"type": "string"}, content_type="text/yaml", description="The CloudFormation template"
)


@bp.route("/v1/templates/customer-role.yaml", methods=["GET"])
@public
@bp.arguments(TemplateQuery, location="query")
@_answers_template
def get_template(query: JsonObject) -> Response:
    """Read the CloudFormation template before launching it."""
    template = services.onboarding.template(**query)
    return _yaml(template.body, template.version)


@bp.route("/v1/templates/customer-org.yaml", methods=["GET"])
@public
@bp.arguments(TemplateQuery, location="query")
@_answers_template
def get_organization_template(query: JsonObject) -> Response:
    """Read the template that creates the role in an organisation's accounts."""
    template = services.onboarding.organization_template(**query)
    return _yaml(template.body, template.version)


def _yaml(body: str, version: str) -> Response:
    headers = {"X-Template-Version": version}
    return Response(body, content_type="text/yaml; charset=utf-8", headers=headers)
