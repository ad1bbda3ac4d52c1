"""The document of a permission set: what a version asks for, in a canonical form.

It has no descriptions. Publishing puts it into the templates' bucket. Two permission sets ask for
the same if and only if their documents are equal. Published documents are compared byte by byte, so
the form must never change.
"""

import json

from app.permissions.permission_sets import PermissionSet
from app.permissions.set_fields import JsonObject, texts

_COMPARED = ("Effect", "Action", "Resource", "Condition")


def document(permission_set: PermissionSet) -> str:
    """Return the document of a permission set."""
    content = {
        "access": permission_set.access,
        "managed_policies": sorted(policy["name"] for policy in permission_set.managed_policies),
        "parameters": {
            parameter["name"]: parameter["pattern"] for parameter in permission_set.parameters
        },
        "permission_set": permission_set.name,
        "statements": {
            statement["Sid"]: compared(statement) for statement in permission_set.statements
        },
        "version": permission_set.version,
    }
    return json.dumps(content, sort_keys=True, indent=1) + "\n"


def read_document(text: str, name: str, version: int) -> PermissionSet | None:
    """Return the permission set that this document describes, without descriptions.

    Returns None if the text is not the document of a permission set with this name and version.
    """
    try:
        content = json.loads(text)
        permission_set = PermissionSet(
            name=name,
            version=version,
            title="",
            description="",
            access=content["access"],
            statements=tuple(
                {"Sid": sid, **fields} for sid, fields in content["statements"].items()
            ),
            managed_policies=tuple({"name": name} for name in content["managed_policies"]),
            parameters=tuple(
                {"name": name, "pattern": pattern}
                for name, pattern in content["parameters"].items()
            ),
        )
        same = permission_set.access in ("read", "write") and document(permission_set) == text
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    return permission_set if same else None


def compared(statement: JsonObject) -> JsonObject:
    """Return the fields that decide what the statement allows, in a canonical form.

    A string equals a list of that string, and the order of a list does not count.
    """
    return {
        field: sorted({*texts(statement.get(field))}) or statement.get(field) or None
        for field in _COMPARED
    }
