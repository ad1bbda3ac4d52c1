"""The rules for a permission set's file, each with the message for its mistake.

The tables hold the rules for single fields. app/permissions/action_checks.py has those that need
AWS's list of actions.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from re import _parser  # type: ignore[attr-defined]  # how Python itself reads a pattern
from typing import Any

from app.permissions.managed_policies import ADMINISTRATORS, MANAGED_MAX, READING_POLICIES, names
from app.permissions.wildcards import all_actions, all_resources
from app.settings.valid_values import is_line
from app.strict_json import JsonObject

LISTS = ("statements", "managed_policies", "parameters")
_NAME = re.compile(r"(?=.{1,50}$)[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
# Maximum number of characters in all inline policies of a role, without white space ("IAM and STS
# quotas" in IAM's guide).
_INLINE_MAX = 10_240
# Characters for the other inline policies of the kit's role: read-itself, end of access, revocation
_INLINE_OF_THE_KIT = 1_240
SAY_ADMINISTRATOR = (
    "Name what is needed, or say administrator: true, which the page then tells the customer."
)
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_OF_IAM = re.compile(r"[a-z0-9-]+:.+|[*?$]")
_PARTITION = "AWS::Partition"
VERSION_MAX = 999_999
# Names that the kit's templates use. A test compares this list with the templates.
RESERVED = names(
    """
    Accounts BoundaryIsOfAws CalledByDelegate OrganizationTemplateVersion Registration Role
    AccessUntil CallAs ExternalId NextExternalId OrganizationalUnitIds PermissionsBoundaryArn
    RegistrationToken RegistrationTopicArn RevokeSessionsBefore RoleName
    PermissionSet RoleArn ServiceTimeout ServiceToken StackSetId TemplateVersion
    """
)
# The language of parameters' patterns. CloudFormation, Terraform, grep and Python understand such a
# pattern in the same way, with the limits below. It matches no value that contains a wildcard or a
# quotation mark.
_PATTERN = re.compile(
    r"(?:\[(?:[a-z]-[a-z]|[A-Z]-[A-Z]|[0-9]-[0-9]|[A-Za-z0-9_.:/@=,])+-?\]|\\[.+-]"
    r"|[A-Za-z0-9_:/@=,-]|\((?!\?)|[)|?*+]|\{[0-9]+(?:,[0-9]*)?\})+"
)
_TWICE = re.compile(r"(?<!\\)[?*+}][?*+{]")  # to Terraform an error, to grep something else
# An empty alternative, and a class such as [:alpha:] outside brackets, are errors to some greps
_NO_GREP = re.compile(r"(?:^|[(|])(?:[|)]|$)|\[:[^]]*:\]")
_COUNT_MAX = 255  # grep's maximum on macOS and Alpine
_NESTED_MAX = 1_000  # Terraform's (RE2): the product of counts that are nested in each other
_Check = Callable[[Any], object]
_Rules = dict[str, tuple[_Check, str]]  # field: (check, message when it fails)


def texts(value: Any) -> list[str]:
    """Return a string or a list of strings as a list. The list is empty for any other value."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list) and {*map(type, value)} == {str} and all(value):
        return value
    return []


def _compiles(pattern: Any) -> bool:
    """Return whether a parameter may have this pattern."""
    if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
        return False
    if _TWICE.search(pattern) or _NO_GREP.search(pattern):
        return False
    try:
        return _nested_counts(_parser.parse(pattern)) <= _NESTED_MAX
    except (re.error, OverflowError, RecursionError, ValueError):
        return False


def _nested_counts(parsed: Any) -> int:
    """Return the largest product of counts that are nested in each other.

    A count that is too large by itself makes the product too large.
    """
    most = 1
    for code, value in parsed:
        if code is _parser.MAX_REPEAT:
            low, high, inner = value
            count = max(1, int(low if high == _parser.MAXREPEAT else high))
            if count > _COUNT_MAX:
                return _NESTED_MAX + 1
            most = max(most, count * _nested_counts(inner))
        elif code is _parser.SUBPATTERN:
            most = max(most, _nested_counts(value[-1]))
        elif code is _parser.BRANCH:
            most = max(most, *map(_nested_counts, value[1]))
    return most


def _longest(pattern: str) -> int | None:
    """Return the length of the longest value that the pattern matches; None if it is unlimited."""
    length: int = _parser.parse(pattern).getwidth()[1]
    return length if length < _parser.MAXREPEAT else None


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


def without_reasons(statements: Iterable[JsonObject]) -> list[JsonObject]:
    """Return copies of the statements without `why`, which IAM does not accept."""
    copies = [dict(statement) for statement in statements]
    for statement in copies:
        statement.pop("why", None)
    return copies


def _is_words(value: Any) -> bool:
    return isinstance(value, str) and is_line(value)


def _is_list(value: Any) -> bool:
    return value is None or (isinstance(value, list) and {*map(type, value)} <= {dict})


def _is_condition(value: Any) -> bool:
    """Return whether this is None, or a mapping without variables in its keys.

    IAM and CloudFormation replace variables in values. In a key, a variable would be part of the
    name.
    """
    if not isinstance(value, dict):
        return value is None
    keys = [*value]
    for tests in value.values():
        keys += tests if isinstance(tests, dict) else ()
    return "${" not in " ".join(map(str, keys))


def _like(pattern: str) -> _Check:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII)


# Names in capitals only are not allowed, because the shell uses such names.
_is_parameter_name = _like(r"(?!Has[A-Z])[A-Z]+[a-z0-9][A-Za-z0-9]{0,62}")
_LIST = _is_list, "Must be a list of mappings."
_WHY = _is_words, "Must say in words, for the customer's administrator, why this is needed."
_TEXTS = texts, "Must be text, or a list of texts."
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
_MANAGED_POLICY: _Rules = {
    "name": (
        _like(r"([A-Za-z0-9-]+/)?[\w+=,.@-]{1,128}"),
        "Must be the name of a policy of AWS's own, each once.",
    ),
    "why": _WHY,
}
_PARAMETER: _Rules = {
    "name": (
        lambda value: _is_parameter_name(value) and value not in RESERVED,
        (
            "Must be a capital and then letters and digits, such as BucketName, each once, and no"
            " name of the template's own."
        ),
    ),
    "pattern": (
        lambda value: _compiles(value) and not re.fullmatch(value, ""),
        (
            "Must be a regular expression of letters, digits, _ : / @ = , - and classes such as"
            " [a-z0-9.-], with \\. for a dot, that no empty value matches. Anything wider would"
            " let wildcards and quotes into the policy. A count is at most 255, counts in each"
            " other at most 1,000 together, and no quantifier follows another."
        ),
    ),
    "description": (
        _is_words,
        "Must say in words, for the customer's administrator, what to fill in.",
    ),
    "example": (_is_words, "Must be a value that matches the pattern."),
}


_Mistakes = Iterator[tuple[str, str]]  # field, sentence


def mistakes_in(name: str, data: JsonObject) -> _Mistakes:
    """Yield the mistakes in the content of a permission set's file of this name."""
    if not _NAME.fullmatch(name):
        yield "name", "The file's name must be lower-case letters, digits and hyphens, at most 50."
    yield from _fields("", data, _SET)
    if data.get("name", name) != name:
        yield "name", f"Must be {name}, as the file is called, or left out."
    if not data.get("statements") and not data.get("managed_policies"):
        yield "statements", "Nothing is asked for: give statements, managed_policies, or both."
    yield from _items(data, "statements", "Sid", _STATEMENT)
    yield from _statements(data)
    yield from _size(data)
    yield from _items(data, "managed_policies", "name", _MANAGED_POLICY)
    yield from _managed_policies(data)
    if data.get("administrator") and data.get("access") == "read":
        yield (
            "administrator",
            "An administrator also writes. Say access: write, or leave administrator out.",
        )
    yield from _items(data, "parameters", "name", _PARAMETER)
    yield from _parameters(data)
    yield from _uses(data)


def _fields(prefix: str, mapping: JsonObject, rules: _Rules) -> _Mistakes:
    for key in sorted(mapping.keys() - rules.keys(), key=str):
        yield f"{prefix}{key}", f"Unknown field. Allowed fields: {', '.join(rules)}."
    for key, (holds, sentence) in rules.items():
        if not holds(mapping.get(key)):
            yield f"{prefix}{key}", sentence


def _items(data: JsonObject, field: str, key: str, rules: _Rules) -> _Mistakes:
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
        if _compiles(pattern) and variable in text:
            size += text.count(variable) * ((_longest(str(pattern)) or 0) - len(variable))
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
    if number > MANAGED_MAX:
        more = f"AWS attaches {MANAGED_MAX} to a role. Leave some out, or split the set in two."
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
        if not _compiles(pattern):
            continue
        if isinstance(example, str) and not re.fullmatch(str(pattern), example, re.ASCII):
            yield f"{place}.example", f"Must match {pattern}."
        if _longest(str(pattern)) is None:
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
