"""The difference between two permission sets.

It has fields for the API, and sentences for the customer's administrator.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from operator import attrgetter
from typing import Any, NamedTuple

from app.permissions.permission_sets import PermissionSet, compared
from app.permissions.set_rules import texts
from app.strict_json import JsonObject


class Side(NamedTuple):
    """The content that only one of the two permission sets has."""

    # Actions that only this permission set allows. An action that both allow, but on other
    # resources, is in a Change instead.
    actions: list[str]
    managed_policies: list[dict[str, str]]
    statements: list[JsonObject]
    parameters: list[dict[str, str]]


class Change(NamedTuple):
    """A field whose value differs between the two permission sets.

    It is a field of a statement that both have under the same Sid, of a parameter that both have,
    or of the permission set itself. `old` and `new` are that statement, parameter or set.
    """

    field: str
    old: JsonObject
    new: JsonObject
    sid: str | None = None
    parameter: str | None = None

    @property
    def before(self) -> Any:
        return self.old.get(self.field)

    @property
    def after(self) -> Any:
        return self.new.get(self.field)

    @property
    def why(self) -> str | None:
        """The reason in the new statement."""
        return self.new.get("why")

    @property
    def subject(self) -> str:
        """The start of the text about all changes of the same statement or parameter."""
        if self.sid:
            return f"{self.sid}: {self.why} "
        return f"{self.parameter}: " if self.parameter else ""

    def words(self) -> Iterator[str]:
        """Yield the sentences about this change, without its subject."""
        if self.field not in {"Action", "Resource"}:
            before, after = _shown(self.before), _shown(self.after)
            yield f"Its {self.field} changes from {before} to {after}."
            return
        old, new = set(texts(self.before)), set(texts(self.after))
        for verb, statement, values in (
            ("also", self.new, new - old),
            ("no longer", self.old, old - new),
        ):
            if values:
                does = _does(statement) if self.field == "Action" else "applies to"
                yield f"It {verb} {does} {', '.join(sorted(values))}."


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between two permission sets."""

    before: PermissionSet
    after: PermissionSet
    added: Side
    removed: Side
    changed: list[Change]

    def words(self) -> Iterator[str]:
        """Yield a sentence for each difference; none if both permission sets ask for the same."""
        yield from self._of_one_side()
        for subject, changes in groupby(self.changed, attrgetter("subject")):
            yield subject + " ".join(chain(*map(Change.words, changes)))

    def _of_one_side(self) -> Iterator[str]:
        unnamed = self._unnamed_actions()
        for verb, side in (("May", self.added), ("May no longer", self.removed)):
            if actions := unnamed.intersection(side.actions):
                yield f"{verb} use {', '.join(sorted(actions))}."
        for verb, side in (("Adds", self.added), ("Takes away", self.removed)):
            for policy in side.managed_policies:
                yield f"{verb} AWS's own policy {policy['name']}: {policy['why']}"
            for statement in side.statements:
                content = _content(statement)
                yield f"{verb} the statement {statement['Sid']}: {statement['why']} {content}"
        for verb, side in (("Asks", self.added), ("No longer asks", self.removed)):
            for parameter in side.parameters:
                yield f"{verb} for {parameter['name']}: {parameter['description']}"

    def _unnamed_actions(self) -> set[str]:
        """Return the actions that no sentence about a statement names.

        They are in a statement whose Effect changed, both before and after the change.
        """
        unnamed: set[str] = set()
        for change in self.changed:
            if change.field == "Effect":
                unnamed |= {*texts(change.old["Action"])} & {*texts(change.new["Action"])}
        return unnamed


def difference(before: PermissionSet, after: PermissionSet) -> Difference:
    """Return the difference between two permission sets."""
    changed = []
    if before.access != after.access:
        changed.append(Change("access", {"access": before.access}, {"access": after.access}))
    for sid, old, new in _in_both(before.statements, after.statements):
        compared_before = compared(old)
        for field, value in compared(new).items():
            if _exact(compared_before[field]) != _exact(value):
                changed.append(Change(field, old, new, sid=sid))
    for name, old, new in _in_both(before.parameters, after.parameters):
        if old["pattern"] != new["pattern"]:
            changed.append(Change("pattern", old, new, parameter=name))
    return Difference(before, after, _beyond(after, before), _beyond(before, after), changed)


_Items = Iterable[JsonObject]


def _by_name(items: _Items) -> dict[Any, JsonObject]:
    """Return statements by their Sid, and parameters and policies by their name."""
    return {item.get("Sid") or item["name"]: item for item in items}


def _in_both(before: _Items, after: _Items) -> Iterator[tuple[str, JsonObject, JsonObject]]:
    """Yield (name, old item, new item) for each name that both lists have."""
    old = _by_name(before)
    for name, item in _by_name(after).items():
        if name in old:
            yield name, old[name], item


def _only(items: _Items, others: _Items) -> list[JsonObject]:
    names = _by_name(others)
    return [item for name, item in _by_name(items).items() if name not in names]


def _beyond(one_side: PermissionSet, other: PermissionSet) -> Side:
    return Side(
        sorted(_actions(one_side) - _actions(other)),
        _only(one_side.managed_policies, other.managed_policies),
        _only(one_side.statements, other.statements),
        _only(one_side.parameters, other.parameters),
    )


def _actions(permission_set: PermissionSet) -> set[str]:
    actions: set[str] = set()
    for statement in permission_set.statements:
        if statement["Effect"] == "Allow":
            actions.update(texts(statement["Action"]))
    return actions


def _exact(value: Any) -> str:
    """Return the value as JSON, in which true differs from 1."""
    return json.dumps(value, sort_keys=True)


def _content(statement: JsonObject) -> str:
    actions, resources = texts(statement["Action"]), texts(statement["Resource"])
    sentence = f"It {_does(statement)} {', '.join(actions)} on {', '.join(resources)}"
    if condition := statement.get("Condition"):
        sentence += f" if {_shown(condition)}"
    return f"{sentence}."


def _does(statement: JsonObject) -> str:
    return "allows" if statement["Effect"] == "Allow" else "denies"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value) if value else "none"
