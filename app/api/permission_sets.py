"""The permission sets: what the vendor asks for."""

from typing import Any

from marshmallow import fields

from app.access.callers import Scope
from app.http.authentication import requires
from app.http.blueprint import Blueprint
from app.http.current import services
from app.http.fields import doc, one_of, string
from app.http.schemas import Answer

_STATEMENT = {"Sid": "ReadTags", "Effect": "Allow", "Action": ["tag:GetResources"], "Resource": "*"}
_NAMES = ("name", "version", "title", "description", "access", "statements", "managed_policies", "parameters")


class ManagedPolicyOut(Answer):
    name = string("SecurityAudit", "A policy that AWS keeps.")
    why = string("Reads the settings of all services.")


class ParameterOut(Answer):
    name = string("ReportBucket", "What stands in the policy as ${ReportBucket}, for the customer to fill in.")
    pattern = string("[a-z0-9.-]{3,63}")
    description = string("The bucket with your cost reports")
    example = string("acme-cost-reports")


class PermissionSetOut(Answer):
    name = string("inventory")
    version = fields.Integer(metadata=doc(1))
    title = string("Read the inventory")
    description = string("Lists what there is, and reads no content.")
    access = one_of("PermissionSetAccess", "read", "write")
    statements = fields.List(
        fields.Dict(),
        metadata=doc([_STATEMENT | {"why": "Shows the tags."}], "As in the policy, each with its reason."),
    )
    managed_policies = fields.List(fields.Nested(ManagedPolicyOut))
    parameters = fields.List(fields.Nested(ParameterOut))
    policy = fields.Dict(metadata=doc({"Version": "2012-10-17", "Statement": [_STATEMENT]}, "The IAM policy document."))


class PermissionSets(Answer):
    items = fields.List(fields.Nested(PermissionSetOut))


bp = Blueprint("permission-sets", __name__, noun="permission set", description="What the vendor asks for.")


@bp.route("/v1/permission-sets", methods=["GET"])
@requires(Scope.CONNECTIONS_READ)
@bp.response(200, PermissionSets)
def list_permission_sets() -> dict[str, Any]:
    """List the permission sets: what the vendor can ask for, in words and as policies"""
    found = services().onboarding.permission_sets()
    return {"items": [{name: getattr(one, name) for name in _NAMES} | {"policy": policy} for one, policy in found]}
