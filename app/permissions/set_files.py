"""The files of permission sets: how they are read, and what is a mistake in one.

A mistake is a line with the file, the field, and what to do about it. All mistakes of a folder are
reported at once. app/permissions/action_data.py adds those that need AWS's list of actions.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from re import _parser  # type: ignore[attr-defined]  # how Python itself reads a pattern
from typing import Any, NamedTuple

import yaml

from app import strict_json
from app.permissions.managed_policies import ADMINISTRATORS, READING_POLICIES
from app.permissions.wildcards import all_actions, all_resources
from app.settings.checks import is_line


class _Loader(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys.

    PyYAML's own keeps the last of two values under one key without an error.
    """

    # yaml's
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        keys = [self.construct_object(key) for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise ValueError(
                f"{twice[0]} comes twice in one mapping, in line {node.start_mark.line + 1} or"
                " below"
            )
        return dict(super().construct_mapping(node, deep))


def _yaml(text: str) -> Any:
    return yaml.load(text, _Loader)  # noqa: S506  a safe loader


_PARSERS: dict[str, Callable[[str], Any]] = {
    ".yaml": _yaml,
    ".yml": _yaml,
    ".json": strict_json.parse,
}
_NAME = re.compile(r"(?=.{1,50}$)[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
_WORDS = {"title", "description", "why"}
# Characters of all inline policies of a role, without white space ("IAM and STS quotas" in IAM's
# guide).
_INLINE_MAX = 10_240
_INLINE_OF_THE_KIT = (
    1_240  # the other policies of the kit's role: reading itself, end of access, revocation
)
_MANAGED_MAX = 10
VERSION_MAX = 999_999
SAY_ADMINISTRATOR = (
    "Name what is needed, or say administrator: true, which the page then tells the customer."
)
# Names in the kit's templates. A test compares the two.
RESERVED = frozenset(
    {
        *(
            "Accounts",
            "BoundaryIsOfAws",
            "CalledByDelegate",
            "OrganizationTemplateVersion",
            "Registration",
            "Role",
        ),
        *(
            "AccessUntil",
            "CallAs",
            "ExternalId",
            "NextExternalId",
            "OrganizationalUnitIds",
            "PermissionsBoundaryArn",
        ),
        *("RegistrationToken", "RegistrationTopicArn", "RevokeSessionsBefore", "RoleName"),
        *(
            "PermissionSet",
            "RoleArn",
            "ServiceTimeout",
            "ServiceToken",
            "StackSetId",
            "TemplateVersion",
        ),
    }
)
# A pattern in this language means the same to CloudFormation, Terraform, grep and Python. It
# matches no value that could be a wildcard or end a string.
_PATTERN = re.compile(
    r"(?:\[(?:[a-z]-[a-z]|[A-Z]-[A-Z]|[0-9]-[0-9]|[A-Za-z0-9_.:/@=,])+-?\]|\\[.+-]|[A-Za-z0-9_:/@=,-]|\((?!\?)|[)|?*+]"
    r"|\{[0-9]+(?:,[0-9]*)?\})+"
)
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_OF_IAM = re.compile(r"[a-z0-9-]+:.+|[*?$]")
_PARTITION = "AWS::Partition"


def texts(value: Any) -> list[str]:
    """Return a text, or a list of texts, as a list; empty for anything else."""
    found = [value] if isinstance(value, str) else value
    return (
        found
        if isinstance(found, list) and all(isinstance(item, str) and item for item in found)
        else []
    )


def _is_words(value: Any) -> bool:
    return isinstance(value, str) and is_line(value)


def _is_list(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and all(isinstance(item, dict) for item in value)
    )


def _is_condition(value: Any) -> bool:
    """Return whether the condition is valid, with variables only in its values.

    IAM and CloudFormation replace a variable in a value. In a key it would be part of the name.
    """
    if not isinstance(value, dict):
        return value is None
    keys = [*value, *(key for tests in value.values() if isinstance(tests, dict) for key in tests)]
    return not any("${" in str(key) for key in keys)


def _like(pattern: str) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) is not None
    )


_Rules = dict[str, tuple[Callable[[Any], bool], str]]  # field: (check, message when it fails)
_LIST = _is_list, "Must be a list of mappings."
_WHY = _is_words, "Must say in words, for the customer's administrator, why this is needed."
_TEXTS = lambda value: bool(texts(value)), "Must be text, or a list of texts."
_SET: _Rules = {
    "name": (
        lambda value: value is None or isinstance(value, str),
        "Must be as the file is called, or left out.",
    ),
    "version": (
        lambda value: type(value) is int and 0 < value <= VERSION_MAX,
        "Must be a whole number from 1. Raise it with every change.",
    ),
    "title": (_is_words, "Must say in words what is asked for."),
    "description": (
        _is_words,
        "Must say in words, for the customer's administrator, what is asked for and why.",
    ),
    "access": (lambda value: value in ("read", "write"), "Must be read or write."),
    "administrator": (lambda value: value is None or value is True, "Must be true, or left out."),
    "statements": _LIST,
    "managed_policies": _LIST,
    "parameters": _LIST,
}
_STATEMENT: _Rules = {
    "Sid": (_like(r"[A-Za-z0-9]{1,64}"), "Must be letters and digits, each statement's own."),
    "Effect": (lambda value: value in ("Allow", "Deny"), "Must be Allow or Deny."),
    "Action": _TEXTS,
    "Resource": _TEXTS,
    "Condition": (
        _is_condition,
        "Must be a mapping, as in IAM, with variables in its values alone.",
    ),
    "why": _WHY,
}
_POLICY = (
    _like(r"([A-Za-z0-9-]+/)?[\w+=,.@-]{1,128}"),
    "Must be the name of a policy of AWS's own, each once.",
)
_MANAGED: _Rules = {"name": _POLICY, "why": _WHY}
_PATTERN_RULE = (
    "Must be a regular expression of letters, digits, _ : / @ = , - and classes such as [a-z0-9.-],"
    " with \\. for a dot, that no empty value matches. Anything wider would let wildcards and"
    " quotes into the policy."
)
_PARAMETER: _Rules = {
    # Names in capitals only are reserved for the shell's own variables.
    "name": (
        lambda value: (
            _like(r"(?!Has[A-Z])[A-Z]+[a-z0-9][A-Za-z0-9]{0,62}")(value) and value not in RESERVED
        ),
        (
            "Must be a capital and then letters and digits, such as BucketName, each once, and no"
            " name of the template's own."
        ),
    ),
    "pattern": (lambda value: _compiles(value) and not re.fullmatch(value, ""), _PATTERN_RULE),
    "description": (
        _is_words,
        "Must say in words, for the customer's administrator, what to fill in.",
    ),
    "example": (_is_words, "Must be a value that matches the pattern."),
}


def _compiles(pattern: Any) -> bool:
    try:
        return (
            isinstance(pattern, str)
            and bool(_PATTERN.fullmatch(pattern))
            and bool(re.compile(pattern))
        )
    except re.error:
        return False


def _longest(pattern: str) -> int | None:
    """Return the length of the longest value that the pattern matches; None if it is unlimited."""
    most: int = _parser.parse(pattern).getwidth()[1]
    return most if most < _parser.MAXREPEAT else None


class SetFile(NamedTuple):
    """A file of a permission set. `data` is empty if it can't be read."""

    name: str
    file: str
    data: dict[str, Any]
    mistakes: list[str]

    @property
    def statements(self) -> list[tuple[str, dict[str, Any]]]:
        """The items that have the form of statements, each with its field."""
        return [(f"statements[{n}]", one) for n, one in enumerate(_dicts(self.data, "statements"))]

    @property
    def reads(self) -> bool:
        """Return whether the set declares that it only reads."""
        return self.data.get("access") == "read"

    @property
    def administrator(self) -> bool:
        """Return whether the set declares that it makes its role an administrator."""
        return self.data.get("administrator") is True

    @property
    def managed_policies(self) -> list[dict[str, Any]]:
        return _dicts(self.data, "managed_policies")


def read(folder: Path) -> list[SetFile]:
    """Return every file of the folder with its mistakes; none if the folder does not exist."""
    return [_read(path) for path in sorted(folder.glob("*")) if path.suffix in _PARSERS]


def _read(path: Path) -> SetFile:
    try:
        data = _PARSERS[path.suffix](path.read_text(encoding="utf-8"))
        json.dumps(data)  # YAML has types that IAM lacks, such as dates
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        return SetFile(
            path.stem,
            path.name,
            {},
            [f"{path.name}: can't be read: {' '.join(str(error).split())}"],
        )
    if not isinstance(data, dict):
        return SetFile(
            path.stem,
            path.name,
            {},
            [f"{path.name}: must be a mapping with a permission set's fields."],
        )
    data = _in_one_line(data)
    said = [f"{path.name}: {field}: {what}" for field, what in _mistakes(path.stem, data)]
    return SetFile(path.stem, path.name, data, said)


def _in_one_line(value: Any, key: str = "") -> Any:
    """Return the value with each description on one line, for comments, labels and pages."""
    if isinstance(value, dict):
        return {name: _in_one_line(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_in_one_line(item) for item in value]
    return " ".join(value.split()) if key in _WORDS and isinstance(value, str) else value


_Said = Iterator[tuple[str, str]]  # field, sentence


def _mistakes(name: str, data: dict[str, Any]) -> _Said:
    if not _NAME.fullmatch(name):
        yield "name", "The file's name must be lower-case letters, digits and hyphens, at most 50."
    yield from _fields("", data, _SET)
    if data.get("name", name) != name:
        yield "name", f"Must be {name}, as the file is called, or left out."
    if not data.get("statements") and not data.get("managed_policies"):
        yield "statements", "Nothing is asked for: give statements, managed_policies, or both."
    yield from _items(data, "statements", "Sid", _STATEMENT)
    yield from _statements(_dicts(data, "statements"))
    yield from _size(data)
    yield from _items(data, "managed_policies", "name", _MANAGED)
    yield from _managed(data)
    if data.get("administrator") and data.get("access") == "read":
        yield (
            "administrator",
            "An administrator also writes. Say access: write, or leave administrator out.",
        )
    yield from _items(data, "parameters", "name", _PARAMETER)
    yield from _parameters(data)


def _fields(at: str, given: dict[str, Any], rules: _Rules) -> _Said:
    for key in sorted(given.keys() - rules.keys(), key=str):
        yield f"{at}{key}", f"Unknown field. Allowed fields: {', '.join(rules)}."
    for key, (holds, sentence) in rules.items():
        if not holds(given.get(key)):
            yield f"{at}{key}", sentence


def _items(data: dict[str, Any], field: str, key: str, rules: _Rules) -> _Said:
    """Check the fields of each item. `key` names an item, and must be unique."""
    found = _dicts(data, field)
    names = [str(one.get(key)) for one in found]
    for number, (one, name) in enumerate(zip(found, names, strict=True)):
        yield from _fields(f"{field}[{number}].", one, rules)
        if name in names[:number]:
            yield f"{field}[{number}].{key}", f"{name} is there twice."


def _statements(found: list[dict[str, Any]]) -> _Said:
    for number, one in enumerate(found):
        actions, resources = (
            all_actions(texts(one.get("Action"))),
            all_resources(texts(one.get("Resource"))),
        )
        if actions and resources and one.get("Effect") != "Deny":
            said = (
                f"Allows {', '.join(actions)} on {', '.join(resources)}. Name the actions, or the"
                " resources."
            )
            yield f"statements[{number}]", said


def _size(data: dict[str, Any]) -> _Said:
    """Check the size of a role's policy with the longest values of the parameters."""
    policy = [
        {key: value for key, value in one.items() if key != "why"}
        for one in _dicts(data, "statements")
    ]
    text, most = re.sub(r"\s", "", json.dumps(policy)), _INLINE_MAX - _INLINE_OF_THE_KIT
    patterns = {str(one.get("name")): one.get("pattern") for one in _dicts(data, "parameters")}
    longest = {
        name: _longest(str(pattern)) for name, pattern in patterns.items() if _compiles(pattern)
    }
    filled_in = [
        (longest.get(name) or 0) - len(f"${{{name}}}")
        for name in _VARIABLE.findall(text)
        if name in longest
    ]
    size = len(text) + sum(filled_in)
    if size > most:
        with_values = (
            ", with the longest values that the parameters' patterns allow" if filled_in else ""
        )
        said = (
            f"Have {size:,} characters as AWS counts them{with_values}. A role's inline policies"
            f" may have {_INLINE_MAX:,}, of which {most:,} are left for a permission set. Write"
            " patterns such as s3:Get*, let parameters be shorter, use a managed policy of AWS's,"
            " or split the set in two."
        )
        yield "statements", said


def _managed(data: dict[str, Any]) -> _Said:
    found = _dicts(data, "managed_policies")
    if len(found) > _MANAGED_MAX:
        more = f"AWS attaches {_MANAGED_MAX} to a role. Leave some out, or split the set in two."
        yield "managed_policies", f"Are {len(found)}. {more}"
    for number, one in enumerate(found):
        name = str(one.get("name"))
        if name.lower() in ADMINISTRATORS and not data.get("administrator"):
            why = f"{name} lets the role do everything, or give itself everything."
            yield f"managed_policies[{number}].name", f"{why} {SAY_ADMINISTRATOR}"
        elif data.get("access") == "read" and not READING_POLICIES.fullmatch(name):
            said = (
                f"{name} may write, as its name does not end like AWS's reading policies"
                " (…ReadOnlyAccess, …ViewOnlyAccess, SecurityAudit). Name one of those, or say"
                " access: write."
            )
            yield f"managed_policies[{number}].name", said


def _parameters(data: dict[str, Any]) -> _Said:
    found = _dicts(data, "parameters")
    for number, one in enumerate(found):
        pattern, example = one.get("pattern"), one.get("example")
        if (
            _compiles(pattern)
            and isinstance(example, str)
            and not re.fullmatch(str(pattern), example, re.ASCII)
        ):
            yield f"parameters[{number}].example", f"Must match {pattern}."
        if _compiles(pattern) and _longest(str(pattern)) is None:
            said = (
                "Must say how long a value may be, because AWS limits the length of a role's"
                " policies. Write {0,63} for *, {1,63} for +, and {3,63} for {3,}, with a number of"
                " your own in the place of 63."
            )
            yield f"parameters[{number}].pattern", said
    names = {str(one.get("name")) for one in found}
    used = list(_variables(data.get("statements", []), "statements"))
    for at, name in used:
        if name not in names | {_PARTITION} and not _OF_IAM.fullmatch(name):
            yield at, f"${{{name}}} is not a parameter of this set. Declare it in parameters."
    for name in sorted(names - {name for _, name in used}):
        yield (
            "parameters",
            f"{name} is used by no statement. Use it as ${{{name}}}, or leave it out.",
        )


def _variables(value: Any, at: str) -> Iterator[tuple[str, str]]:
    """Return each `${…}` with its place."""
    if isinstance(value, str):
        yield from ((at, name) for name in _VARIABLE.findall(value))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _variables(item, f"{at}.{key}") if key != "why" else ()
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _variables(item, f"{at}[{number}]")


def _dicts(data: dict[str, Any], field: str) -> list[dict[str, Any]]:
    found = data.get(field)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
