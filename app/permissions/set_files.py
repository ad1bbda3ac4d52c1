"""Read the files of permission sets, and find the mistakes in them.

Each mistake is a line with the file, the field and the correction. All mistakes of a folder are
reported at once. app/permissions/action_checks.py adds the mistakes that only AWS's list of actions
can show.
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from app import strict_json
from app.permissions import set_fields
from app.permissions.managed_policies import ADMINISTRATORS, READING_POLICIES
from app.permissions.set_fields import JsonObject, Rules, compiles, longest, texts
from app.permissions.wildcards import all_actions, all_resources


class _Loader(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys.

    PyYAML's own loader silently keeps the last value of a key.
    """

    # The signature is PyYAML's.
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        keys = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node)
            if key in keys:
                raise ValueError(
                    f"{key} comes twice in one mapping, in line {node.start_mark.line + 1} or below"
                )
            keys.append(key)
        return dict(super().construct_mapping(node, deep))


_ENDINGS = {".yaml", ".yml", ".json"}
LISTS = ("statements", "managed_policies", "parameters")
_NAME = re.compile(r"(?=.{1,50}$)[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
_WORDS = {"title", "description", "why"}
# Maximum number of characters in all inline policies of a role, without white space ("IAM and STS
# quotas" in IAM's guide).
_INLINE_MAX = 10_240
# Characters for the other inline policies of the kit's role: read-itself, end of access, revocation
_INLINE_OF_THE_KIT = 1_240
_MANAGED_MAX = 10
SAY_ADMINISTRATOR = (
    "Name what is needed, or say administrator: true, which the page then tells the customer."
)
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_OF_IAM = re.compile(r"[a-z0-9-]+:.+|[*?$]")
_PARTITION = "AWS::Partition"


class SetFile(NamedTuple):
    """A file of a permission set. `data` is empty if the file can't be read."""

    name: str
    file: str
    data: JsonObject
    mistakes: list[str]

    @property
    def reads(self) -> bool:
        """Return whether the set declares that it only reads."""
        return self.data.get("access") == "read"

    @property
    def administrator(self) -> bool:
        """Return whether the set declares that it makes its role an administrator."""
        return self.data.get("administrator") is True


def read(folder: Path) -> list[SetFile]:
    """Return every file of the folder with its mistakes; none if the folder does not exist."""
    return [_read(path) for path in sorted(folder.glob("*")) if path.suffix in _ENDINGS]


def _read(path: Path) -> SetFile:
    mistakes = ["must be a mapping with a permission set's fields."]
    try:
        text = path.read_text(encoding="utf-8")
        is_json = path.suffix == ".json"
        data = strict_json.parse(text) if is_json else yaml.load(text, _Loader)  # noqa: S506
        json.dumps(data)  # YAML has types that IAM lacks, such as dates
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        data, mistakes = None, [f"can't be read: {' '.join(str(error).split())}"]
    if isinstance(data, dict):
        _join_lines(data)
        mistakes = list(map(": ".join, _mistakes(path.stem, data)))
    else:
        data = {}
    lines = [f"{path.name}: {mistake}" for mistake in mistakes]
    return SetFile(path.stem, path.name, data, lines)


def mappings(data: JsonObject, field: str) -> list[JsonObject]:
    """Return the mappings in the file's list `field`."""
    values = data.get(field)
    if not isinstance(values, list):
        return []
    return [value for value in values if isinstance(value, dict)]


def places(data: JsonObject, field: str) -> Iterator[tuple[str, JsonObject]]:
    """Yield (place, mapping) for each mapping in the file's list `field`."""
    for number, mapping in enumerate(mappings(data, field)):
        yield f"{field}[{number}]", mapping


def _join_lines(data: JsonObject) -> None:
    """Put each description on one line, for use in comments, labels and pages."""
    for mapping in chain([data], *(mappings(data, field) for field in LISTS)):
        for key in _WORDS & mapping.keys():
            if isinstance(mapping[key], str):
                mapping[key] = " ".join(mapping[key].split())


def without_reasons(statements: Iterable[JsonObject]) -> list[JsonObject]:
    """Return copies of the statements without `why`, which IAM does not accept."""
    copies = [dict(statement) for statement in statements]
    for statement in copies:
        statement.pop("why", None)
    return copies


_Mistakes = Iterator[tuple[str, str]]  # field, sentence


def _mistakes(name: str, data: JsonObject) -> _Mistakes:
    if not _NAME.fullmatch(name):
        yield "name", "The file's name must be lower-case letters, digits and hyphens, at most 50."
    yield from _fields("", data, set_fields.SET)
    if data.get("name", name) != name:
        yield "name", f"Must be {name}, as the file is called, or left out."
    if not data.get("statements") and not data.get("managed_policies"):
        yield "statements", "Nothing is asked for: give statements, managed_policies, or both."
    yield from _items(data, "statements", "Sid", set_fields.STATEMENT)
    yield from _statements(data)
    yield from _size(data)
    yield from _items(data, "managed_policies", "name", set_fields.MANAGED_POLICY)
    yield from _managed_policies(data)
    if data.get("administrator") and data.get("access") == "read":
        yield (
            "administrator",
            "An administrator also writes. Say access: write, or leave administrator out.",
        )
    yield from _items(data, "parameters", "name", set_fields.PARAMETER)
    yield from _parameters(data)
    yield from _uses(data)


def _fields(prefix: str, mapping: JsonObject, rules: Rules) -> _Mistakes:
    for key in sorted(mapping.keys() - rules.keys(), key=str):
        yield f"{prefix}{key}", f"Unknown field. Allowed fields: {', '.join(rules)}."
    for key, (holds, sentence) in rules.items():
        if not holds(mapping.get(key)):
            yield f"{prefix}{key}", sentence


def _items(data: JsonObject, field: str, key: str, rules: Rules) -> _Mistakes:
    """Check the fields of each item. The value of `key` names an item, and must be unique."""
    names = set()
    for place, mapping in places(data, field):
        yield from _fields(f"{place}.", mapping, rules)
        name = str(mapping.get(key))
        if name in names:
            yield f"{place}.{key}", f"{name} is there twice."
        names.add(name)


def _statements(data: JsonObject) -> _Mistakes:
    for place, statement in places(data, "statements"):
        actions = ", ".join(all_actions(texts(statement.get("Action"))))
        resources = ", ".join(all_resources(texts(statement.get("Resource"))))
        if actions and resources and statement.get("Effect") != "Deny":
            yield place, f"Allows {actions} on {resources}. Name the actions, or the resources."


def _size(data: JsonObject) -> _Mistakes:
    """Check the size of a role's policy, assuming the longest values of the parameters."""
    statements = without_reasons(mappings(data, "statements"))
    text = re.sub(r"\s", "", json.dumps(statements))
    available, size, with_values = _INLINE_MAX - _INLINE_OF_THE_KIT, len(text), ""
    for parameter in mappings(data, "parameters"):
        pattern, variable = parameter.get("pattern"), f"${{{parameter.get('name')}}}"
        if compiles(pattern) and variable in text:
            size += text.count(variable) * ((longest(str(pattern)) or 0) - len(variable))
            with_values = ", with the longest values that the parameters' patterns allow"
    if size > available:
        yield (
            "statements",
            (
                f"Have {size:,} characters as AWS counts them{with_values}. A role's inline"
                f" policies may have {_INLINE_MAX:,}, of which {available:,} are left for a"
                " permission set. Write patterns such as s3:Get*, let parameters be shorter, use a"
                " managed policy of AWS's, or split the set in two."
            ),
        )


def _managed_policies(data: JsonObject) -> _Mistakes:
    number = len(mappings(data, "managed_policies"))
    if number > _MANAGED_MAX:
        more = f"AWS attaches {_MANAGED_MAX} to a role. Leave some out, or split the set in two."
        yield "managed_policies", f"Are {number}. {more}"
    for place, policy in places(data, "managed_policies"):
        name = str(policy.get("name"))
        if name.lower() in ADMINISTRATORS and not data.get("administrator"):
            why = f"{name} lets the role do everything, or give itself everything."
            yield f"{place}.name", f"{why} {SAY_ADMINISTRATOR}"
        elif data.get("access") == "read" and not READING_POLICIES.fullmatch(name):
            yield (
                f"{place}.name",
                (
                    f"{name} may write, as its name does not end like AWS's reading policies"
                    " (…ReadOnlyAccess, …ViewOnlyAccess, SecurityAudit). Name one of those, or say"
                    " access: write."
                ),
            )


def _parameters(data: JsonObject) -> _Mistakes:
    for place, parameter in places(data, "parameters"):
        pattern, example = parameter.get("pattern"), parameter.get("example")
        if not compiles(pattern):
            continue
        if isinstance(example, str) and not re.fullmatch(str(pattern), example, re.ASCII):
            yield f"{place}.example", f"Must match {pattern}."
        if longest(str(pattern)) is None:
            yield (
                f"{place}.pattern",
                (
                    "Must say how long a value may be, because AWS limits the length of a role's"
                    " policies. Write {0,63} for *, {1,63} for +, and {3,63} for {3,}, with a"
                    " number of your own in the place of 63."
                ),
            )


def _uses(data: JsonObject) -> _Mistakes:
    """Check that each variable in a statement is a parameter, and that each parameter is used."""
    unused = {str(parameter.get("name")) for parameter in mappings(data, "parameters")}
    names = unused | {_PARTITION}
    statements = without_reasons(mappings(data, "statements"))
    for field, name in _variables(statements, "statements"):
        unused.discard(name)
        if name not in names and not _OF_IAM.fullmatch(name):
            yield field, f"${{{name}}} is not a parameter of this set. Declare it in parameters."
    for name in sorted(unused):
        yield (
            "parameters",
            f"{name} is used by no statement. Use it as ${{{name}}}, or leave it out.",
        )


def _variables(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield (place, name) for each variable `${name}` in an element of a policy."""
    if isinstance(value, str):
        for name in _VARIABLE.findall(value):
            yield place, name
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _variables(item, f"{place}.{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _variables(item, f"{place}[{number}]")
