"""The declarations of settings and of limits, and the conversion of a setting's text to its value.

app/config.py declares the settings, and app/limits/table.py the limits.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields, is_dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from app.errors import RateLimitedError


class Setting(NamedTuple):
    """The declaration of a setting, with the contents of its row in docs/settings.md."""

    parse: Callable[[str], Any]
    meaning: str
    default: Any  # MISSING: it must be set
    variable: str  # empty: DEPUTY_ and the field's name in capitals
    unset: str  # the default in words, if its value says too little
    group: str = ""


def setting(
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
    declaration = Setting(parse, meaning, default, variable, unset)
    return field(default=default, repr=not secret, metadata={"setting": declaration})


def collect_settings(config: Any) -> dict[str, Setting]:
    """Return the settings of a class by field, each with its group and its variable."""
    settings = {}
    for group, kind in groups_of(config).items():
        for part in fields(kind):
            declared = part.metadata["setting"]
            variable = declared.variable or f"DEPUTY_{part.name.upper()}"
            settings[part.name] = declared._replace(group=group, variable=variable)
    return settings


def groups_of(config: Any) -> dict[str, Any]:
    """Return the classes of settings by the name of their group, as docs/settings.md has them."""
    return {part.name: part.type for part in fields(config) if is_dataclass(part.type)}


def read_setting(environment: Mapping[str, str], declared: Setting) -> Any:
    """Return the setting's value. Empty text means None if None is the default.

    Raises ValueError if the text is invalid.
    """
    text = environment.get(declared.variable)
    if file := environment.get(f"{declared.variable}_FILE"):
        try:
            # Files end with a line feed, secrets don't
            text = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            raise ValueError(
                f"{declared.variable}_FILE must name a file that can be read."
            ) from None
    if text is None and declared.default is MISSING:
        raise ValueError("Environment variable not set.")
    if text is None or (not text and declared.default is None):
        return declared.default
    return declared.parse(text)


_SECONDS = {
    "per second": 1,
    "ms of CPU time per second": 1,
    "per minute": 60,
    "per hour": 3600,
    "per day": 86_400,
}


class Limit(NamedTuple):
    """The declaration of a limit, with the contents of its row in docs/api.md."""

    name: str  # its key in the shared cache, or in the table of quotas
    what: str  # what a refusal says that there is too much of
    per: str
    counted: Literal["process", "cache", "database", "concurrent"]
    most: int | str  # or the field of Config that has it
    period: str = ""  # one of _SECONDS; empty: at once, or in all
    share: float = 1.0  # of the setting
    burst: float = 1.0  # so many periods' worth may come at once
    patience: float = 0.0  # seconds that a request waits before it is refused
    waiting: int = 0  # so many requests wait
    beyond: str = "429"
    hint: str = "."

    @property
    def amount(self) -> int:
        return int(self.most)

    @property
    def window(self) -> tuple[int, int]:
        """How many may come in how many seconds, with the whole burst."""
        return round(self.amount * self.burst), round(_SECONDS[self.period] * self.burst)

    @property
    def rate(self) -> str:
        """The amount and its period, in words."""
        period = "at once" if self.counted == "concurrent" else self.period
        return f"{self.amount:,} {period}".rstrip()

    def with_setting(self, config: Any) -> Self:
        """Return the limit with the amount that is configured."""
        if isinstance(self.most, int):
            return self
        return self._replace(most=max(1, int(attrgetter(self.most)(config) * self.share)))

    def refuse(self, wait: float) -> RateLimitedError:
        """Return the refusal. `wait`: seconds until there is room."""
        refusal = f"Too many {self.what}: at most {self.rate}{self.hint}"
        return RateLimitedError(refusal, retry_after=max(1, math.ceil(wait)))
