"""The permission sets that the vendor can ask for."""

from typing import Any, ClassVar

from marshmallow import fields

from app.api.kit.blueprint import Blueprint, Scope, services
from app.api.kit.fields import Digits, Time, doc, flag, number, one_of, string
from app.api.kit.schemas import Answer, Strict
from app.permissions.difference import Difference

_STATEMENT = {"Sid": "ReadTags", "Effect": "Allow", "Action": ["tag:GetResources"], "Resource": "*"}
_WITH_WHY = [_STATEMENT | {"why": "Shows the tags."}]
_SIDE: dict[str, list[Any]] = {
    "actions": [],
    "managed_policies": [],
    "statements": [],
    "parameters": [],
}
_FIELD = {"field": "Resource", "from": "*", "to": ["arn:aws:s3:::acme-*"]}
_CHANGE = {"sid": "ReadTags", "why": "Shows the tags.", "parameter": None} | _FIELD
# The types of IAM's policy elements
_ANY = {"type": ["string", "array", "object", "null"], "items": {}, "additionalProperties": {}}
_NAME = {"name": "name", "in": "path", "schema": {"type": "string", "examples": ["inventory"]}}
_WORDS = ("name", "version", "title", "description", "access", "administrator")
_NAMES = (*_WORDS, "statements", "managed_policies", "parameters")


class ManagedPolicyOut(Answer):
    name = string("SecurityAudit", "A policy that AWS keeps.")
    why = string("Reads the settings of all services.")


class ParameterOut(Answer):
    name = string(
        "ReportBucket", "What stands in the policy as ${ReportBucket}, for the customer to fill in."
    )
    pattern = string("[a-z0-9.-]{3,63}")
    description = string("The bucket with your cost reports")
    example = string("acme-cost-reports")


class PermissionSetOut(Answer):
    name = string("inventory")
    version = number(1)
    title = string("Read the inventory")
    description = string("Lists what there is, and reads no content.")
    access = one_of("PermissionSetAccess", "read", "write")
    administrator = flag(
        "Whether the vendor says that with it a role can change permissions or act as other roles."
    )
    statements = fields.List(
        fields.Dict(), metadata=doc(_WITH_WHY, "As in the policy, each with its reason.")
    )
    managed_policies = fields.List(fields.Nested(ManagedPolicyOut))
    parameters = fields.List(fields.Nested(ParameterOut))
    policy = fields.Dict(
        metadata=doc(
            {"Version": "2012-10-17", "Statement": [_STATEMENT]}, "The IAM policy document."
        )
    )


class PermissionSetVersionOut(Answer):
    version = number(1)
    published_at = Time()
    access = one_of("PermissionSetAccess", "read", "write", attribute="content.access")
    statements = fields.List(fields.Dict(), attribute="content.statements", metadata=doc(_WITH_WHY))
    managed_policies = fields.List(
        fields.Nested(ManagedPolicyOut), attribute="content.managed_policies"
    )
    parameters = fields.List(fields.Nested(ParameterOut), attribute="content.parameters")


class PermissionSetVersions(Answer):
    items = fields.List(fields.Nested(PermissionSetVersionOut))


class DifferenceQuery(Strict):
    before = Digits(required=True, data_key="from", metadata=doc(1))
    after = Digits(required=True, data_key="to", metadata=doc(2))


class SideOut(Answer):
    actions = fields.List(
        string("s3:ListAllMyBuckets"), metadata={"description": "Allowed on one side only."}
    )
    managed_policies = fields.List(fields.Nested(ManagedPolicyOut))
    statements = fields.List(fields.Dict(), metadata=doc(_WITH_WHY))
    parameters = fields.List(fields.Nested(ParameterOut))


class ChangeOut(Answer):
    sid = string(
        "ReadTags",
        "The statement; null for a parameter, and for the set's access.",
        allow_none=True,
    )
    why = string(
        "Shows the tags.",
        "The statement's reason in `to`; null where there is no `sid`.",
        allow_none=True,
    )
    parameter = string("ReportBucket", "The parameter; null otherwise.", allow_none=True)
    field = one_of("ChangedField", "Effect", "Action", "Resource", "Condition", "pattern", "access")
    before = fields.Raw(data_key="from", allow_none=True, metadata=doc("*", openapi=_ANY))
    after = fields.Raw(
        data_key="to", allow_none=True, metadata=doc(["arn:aws:s3:::acme-*"], openapi=_ANY)
    )


class DifferenceOut(Answer):
    EXAMPLE: ClassVar = {"from": 1, "to": 2, "added": _SIDE, "removed": _SIDE, "changed": [_CHANGE]}

    before = number(1, data_key="from", attribute="before.version")
    after = number(2, data_key="to", attribute="after.version")
    added = fields.Nested(SideOut)
    removed = fields.Nested(SideOut)
    changed = fields.List(
        fields.Nested(ChangeOut), metadata={"description": "Fields of what both have."}
    )


class PermissionSetsSchema(Answer):
    items = fields.List(fields.Nested(PermissionSetOut))


bp = Blueprint(
    "permission-sets", __name__, noun="permission_set", description="What the vendor asks for."
)

_ONE = "/v1/permission-sets/<name>"


@bp.operation("GET", "/v1/permission-sets", Scope.CONNECTIONS_READ, PermissionSetsSchema)
def list_permission_sets() -> dict[str, Any]:
    """List the permission sets that the vendor can ask for, in words and as policies."""
    sets, partition = services().onboarding.sets.values(), services().config.aws.broker.partition
    return {
        "items": [
            {name: getattr(it, name) for name in _NAMES} | {"policy": it.policy(partition)}
            for it in sets
        ]
    }


@bp.operation(
    "GET", f"{_ONE}/versions", Scope.CONNECTIONS_READ, PermissionSetVersions, parameters=[_NAME]
)
def list_versions(name: str) -> dict[str, Any]:
    """List the published versions of a permission set, newest first."""
    return {"items": services().onboarding.versions.list(name)}


@bp.operation(
    "GET",
    f"{_ONE}/difference",
    Scope.CONNECTIONS_READ,
    DifferenceOut,
    takes=DifferenceQuery,
    parameters=[_NAME],
)
def get_difference(query: dict[str, Any], name: str) -> Difference:
    """Compare two versions of a permission set."""
    return services().onboarding.versions.difference(name, **query)
