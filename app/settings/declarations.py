"""The declaration of settings, and the conversion of a setting's text to its value.

app/config.py declares them.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

Group = Literal["vendor", "aws", "service", "database", "proofs", "limits"]  # of docs/settings.md


class Setting(NamedTuple):
    """The declaration of a setting, with the contents of its row in docs/settings.md."""

    group: Group
    parse: Callable[[str], Any]
    meaning: str
    variable: str  # empty: DEPUTY_ and the field's name in capitals
    unset: str  # the default in words, if its value says too little


def setting(
    group: Group,
    parse: Callable[[str], Any],
    meaning: str,
    default: Any = MISSING,
    *,
    variable: str = "",
    unset: str = "",
    secret: bool = False,
) -> Any:
    """Declare a setting as a field of a dataclass.

    The docstring of `parse` says what it accepts.
    """
    return field(
        default=default,
        repr=not secret,
        metadata={"setting": Setting(group, parse, meaning, variable, unset)},
    )


def collect_settings(config: Any) -> dict[str, tuple[Setting, Any]]:
    """Return the settings of a class by field, each with its variable and its default.

    The default is MISSING if there is none.
    """
    settings = {}
    for declared in fields(config):
        if declaration := declared.metadata.get("setting"):
            variable = declaration.variable or f"DEPUTY_{declared.name.upper()}"
            settings[declared.name] = (declaration._replace(variable=variable), declared.default)
    return settings


def read_setting(
    environment: Mapping[str, str], variable: str, parse: Callable[[str], Any], default: Any
) -> Any:
    """Return the setting's value. Empty text means None if None is the default.

    Raises ValueError if the text is invalid.
    """
    text = environment.get(variable)
    if file := environment.get(f"{variable}_FILE"):
        try:
            # Files end with a line feed, secrets don't
            text = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            raise ValueError(f"{variable}_FILE must name a file that can be read.") from None
    if text is None and default is MISSING:
        raise ValueError("Environment variable not set.")
    return default if text is None or (not text and default is None) else parse(text)
