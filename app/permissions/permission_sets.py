"""Permission sets: what the vendor asks for, as named and versioned data files.

They are in the folder that PERMISSION_SETS names, or in cloudformation/permission-sets, whose sets
are examples. app/permissions/set_files.py has the rules for a file.
"""

import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from app.config import ConfigError
from app.errors import ValidationFailedError
from app.ids import ROLE_NAME_MAX, TENANT_DIGITS
from app.permissions import set_files

FOLDER = Path(__file__).parent.parent.parent / "cloudformation" / "permission-sets"
_DEFAULT = "inventory"  # a set in the folder above
SET_TAG = "deputy:permission-set"  # a role's tag: the set's name and version
_LABEL = re.compile(r"([a-z0-9-]{1,50})@([1-9][0-9]{0,5})", re.ASCII)
# The actions that the kit's policy read-itself allows on the role's own ARN. A proof does not use
# the last one.
READS = ("iam:GetRole", "iam:GetRolePolicy", "iam:ListRolePolicies", "iam:ListAttachedRolePolicies")
SIMULATION = "iam:SimulatePrincipalPolicy"
READS_ITSELF = (*READS, SIMULATION)

# A policy needs a statement. A set with only AWS's own policies has none.
_WHY = "Gives nothing, as everybody may ask AWS who they are; a policy needs a statement."
_ASKS = {"Effect": "Allow", "Action": "sts:GetCallerIdentity", "Resource": "*"}
_NOTHING = {"Sid": "NothingOfItsOwn"} | _ASKS | {"why": _WHY}


@dataclass(frozen=True, slots=True)
class PermissionSet:
    """A permission set. docs/permission-sets.md explains the fields.

    `statements` are those of an IAM policy, each with a `why`. Their resources may contain
    `${AWS::Partition}` and the names of parameters.
    """

    name: str
    version: int
    title: str
    description: str
    access: Literal["read", "write"]
    statements: tuple[dict[str, Any], ...] = ()
    managed_policies: tuple[dict[str, str], ...] = ()  # name, why
    parameters: tuple[dict[str, str], ...] = ()  # name, pattern, description, example
    administrator: bool = False  # declared by the vendor; the page tells the customer

    @property
    def label(self) -> str:
        """The name and the version, as in the role's tag."""
        return f"{self.name}@{self.version}"

    def policy(self, partition: str) -> dict[str, Any]:
        """Return the IAM policy document for a role in that partition.

        The parameters' names stay in it.
        """
        found = [
            {key: value for key, value in one.items() if key != "why"} for one in self.statements
        ]
        text = json.dumps(found).replace("${AWS::Partition}", partition)
        return {"Version": "2012-10-17", "Statement": json.loads(text)}

    def managed_policy_arns(self, partition: str) -> list[str]:
        return [managed_policy_arn(partition, policy["name"]) for policy in self.managed_policies]


class PermissionSets(dict[str, PermissionSet]):
    """The sets by name. `default` names the set for requests that name none."""

    default: str

    def choose(self, name: str | None) -> PermissionSet:
        """Return the set of that name, or the default set for None.

        Raises ValidationFailedError, which lists the names.
        """
        chosen = self.get(self.default if name is None else name)
        if chosen is None:
            raise ValidationFailedError({"permission_set": [f"Must be one of: {', '.join(self)}."]})
        return chosen

    def is_outdated(self, name: str, version: int | None) -> bool:
        """Return whether that version of the set is older than the current one; False for None."""
        return version is not None and name in self and version < self[name].version

    def suffix(self, name: str) -> str:
        """Return the default suffix of the names of the set's roles and stacks.

        It is empty for the default set.
        """
        return "" if name == self.default else f"-{name}"


def managed_policy_arn(partition: str, name: str) -> str:
    return f"arn:{partition}:iam::aws:policy/{name}"


def read_label(text: str) -> tuple[str, int] | None:
    """Return the name and the version in a label; None for other text."""
    found = _LABEL.fullmatch(text)
    return (found[1], int(found[2])) if found else None


def load(
    folder: Path | None = None, default: str | None = None, role_prefix: str = ""
) -> PermissionSets:
    """Return all sets of the folder.

    Raises ConfigError with every mistake that can be detected without AWS's list of actions.
    """
    found = set_files.read(folder or FOLDER)
    if mistakes := mistakes_in(found, folder, default, role_prefix):
        raise ConfigError("\n".join(mistakes))
    sets = PermissionSets({file.name: _set_of(file) for file in found})
    sets.default = _default(list(sets), folder, default) or ""
    return sets


def mistakes_in(
    found: list[set_files.SetFile], folder: Path | None, default: str | None, role_prefix: str
) -> list[str]:
    """Return the mistakes in the files and in the set of names, a line each."""
    names = [file.name for file in found]
    lines = [line for file in found for line in file.mistakes]
    lines += [
        f"{name}: there are two files of this name."
        for name in sorted({n for n in names if names.count(n) > 1})
    ]
    chosen = _default(names, folder, default)
    if chosen is None:
        place = f"DEPUTY_PERMISSION_SETS: {folder or FOLDER}"
        lines.append(
            f"DEPUTY_DEFAULT_PERMISSION_SET: must name one of {', '.join(names)}, the set for"
            " requests that name none."
            if names
            else f"{place} holds no permission set (a file with the ending .yaml, .yml or .json)."
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


def _default(names: list[str], folder: Path | None, default: str | None) -> str | None:
    wanted = default or (_DEFAULT if folder is None else names[0] if len(names) == 1 else None)
    return wanted if wanted in names else None


def _set_of(file: set_files.SetFile) -> PermissionSet:
    names = "statements", "managed_policies", "parameters"
    lists: dict[str, Any] = {name: tuple(file.data.get(name, ())) for name in names}
    lists["statements"] = lists["statements"] or (_NOTHING,)
    known = {field.name for field in fields(PermissionSet)}
    return PermissionSet(
        **({k: v for k, v in file.data.items() if k in known} | lists | {"name": file.name})
    )
