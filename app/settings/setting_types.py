"""The types that declare settings and limits. app/settings/reading.py reads a setting.

app/config.py declares the settings, and app/limits/limits.py declares the limits.
"""

import math
from collections.abc import Callable
from dataclasses import MISSING, field, fields, is_dataclass
from operator import attrgetter
from typing import Any, Literal, NamedTuple, Self

from app.errors import RateLimitedError
from app.settings.valid_values import DAY


class Setting(NamedTuple):
    """The declaration of a setting, with the contents of its row in docs/settings.md."""

    parse: Callable[[str], Any]
    meaning: str
    default: Any  # MISSING: the setting is required
    variable: str  # empty: DEPUTY_ and the field's name in capitals
    unset: str  # the default in words, if the value itself is not clear
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

    The docstring of `parse` says which texts the setting accepts.
    """
    declaration = Setting(parse, meaning, default, variable, unset)
    return field(default=default, repr=not secret, metadata={"setting": declaration})


def collect_settings(config: Any) -> dict[str, Setting]:
    """Return the declarations in a class, by field. Fill in their groups and variables."""
    settings = {}
    for group, kind in groups_of(config).items():
        for part in fields(kind):
            declared = part.metadata["setting"]
            variable = declared.variable or f"DEPUTY_{part.name.upper()}"
            settings[part.name] = declared._replace(group=group, variable=variable)
    return settings


def groups_of(config: Any) -> dict[str, Any]:
    """Return the dataclasses that are fields of `config`, by name. Each is a group of settings."""
    return {part.name: part.type for part in fields(config) if is_dataclass(part.type)}


_SECONDS = {
    "per second": 1,
    "ms of CPU time per second": 1,
    "per minute": 60,
    "per hour": 3600,
    "per day": DAY,
}


class Limit(NamedTuple):
    """The declaration of a limit, with the contents of its row in docs/api.md."""

    name: str  # its key in the shared cache, or in the table quota_uses
    what: str  # what is limited, for the refusal "Too many …"
    per: str  # which subject has a count of its own, such as "tenant"
    counted: Literal["process", "cache", "database", "concurrent"]
    most: int | str  # the maximum, or the path of its setting in Config
    period: str = ""  # a key of _SECONDS; empty: a maximum at any time
    share: float = 1.0  # the maximum, as a share of the setting's value
    burst: float = 1.0  # how many periods' maximum may be used at once
    patience: float = 0.0  # maximum seconds that a request waits before it is refused
    waiting: int = 0  # maximum of requests that wait
    beyond: str = "429"  # what happens beyond the limit
    hint: str = "."  # the end of the refusal's text

    @property
    def amount(self) -> int:
        return int(self.most)

    @property
    def window(self) -> tuple[int, int]:
        """The maximum of uses in a window as long as the burst, and the window's seconds."""
        return round(self.amount * self.burst), round(_SECONDS[self.period] * self.burst)

    @property
    def rate(self) -> str:
        """The amount and its period, in words."""
        period = "at once" if self.counted == "concurrent" else self.period
        return f"{self.amount:,} {period}".rstrip()

    def with_setting(self, config: Any) -> Self:
        """Return the limit with the maximum that is configured, if `most` names a setting."""
        if isinstance(self.most, int):
            return self
        return self._replace(most=max(1, int(attrgetter(self.most)(config) * self.share)))

    def refuse(self, wait: float) -> RateLimitedError:
        """Return the error for a request beyond the limit. `wait`: seconds until there is room."""
        refusal = f"Too many {self.what}: at most {self.rate}{self.hint}"
        return RateLimitedError(refusal, retry_after=max(1, math.ceil(wait)))
