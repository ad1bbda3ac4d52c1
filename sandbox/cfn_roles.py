"""AWS::IAM::Role from a template: moto updates little of it, and ignores its managed policies."""

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

from moto.iam.exceptions import DeleteConflictException
from moto.iam.models import Role, iam_backends

from sandbox.errors import access_denied
from sandbox.identity import acting_in, context_of
from sandbox.policy import Request
from sandbox.roles import attachable

_role_create = Role.create_from_cloudformation_json.__func__
_role_delete = Role.delete_from_cloudformation_json.__func__


def policy_text(document: Any) -> str:
    """Return a policy as JSON. YAML reads an unquoted `Version: 2012-10-17` as a date."""
    if isinstance(document, str):
        return document
    return json.dumps(
        document, default=lambda value: value.isoformat() if isinstance(value, date) else str(value)
    )


def _create_role(
    cls: type, /, name: str, template: dict[str, Any], account_id: str, region_name: str, **_: Any
) -> Any:
    properties = template["Properties"]
    _ensure_may_create(account_id, properties)
    role = _role_create(cls, name, template, account_id, region_name)
    try:
        _apply_role(role, properties)
    except Exception:  # raised again after the incomplete role is removed
        iam_backends[account_id]["aws"].roles.pop(role.id)
        raise
    return role


def _ensure_may_create(account_id: str, properties: Mapping[str, Any]) -> None:
    """Raise AccessDenied unless the principal that launches the stack may create the role."""
    caller, permissions = acting_in(account_id)
    path, name = properties.get("Path", "/"), properties.get("RoleName", "")
    arn = f"arn:aws:iam::{account_id}:role{path}{name}"
    keys = context_of(caller, **{"iam:PermissionsBoundary": properties.get("PermissionsBoundary")})
    if why := permissions.why_not(Request("iam:CreateRole", arn, keys)):
        raise access_denied(caller.arn, "iam:CreateRole", arn, why)


def _update_role(
    cls: type,
    /,
    original_resource: Any,
    new_resource_name: str,
    cloudformation_json: dict[str, Any],
    **where: Any,
) -> Any:
    role, properties = original_resource, cloudformation_json["Properties"]
    if (
        properties.get("RoleName", role.name) != role.name
        or properties.get("Path", "/") != role.path
    ):
        name = properties.get("RoleName", new_resource_name)
        created = _create_role(cls, name, cloudformation_json, **where)
        created.stack_tags = role.__dict__.get("stack_tags", [])
        created.tags = [*created.tags, *created.stack_tags]
        Role.delete_from_cloudformation_json(role.name, cloudformation_json, **where)
        return created
    role.assume_role_policy_document = policy_text(properties["AssumeRolePolicyDocument"])
    role.description = properties.get("Description", "")
    role.permissions_boundary_arn = properties.get("PermissionsBoundary", "")
    role.tags = [*properties.get("Tags", []), *role.__dict__.get("stack_tags", ())]
    _apply_role(role, properties)
    return role


def _delete_role(
    cls: type, /, resource_name: str, template: Any, account_id: str, region_name: str
) -> None:
    """Delete the role with the policies that its template attached.

    Any other policy prevents the deletion, as at AWS. moto deletes inline policies with the role.
    """
    role = iam_backends[account_id]["aws"].get_role(resource_name)
    if role.policies.keys() - role.__dict__.get("template_policies", ()):
        raise DeleteConflictException("Cannot delete entity, must delete policies first.")
    for arn in role.__dict__.get("template_managed_policies", ()):
        role.managed_policies.pop(arn, None)
    _role_delete(cls, resource_name, template, account_id, region_name)


def _apply_role(role: Any, properties: Mapping[str, Any]) -> None:
    """Give the role its template's policies, and remove those of an earlier template."""
    role.max_session_duration = str(properties.get("MaxSessionDuration", 3600))
    for name in role.__dict__.get("template_policies", ()):
        role.policies.pop(name, None)
    for arn in role.__dict__.get("template_managed_policies", ()):
        role.managed_policies.pop(arn, None)
    role.template_policies = set()
    for policy in properties.get("Policies", []):
        role.policies[policy["PolicyName"]] = policy_text(policy["PolicyDocument"])
        role.template_policies.add(policy["PolicyName"])
    role.template_managed_policies = set(properties.get("ManagedPolicyArns", []))
    for arn in role.template_managed_policies:
        role.managed_policies[arn] = attachable(role.account_id, "Policy", arn)
    if role.permissions_boundary_arn:
        attachable(role.account_id, "Scope ARN:", role.permissions_boundary_arn)


def install() -> None:
    Role.create_from_cloudformation_json = classmethod(_create_role)
    Role.update_from_cloudformation_json = classmethod(_update_role)
    Role.delete_from_cloudformation_json = classmethod(_delete_role)
