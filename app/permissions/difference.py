"""The difference between two permission sets.

It has the API's form, and sentences for the customer's administrator.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from app.permissions.permission_sets import PermissionSet
from app.permissions.set_document import compared
from app.permissions.set_files import texts


class Side(NamedTuple):
    """The content that only one of the two sets has."""

    # `actions`: those that only this set allows. If an action is allowed in more places than
    # before, the change of a field shows it.
    actions: list[str]
    managed_policies: list[dict[str, str]]
    statements: list[dict[str, Any]]
    parameters: list[dict[str, str]]


class Change(NamedTuple):
    """A change of a field.

    The field belongs to a statement that both sets have under one Sid, to a parameter that both
    have, or to the set itself.
    """

    field: str
    before: Any
    after: Any
    sid: str | None = None
    parameter: str | None = None
    why: str | None = None  # the statement's reason, as it is now


@dataclass(frozen=True, slots=True)
class Difference:
    before: PermissionSet
    after: PermissionSet
    added: Side
    removed: Side
    changed: list[Change]

    def words(self) -> Iterator[str]:
        """Return a sentence for each difference. Sets that ask for the same have none."""
        for verb, side in (("May", self.added), ("May no longer", self.removed)):
            if actions := self._unnamed_actions(side):
                yield f"{verb} use {', '.join(actions)}."
        for verb, side in (("Adds", self.added), ("Takes away", self.removed)):
            yield from (
                f"{verb} AWS's own policy {one['name']}: {one['why']}"
                for one in side.managed_policies
            )
            yield from (
                f"{verb} the statement {one['Sid']}: {one['why']} {_content(one)}"
                for one in side.statements
            )
        for verb, side in (("Asks", self.added), ("No longer asks", self.removed)):
            yield from (
                f"{verb} for {one['name']}: {one['description']}" for one in side.parameters
            )
        for (sid, parameter), changes in groupby(
            self.changed, lambda change: (change.sid, change.parameter)
        ):
            fields = list(changes)
            subject = f"{sid}: {fields[0].why} " if sid else f"{parameter}: " if parameter else ""
            yield subject + " ".join(
                sentence for change in fields for sentence in self._sentences_about(change)
            )

    def _unnamed_actions(self, side: Side) -> list[str]:
        """Return the side's actions that no sentence about a statement names.

        They are in statements whose Effect changed, before and after the change.
        """
        before, after = (_by_name(each.statements, "Sid") for each in (self.before, self.after))
        unnamed: set[str] = set()
        for change in self.changed:
            if change.field == "Effect":
                old, new = before[change.sid]["Action"], after[change.sid]["Action"]
                unnamed |= {*texts(old)} & {*texts(new)}
        return sorted(unnamed & {*side.actions})

    def _sentences_about(self, change: Change) -> Iterator[str]:
        if change.field not in {"Action", "Resource"}:
            yield (
                f"Its {change.field} changes from {_shown(change.before)} to"
                f" {_shown(change.after)}."
            )
            return
        before, after = texts(change.before), texts(change.after)
        for verb, chosen, values in (
            ("also", self.after, after),
            ("no longer", self.before, before),
        ):
            if only := sorted({*values} - ({*before} & {*after})):
                statement = _by_name(chosen.statements, "Sid")[change.sid]
                does = "applies to" if change.field == "Resource" else _does(statement)
                yield f"It {verb} {does} {', '.join(only)}."


def difference(before: PermissionSet, after: PermissionSet) -> Difference:
    access = (
        [Change("access", before.access, after.access)] if before.access != after.access else []
    )
    old, new = (_by_name(side.statements, "Sid") for side in (before, after))
    fields = [
        Change(field, old[sid].get(field), new[sid].get(field), sid=sid, why=new[sid]["why"])
        for sid in new
        if sid in old
        for field, value in compared(new[sid]).items()
        if _exact(compared(old[sid])[field]) != _exact(value)
    ]
    known, asked = (_by_name(side.parameters, "name") for side in (before, after))
    patterns = [
        Change("pattern", known[name]["pattern"], asked[name]["pattern"], parameter=name)
        for name in asked
        if name in known and known[name]["pattern"] != asked[name]["pattern"]
    ]
    return Difference(
        before, after, _beyond(after, before), _beyond(before, after), [*access, *fields, *patterns]
    )


def _by_name(found: Iterable[dict[str, Any]], key: str) -> dict[Any, dict[str, Any]]:
    return {one[key]: one for one in found}


def _beyond(one: PermissionSet, other: PermissionSet) -> Side:
    def only(
        found: Iterable[dict[str, Any]], others: Iterable[dict[str, Any]], key: str
    ) -> list[dict[str, Any]]:
        names = _by_name(others, key)
        return [item for item in found if item[key] not in names]

    return Side(
        sorted(_actions(one) - _actions(other)),
        only(one.managed_policies, other.managed_policies, "name"),
        only(one.statements, other.statements, "Sid"),
        only(one.parameters, other.parameters, "name"),
    )


def _actions(chosen: PermissionSet) -> set[str]:
    allowing = [one for one in chosen.statements if one["Effect"] == "Allow"]
    return {action for one in allowing for action in texts(one["Action"])}


def _exact(value: Any) -> str:
    """Return the value as JSON, in which true differs from 1."""
    return json.dumps(value, sort_keys=True)


def _content(statement: dict[str, Any]) -> str:
    actions, resources = (", ".join(texts(statement[field])) for field in ("Action", "Resource"))
    condition = f" if {_shown(statement['Condition'])}" if statement.get("Condition") else ""
    return f"It {_does(statement)} {actions} on {resources}{condition}."


def _does(statement: dict[str, Any]) -> str:
    return "allows" if statement["Effect"] == "Allow" else "denies"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value) if value else "none"
