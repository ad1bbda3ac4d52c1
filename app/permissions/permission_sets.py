"""Permission sets: what the vendor asks for, as named and versioned data files.

The setting PERMISSION_SETS names their folder. Without it, Deputy uses the examples in
cloudformation/permission-sets. app/permissions/set_rules.py has the rules for a file.

A permission set's document is what a version asks for, in a canonical form without descriptions.
Publishing puts it into the templates' bucket, unless app/permissions/version_rules.py refuses it.
Two permission sets ask for the same if and only if their documents are equal. Published documents
are compared byte by byte, so the form must never change.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from app.config import ConfigError
from app.errors import ValidationFailedError
from app.ids import ROLE_NAME_MAX, TENANT_DIGITS
from app.permissions import set_files, set_rules
from app.permissions.set_rules import texts
from app.strict_json import JsonObject

FOLDER = Path(__file__).parent.parent.parent / "cloudformation" / "permission-sets"
_DEFAULT = "inventory"  # the default permission set in FOLDER
SET_TAG = "deputy:permission-set"  # a role's tag: the set's name and version
_COMPARED = ("Effect", "Action", "Resource", "Condition")
_LABEL = re.compile(r"([a-z0-9-]{1,50})@([1-9][0-9]{0,5})", re.ASCII)
# READS_ITSELF has the actions that the kit's policy read-itself allows on the role's own ARN. A
# proof does not use SIMULATION.
READS = ("iam:GetRole", "iam:GetRolePolicy", "iam:ListRolePolicies", "iam:ListAttachedRolePolicies")
SIMULATION = "iam:SimulatePrincipalPolicy"
READS_ITSELF = (*READS, SIMULATION)

# The statement of a permission set that has only AWS's own policies. An IAM policy must have at
# least one statement.
_NOTHING = {
    "Sid": "NothingOfItsOwn",
    "Effect": "Allow",
    "Action": "sts:GetCallerIdentity",
    "Resource": "*",
    "why": "Gives nothing, as everybody may ask AWS who they are; a policy needs a statement.",
}


@dataclass(frozen=True, slots=True)
class PermissionSet:
    """A permission set. docs/permission-sets.md explains the fields.

    `statements`: the statements of an IAM policy, each with a `why`. Their resources may contain
    `${AWS::Partition}` and the names of parameters.
    """

    name: str
    version: int
    title: str
    description: str
    access: Literal["read", "write"]
    statements: list[JsonObject]
    managed_policies: list[dict[str, str]]  # name, why
    parameters: list[dict[str, str]]  # name, pattern, description, example
    administrator: bool = False  # declared by the vendor; the page tells the customer

    @property
    def label(self) -> str:
        """The name and the version, as in the role's tag."""
        return f"{self.name}@{self.version}"

    def policy(self, partition: str) -> JsonObject:
        """Return the IAM policy document for a role in that partition.

        Variables for parameters stay in it.
        """
        statements = set_rules.without_reasons(self.statements)
        text = json.dumps(statements).replace("${AWS::Partition}", partition)
        return {"Version": "2012-10-17", "Statement": json.loads(text)}

    def managed_policy_arns(self, partition: str) -> list[str]:
        return [managed_policy_arn(partition, policy["name"]) for policy in self.managed_policies]

    def document(self) -> str:
        """Return the document of this permission set."""
        content = {
            "access": self.access,
            "managed_policies": sorted(policy["name"] for policy in self.managed_policies),
            "parameters": {each["name"]: each["pattern"] for each in self.parameters},
            "permission_set": self.name,
            "statements": {each["Sid"]: compared(each) for each in self.statements},
            "version": self.version,
        }
        return json.dumps(content, sort_keys=True, indent=1) + "\n"


class PermissionSets(dict[str, PermissionSet]):
    """The permission sets by name. `default`: the name of the one for requests that name none."""

    default: str

    def choose(self, name: str | None) -> PermissionSet:
        """Return the permission set of that name, or the default one for None.

        Raises ValidationFailedError, which lists the names.
        """
        if name is None:
            name = self.default
        if name not in self:
            raise ValidationFailedError(permission_set=f"Must be one of: {', '.join(self)}.")
        return self[name]

    @property
    def versions(self) -> dict[str, int]:
        """The current version of each permission set, by name."""
        return {name: permission_set.version for name, permission_set in self.items()}

    def is_outdated(self, name: str, version: int | None) -> bool:
        """Return whether this version is older than the current one. False for None."""
        return version is not None and name in self and version < self[name].version


def managed_policy_arn(partition: str, name: str) -> str:
    return f"arn:{partition}:iam::aws:policy/{name}"


def compared(statement: JsonObject) -> JsonObject:
    """Return the fields that decide what the statement allows, in a canonical form.

    A string equals a list of that string, and the order of a list does not count.
    """
    return {
        field: sorted({*texts(statement.get(field))}) or statement.get(field) or None
        for field in _COMPARED
    }


def read_document(text: str, name: str, version: int) -> PermissionSet | None:
    """Return the permission set that this document describes, without descriptions.

    Returns None if the text is not the document of a permission set with this name and version.
    """
    try:
        content = json.loads(text)
        statements, parameters = content["statements"].items(), content["parameters"].items()
        permission_set = PermissionSet(
            name=name,
            version=version,
            title="",
            description="",
            access=content["access"],
            statements=[{"Sid": sid, **fields} for sid, fields in statements],
            managed_policies=[{"name": name} for name in content["managed_policies"]],
            parameters=[{"name": name, "pattern": pattern} for name, pattern in parameters],
        )
        same = permission_set.access in ("read", "write") and permission_set.document() == text
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    return permission_set if same else None


def read_label(text: str) -> tuple[str, int] | None:
    """Return the name and the version in a label; None for other text."""
    match = _LABEL.fullmatch(text)
    return (match[1], int(match[2])) if match else None


def load(
    folder: Path | None = None, default: str | None = None, role_prefix: str = ""
) -> PermissionSets:
    """Return all permission sets of the folder.

    Raises ConfigError with every mistake that can be detected without AWS's list of actions.
    """
    files = set_files.read(folder or FOLDER)
    if mistakes := mistakes_in(files, folder, default, role_prefix):
        raise ConfigError("\n".join(mistakes))
    sets = PermissionSets({file.name: _set_of(file) for file in files})
    sets.default = _default(list(sets), folder, default)
    return sets


def mistakes_in(
    files: list[set_files.SetFile], folder: Path | None, default: str | None, role_prefix: str
) -> list[str]:
    """Return a line for each mistake in the files, in their names and in the default."""
    names = [file.name for file in files]
    lines = list(chain.from_iterable(file.mistakes for file in files))
    for name, number in Counter(names).items():
        if number > 1:
            lines.append(f"{name}: there are two files of this name.")
    if not names:
        lines.append(
            f"DEPUTY_PERMISSION_SETS: {folder or FOLDER} holds no permission set (a file with the"
            " ending .yaml, .yml or .json)."
        )
    elif _default(names, folder, default) not in names:
        lines.append(
            f"DEPUTY_DEFAULT_PERMISSION_SET: must name one of {', '.join(names)}, the set for"
            " requests that name none."
        )
    for name in names:
        # Also checked for the default set. Its name becomes part of its roles' names when another
        # set becomes the default (kit_names.py).
        too_long = len(role_prefix) + TENANT_DIGITS + 1 + len(name) - ROLE_NAME_MAX
        if too_long > 0:
            lines.append(
                f"{name}: name: Its roles' names would be {too_long} characters longer than the"
                f" {ROLE_NAME_MAX} that IAM takes. Give the file a shorter name, or shorten"
                " DEPUTY_ROLE_PREFIX."
            )
    return lines


def _default(names: list[str], folder: Path | None, default: str | None) -> str:
    """Return the default permission set's name; empty if the setting must name it and does not."""
    if default or folder is None:
        return default or _DEFAULT
    return names[0] if len(names) == 1 else ""


def _set_of(file: set_files.SetFile) -> PermissionSet:
    lists: JsonObject = {field: set_rules.mappings(file.data, field) for field in set_rules.LISTS}
    lists["statements"] = lists["statements"] or [_NOTHING]
    return PermissionSet(**file.data | lists | {"name": file.name})
