"""Permission sets: what the vendor asks for, as named and versioned data files in cloudformation/permission-sets.

To change what is asked for, edit or add a file there and publish. The tests refuse `*` on `*`, and write actions in a
set whose access is `read`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from app.errors import ValidationFailedError

DEFAULT = "inventory"
# What the kit's policy read-itself allows on the role's own ARN. A proof makes no use of the last one.
READS = ("iam:GetRole", "iam:GetRolePolicy", "iam:ListRolePolicies", "iam:ListAttachedRolePolicies")
SIMULATION = "iam:SimulatePrincipalPolicy"
READS_ITSELF = (*READS, SIMULATION)
_FOLDER = Path(__file__).parent.parent.parent / "cloudformation" / "permission-sets"


@dataclass(frozen=True, slots=True)
class PermissionSet:
    """`statements` are those of an IAM policy; their resources may hold CloudFormation's `${AWS::Partition}`."""

    name: str
    version: int
    title: str
    description: str
    access: Literal["read", "write"]
    statements: tuple[dict[str, Any], ...]

    def policy(self, partition: str) -> dict[str, Any]:
        """The IAM policy document as the role in that partition has it."""
        text = json.dumps(self.statements).replace("${AWS::Partition}", partition)
        return {"Version": "2012-10-17", "Statement": json.loads(text)}


PermissionSets = Mapping[str, PermissionSet]  # by name


def load(folder: Path = _FOLDER) -> PermissionSets:
    """All sets by name. Raises ValueError when a file's name is not its set's, or the default is missing."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["name"] != path.stem:
            raise ValueError(f"{path.name} must hold the permission set {path.stem}, not {data['name']}")
        found[path.stem] = PermissionSet(**(data | {"statements": tuple(data["statements"])}))
    if DEFAULT not in found:
        raise ValueError(f"The default permission set {DEFAULT}.json is missing in {folder}")
    return found


def choose(sets: PermissionSets, name: str | None) -> PermissionSet:
    """The set of that name, or the default set. Raises ValidationFailedError, which lists the names."""
    chosen = sets.get(name or DEFAULT)
    if chosen is None:
        raise ValidationFailedError({"permission_set": [f"Must be one of: {', '.join(sets)}."]})
    return chosen
