"""The reading of a setting, from the environment or from a file that the environment names.

app/config.py passes the environment, and reports all invalid settings together.
"""

from collections.abc import Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from app.settings.setting_types import Setting


def read_setting(environment: Mapping[str, str], declared: Setting) -> Any:
    """Return a setting's value from the environment, or from the file that the environment names.

    An empty text means None if None is the default. Raises ValueError if the text is invalid.
    """
    text = environment.get(declared.variable)
    if file := environment.get(f"{declared.variable}_FILE"):
        try:
            # A file may end with a line feed that is not part of the secret
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
