"""The rules for the fields in a permission set's file: a check for each, and its message."""

import re
from collections.abc import Callable
from re import _parser  # type: ignore[attr-defined]  # how Python itself reads a pattern
from typing import Any

from app.permissions.managed_policies import names
from app.settings.valid_values import is_line

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
# pattern in the same way. It matches no value that contains a wildcard or a quotation mark.
_PATTERN = re.compile(
    r"(?:\[(?:[a-z]-[a-z]|[A-Z]-[A-Z]|[0-9]-[0-9]|[A-Za-z0-9_.:/@=,])+-?\]|\\[.+-]"
    r"|[A-Za-z0-9_:/@=,-]|\((?!\?)|[)|?*+]|\{[0-9]+(?:,[0-9]*)?\})+"
)
JsonObject = dict[str, Any]
_Check = Callable[[Any], object]
Rules = dict[str, tuple[_Check, str]]  # field: (check, message when it fails)


def texts(value: Any) -> list[str]:
    """Return a string or a list of strings as a list. The list is empty for any other value."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list) and {*map(type, value)} == {str} and all(value):
        return value
    return []


def compiles(pattern: Any) -> bool:
    """Return whether a parameter may have this pattern."""
    try:
        is_in_language = isinstance(pattern, str) and _PATTERN.fullmatch(pattern)
        return bool(is_in_language and re.compile(pattern))
    except re.error:
        return False


def longest(pattern: str) -> int | None:
    """Return the length of the longest value that the pattern matches; None if it is unlimited."""
    length: int = _parser.parse(pattern).getwidth()[1]
    return length if length < _parser.MAXREPEAT else None


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
SET: Rules = {
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
STATEMENT: Rules = {
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
MANAGED_POLICY: Rules = {
    "name": (
        _like(r"([A-Za-z0-9-]+/)?[\w+=,.@-]{1,128}"),
        "Must be the name of a policy of AWS's own, each once.",
    ),
    "why": _WHY,
}
PARAMETER: Rules = {
    "name": (
        lambda value: _is_parameter_name(value) and value not in RESERVED,
        (
            "Must be a capital and then letters and digits, such as BucketName, each once, and no"
            " name of the template's own."
        ),
    ),
    "pattern": (
        lambda value: compiles(value) and not re.fullmatch(value, ""),
        (
            "Must be a regular expression of letters, digits, _ : / @ = , - and classes such as"
            " [a-z0-9.-], with \\. for a dot, that no empty value matches. Anything wider would"
            " let wildcards and quotes into the policy."
        ),
    ),
    "description": (
        _is_words,
        "Must say in words, for the customer's administrator, what to fill in.",
    ),
    "example": (_is_words, "Must be a value that matches the pattern."),
}
