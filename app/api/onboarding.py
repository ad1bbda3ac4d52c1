"""The onboarding kit, its templates, and the permission sets."""

from typing import Any
from uuid import UUID

from flask import Response

from app.access.callers import Scope
from app.api.onboarding_schemas import Kit, KitQuery, PermissionSets, TemplateQuery
from app.http.authentication import public, requires
from app.http.blueprint import Blueprint
from app.http.current import caller, services
from app.onboarding import kit as onboarding

bp = Blueprint("onboarding", __name__, noun="onboarding", description="What a customer needs to create the role.")


@bp.route("/v1/tenants/<uuid:tenant_id>/onboarding", methods=["GET"])
@requires(Scope.CONNECTIONS_READ, fails=[404])
@bp.arguments(KitQuery, location="query")
@bp.response(200, Kit)
def get_kit(query: dict[str, Any], tenant_id: UUID) -> onboarding.Kit:
    """The onboarding kit: launch link, template, trust policy, Terraform and AWS CLI"""
    return services().onboarding.kit(caller(), tenant_id, **query)


@bp.route("/v1/templates/customer-role.yaml", methods=["GET"])
@public
@bp.arguments(TemplateQuery, location="query")
@bp.response(200, {"type": "string"}, content_type="text/yaml", description="The CloudFormation template")
def get_template(query: dict[str, Any]) -> Response:
    """The CloudFormation template, to read before launching it"""
    template = services().onboarding.template(**query)
    return _yaml(template.body, template.version)


@bp.route("/v1/templates/customer-org.yaml", methods=["GET"])
@public
@bp.arguments(TemplateQuery, location="query")
@bp.response(200, {"type": "string"}, content_type="text/yaml", description="The CloudFormation template")
def get_organization_template(query: dict[str, Any]) -> Response:
    """The template that creates the role in every account of an organisation's units"""
    template = services().onboarding.organization_template(**query)
    return _yaml(template.body, template.version)


def _yaml(body: str, version: str) -> Response:
    return Response(body, content_type="text/yaml; charset=utf-8", headers={"X-Template-Version": version})


@bp.route("/v1/permission-sets", methods=["GET"])
@requires(Scope.CONNECTIONS_READ)
@bp.response(200, PermissionSets)
def list_permission_sets() -> dict[str, Any]:
    """List the permission sets: what the vendor can ask for, in words and as policies"""
    found = services().onboarding.permission_sets()
    names = ("name", "version", "title", "description", "access")
    return {"items": [{name: getattr(chosen, name) for name in names} | {"policy": policy} for chosen, policy in found]}
