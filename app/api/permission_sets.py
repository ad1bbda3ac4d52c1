"""The permission sets that the vendor can ask for."""

from typing import Any

from marshmallow import fields

from app.api.kit.blueprint import Blueprint, JsonObject, services
from app.api.kit.schemas import (
    Answer,
    Strict,
    date_time,
    described,
    digits,
    doc,
    flag,
    list_of,
    nested,
    nullable_string,
    number,
    one_of,
    policy,
    statement,
    string,
)
from app.permissions.difference_in_words import Difference

_STATEMENT = {"Sid": "ReadTags", "Effect": "Allow", "Action": ["tag:GetResources"], "Resource": "*"}
_WITH_WHY = [_STATEMENT | {"why": "Shows the tags."}]
# The types of the fields of statements, parameters and permission sets
_VALUE = (
    fields.String(),
    fields.List(fields.String()),
    fields.Dict(metadata={"component": "PolicyCondition"}),
    None,
)


class ManagedPolicyOut(Answer):
    name = string("SecurityAudit", "A policy that AWS keeps.")
    why = string("Reads the settings of all services.")


class PermissionSetParameter(Answer):
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
        statement(), metadata=doc(_WITH_WHY, "As in the policy, each with its reason.")
    )
    managed_policies = list_of(ManagedPolicyOut)
    parameters = list_of(PermissionSetParameter)
    policy = policy(
        {"Version": "2012-10-17", "Statement": [_STATEMENT]}, "The IAM policy document."
    )

    def read_policy(self, permission_set: Any) -> Any:
        return permission_set.policy(services.config.aws.broker.partition)


class PermissionSetVersionOut(Answer):
    version = number(1)
    published_at = date_time()
    access = one_of("PermissionSetAccess", "read", "write", attribute="content.access")
    statements = fields.List(statement(), attribute="content.statements", metadata=doc(_WITH_WHY))
    managed_policies = list_of(ManagedPolicyOut, attribute="content.managed_policies")
    parameters = list_of(PermissionSetParameter, attribute="content.parameters")


class PermissionSetVersions(Answer):
    items = list_of(PermissionSetVersionOut)


class DifferenceQuery(Strict):
    before = digits(1, required=True, data_key="from")
    after = digits(2, required=True, data_key="to")


class DifferenceSide(Answer):
    actions = fields.List(
        string("s3:ListAllMyBuckets"), metadata=described("Allowed on one side only.")
    )
    managed_policies = list_of(ManagedPolicyOut)
    statements = fields.List(statement(), metadata=doc(_WITH_WHY))
    parameters = list_of(PermissionSetParameter)


class DifferenceChange(Answer):
    sid = nullable_string(
        "ReadTags", "The statement; null for a parameter, and for the set's access."
    )
    why = nullable_string(
        "Shows the tags.", "The statement's reason in `to`; null where there is no `sid`."
    )
    parameter = nullable_string(None, "The parameter; null otherwise.")
    field = one_of("ChangedField", "Effect", "Action", "Resource", "Condition", "pattern", "access")
    before = fields.Raw(data_key="from", allow_none=True, metadata=doc("Deny", one_of=_VALUE))
    after = fields.Raw(data_key="to", allow_none=True, metadata=doc("Allow", one_of=_VALUE))


class DifferenceOut(Answer):
    before = number(1, data_key="from", attribute="before.version")
    after = number(2, data_key="to", attribute="after.version")
    added = nested(DifferenceSide)
    removed = nested(DifferenceSide)
    changed = list_of(DifferenceChange, "Fields of what both have.")


class PermissionSetsOut(Answer):
    items = list_of(PermissionSetOut)


bp = Blueprint("permission-sets", "What the vendor asks for.", noun="permission_set")

_ONE = "/v1/permission-sets/<name>"


@bp.operation("GET", "/v1/permission-sets", "connections:read", PermissionSetsOut)
def list_permission_sets() -> JsonObject:
    """List the permission sets that the vendor can ask for, in words and as policies."""
    return {"items": services.onboarding.sets.values()}


@bp.operation("GET", f"{_ONE}/versions", "connections:read", PermissionSetVersions)
def list_permission_set_versions(name: str) -> JsonObject:
    """List the published versions of a permission set, newest first."""
    return {"items": services.onboarding.versions.list(name)}


@bp.operation("GET", f"{_ONE}/difference", "connections:read", DifferenceOut, takes=DifferenceQuery)
def compare_permission_set_versions(query: JsonObject, name: str) -> Difference:
    """Compare two versions of a permission set."""
    return services.onboarding.versions.difference(name, **query)
