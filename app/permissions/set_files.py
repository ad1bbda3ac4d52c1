"""Read the files of permission sets, with the mistakes in them.

Each mistake is a line with the file, the field and the correction. All mistakes of a folder are
reported at once. app/permissions/set_rules.py has the rules.
"""

import json
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from app import strict_json
from app.permissions import set_rules
from app.strict_json import JsonObject


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
_WORDS = {"title", "description", "why"}


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
        mistakes = list(map(": ".join, set_rules.mistakes_in(path.stem, data)))
    else:
        data = {}
    lines = [f"{path.name}: {mistake}" for mistake in mistakes]
    return SetFile(path.stem, path.name, data, lines)


def _join_lines(data: JsonObject) -> None:
    """Put each description on one line, for use in comments, labels and pages."""
    for mapping in chain([data], *(set_rules.mappings(data, field) for field in set_rules.LISTS)):
        for key in _WORDS & mapping.keys():
            if isinstance(mapping[key], str):
                mapping[key] = " ".join(mapping[key].split())
