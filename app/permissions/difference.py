"""What a permission set asks for beside another: in the API's form, and in words for the customer's administrator."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.permissions.permission_sets import PermissionSet
from app.permissions.set_files import texts

_COMPARED = ("Effect", "Action", "Resource", "Condition")


@dataclass(frozen=True, slots=True)
class Side:
    """What one of the two has, and the other has not."""

    actions: list[str]
    managed_policies: list[dict[str, str]]
    statements: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Change:
    """A field of a statement that both have under one Sid."""

    sid: str
    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Difference:
    before: PermissionSet
    after: PermissionSet
    added: Side
    removed: Side
    changed: list[Change]

    def words(self) -> Iterator[str]:
        """A sentence for each thing that differs."""
        for verb, side in (("May", self.added), ("May no longer", self.removed)):
            if side.actions:
                yield f"{verb} use {', '.join(side.actions)}."
        for verb, side in (("Adds", self.added), ("Takes away", self.removed)):
            yield from (f"{verb} AWS's own policy {one['name']}: {one['why']}" for one in side.managed_policies)
            yield from (f"{verb} the statement {one['Sid']}: {one['why']}" for one in side.statements)
        for change in self.changed:
            if change.field != "Action":  # told above
                yield f"{change.sid}: its {change.field} changes from {_shown(change.before)} to {_shown(change.after)}."


def difference(before: PermissionSet, after: PermissionSet) -> Difference:
    old, new = ({one["Sid"]: one for one in side.statements} for side in (before, after))
    changed = [
        Change(sid, field, old[sid].get(field), statement.get(field))
        for sid, statement in new.items()
        for field in _COMPARED
        if sid in old and _plain(old[sid].get(field)) != _plain(statement.get(field))
    ]
    return Difference(before, after, _beyond(after, before), _beyond(before, after), changed)


def asks_for(chosen: PermissionSet) -> Any:
    """What makes a version: two sets that ask for the same differ in words alone."""
    statements = [{field: _plain(one.get(field)) for field in ("Sid", *_COMPARED)} for one in chosen.statements]
    parameters = [(one["name"], one["pattern"]) for one in chosen.parameters]
    return chosen.access, statements, sorted(one["name"] for one in chosen.managed_policies), sorted(parameters)


def _beyond(one: PermissionSet, other: PermissionSet) -> Side:
    sids, names = {s["Sid"] for s in other.statements}, {p["name"] for p in other.managed_policies}
    return Side(
        sorted(_actions(one) - _actions(other)),
        [policy for policy in one.managed_policies if policy["name"] not in names],
        [statement for statement in one.statements if statement["Sid"] not in sids],
    )


def _actions(chosen: PermissionSet) -> set[str]:
    allowing = [one for one in chosen.statements if one["Effect"] == "Allow"]
    return {action for one in allowing for action in texts(one["Action"])}


def _plain(value: Any) -> Any:
    """One text is the list of it, in any order."""
    return sorted(texts(value)) or value


def _shown(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
