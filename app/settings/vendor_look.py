"""The look of the vendor's pages: checks of the logo and of the accent colour.

One colour serves light and dark pages. It fills buttons and marks, so it needs a contrast of 3:1
with both backgrounds, which WCAG demands of parts of controls. Text in a shade of it needs 4.5:1.
`shade_on` makes such a shade for each background.
"""

import re
import zlib
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

# The page's backgrounds with which an accent has the least contrast (onboard.css and Pico)
LIGHT, DARK = "#f5f7fa", "#181c25"
_BACKGROUNDS = {"light": LIGHT, "dark": DARK}
_CONTROL_CONTRAST = 3.0  # WCAG 2.2, success criterion 1.4.11
TEXT_CONTRAST = 4.5  # success criterion 1.4.3
_STEP = 0.01  # the way to black or white is 1
LOGO_KB = 100
LOGO_PIXELS = 2000  # a small file can hold an image that fills a browser's memory
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_START = _SIGNATURE + b"\0\0\0\rIHDR"  # the header, of 13 bytes


def _luminance(color: str) -> float:
    """Return the relative luminance of a colour, as WCAG defines it."""
    luminance = 0.0
    for weight, channel in zip((0.2126, 0.7152, 0.0722), channels_of(color), strict=True):
        value = channel / 255
        linear = value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        luminance += weight * linear
    return luminance


def channels_of(color: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(color[1:]))


def contrast(color: str, other: str) -> float:
    """Return the contrast of two colours, from 1 to 21."""
    darker, lighter = sorted((_luminance(color), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def mix(color: str, other: str, share: float) -> str:
    """Return the colour, mixed with this share of the other one."""
    pairs = zip(channels_of(color), channels_of(other), strict=True)
    mixed = bytes(round(own + (others - own) * share) for own, others in pairs)
    return f"#{mixed.hex()}"


def readable_on(color: str) -> str:
    """Return black or white, whichever has more contrast with the colour."""
    return max("#000000", "#ffffff", key=lambda text: contrast(text, color))


def shade_on(background: str, color: str, least: float = TEXT_CONTRAST) -> str:
    """Return the nearest shade of the colour with at least this contrast to the background."""
    end = readable_on(background)
    for step in count():
        shade = mix(color, end, min(1.0, step * _STEP))
        if contrast(shade, background) >= least:
            return shade
    raise AssertionError  # black or white has 4.5:1 with every colour


def accent(text: str) -> str:
    """Accept `#rrggbb`."""
    if not re.fullmatch("#[0-9A-Fa-f]{6}", text):
        raise ValueError("must be a colour like #1a6fb5: # and six hex digits.")
    color = text.lower()
    for name, background in _BACKGROUNDS.items():
        ratio = contrast(color, background)
        if ratio < _CONTROL_CONTRAST:
            raise ValueError(
                f"{color} has a contrast of {int(ratio * 100) / 100:.2f}:1 with the page's"
                f" {name} background ({background}), and needs {_CONTROL_CONTRAST:.0f}:1. The"
                f" nearest shade that has it is {shade_on(background, color, _CONTROL_CONTRAST)}."
            )
    return color


@dataclass(frozen=True)
class Logo:
    """The vendor's logo, a PNG. The width and the height are in pixels."""

    content: bytes = field(repr=False)
    width: int
    height: int


def logo(text: str) -> Logo:
    try:
        with Path(text).open("rb") as file:
            content = file.read(LOGO_KB * 1000 + 1)
    except (OSError, ValueError):
        raise ValueError("must name a file that can be read.") from None
    if len(content) > LOGO_KB * 1000:
        raise ValueError(f"must name a file of {LOGO_KB} KB at most.")
    if not _is_whole_png(content):
        raise ValueError("must name a PNG file. This file is none, or a part of it is missing.")
    width, height = (int.from_bytes(content[start : start + 4]) for start in (16, 20))
    if not (0 < width <= LOGO_PIXELS and 0 < height <= LOGO_PIXELS):
        raise ValueError(
            f"must name a picture of {LOGO_PIXELS} by {LOGO_PIXELS} pixels at most. This one has"
            f" {width} by {height}."
        )
    return Logo(content, width, height)


logo.__doc__ = f"Accept the path of a PNG file of up to {LOGO_KB} KB."


def _is_whole_png(content: bytes) -> bool:
    """Return whether the bytes are one PNG from its header to its end, with right checksums."""
    if not content.startswith(_START):
        return False
    rest, kind = content.removeprefix(_SIGNATURE), b""
    while rest and kind != b"IEND":
        length = int.from_bytes(rest[:4])
        kind, chunk, checksum = rest[4:8], rest[4 : 8 + length], rest[8 + length : 12 + length]
        if checksum != zlib.crc32(chunk).to_bytes(4):
            return False
        rest = rest[12 + length :]
    return kind == b"IEND" and rest == b""
