"""The vendor's look on its pages: the name, the logo, the accent colour, and links to its sites.

The logo, the icon of the browser's tab and the style sheet are named by their content's hash, so
browsers may keep them for ever. The policy of the pages allows no style in the page itself, so the
colour is in a style sheet.
"""

import hashlib
from functools import lru_cache
from typing import NamedTuple

from app.config import VendorConfig
from app.settings.vendor_look import DARK, LIGHT, channels_of, mix, readable_on, shade_on

CACHE_CONTROL = "public, max-age=31536000, immutable"  # each file's

_PICO_BLUE = "#0172ad"
_ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'>"
    "<path d='M16 2 4 7v9c0 7 5 12 12 14 7-2 12-7 12-14V7z' fill='{color}'/>"
    "<path d='m10 16 4 4 8-8' fill='none' stroke='{mark}' stroke-width='3' stroke-linecap='round'"
    " stroke-linejoin='round'/></svg>"
)
# Pico's own rules have this selector, and a weaker one would not override them
_STYLES = """\
:root:not([data-theme]) {{
  --accent: {color};
  --pico-primary: {light};
  --pico-primary-hover: {light_hover};
  --pico-primary-background: {color};
  --pico-primary-hover-background: {hover};
  --pico-primary-inverse: {text};
  --pico-primary-underline: rgb({channels} / 60%);
  --pico-primary-focus: rgb({channels} / 50%);
  --pico-text-selection-color: rgb({channels} / 25%);
}}

@media (prefers-color-scheme: dark) {{
  :root:not([data-theme]) {{
    --pico-primary: {dark};
    --pico-primary-hover: {dark_hover};
  }}
}}
"""


class Picture(NamedTuple):
    file: str  # the name in the URL
    width: int
    height: int


class Look(NamedTuple):
    """The look of the vendor in the templates, with the names of its files.

    `sites`: the words and the URLs of the footer.
    """

    vendor: str
    icon: str
    logo: Picture | None
    styles: str | None
    sites: tuple[tuple[str, str], ...]


class File(NamedTuple):
    content: bytes
    content_type: str


@lru_cache(4)  # a process has one configuration; tests have several
def look_of(vendor: VendorConfig) -> tuple[Look, dict[str, File]]:
    """Return the vendor's look, and its files by their names."""
    files, picture, styles = dict[str, File](), None, None
    color = vendor.vendor_color or _PICO_BLUE
    drawn = _ICON.format(color=color, mark=readable_on(color))
    icon = _add(files, "svg", File(drawn.encode(), "image/svg+xml"))
    if logo := vendor.vendor_logo:
        name = _add(files, "png", File(logo.content, "image/png"))
        picture = Picture(name, logo.width, logo.height)
    if vendor.vendor_color:
        sheet = File(_styles(color).encode(), "text/css; charset=utf-8")
        styles = _add(files, "css", sheet)
    sites = (
        ("Support", vendor.support_url),
        ("Privacy", vendor.privacy_url),
        (vendor.vendor_name, vendor.vendor_url),
    )
    given = tuple((words, url) for words, url in sites if url)
    return Look(vendor.vendor_name, icon, picture, styles, given), files


def _add(files: dict[str, File], suffix: str, file: File) -> str:
    name = f"{hashlib.sha256(file.content).hexdigest()[:32]}.{suffix}"
    files[name] = file
    return name


def _styles(color: str) -> str:
    """Return the style sheet with the shades of the accent colour."""
    text = readable_on(color)
    away = "#000000" if text == "#ffffff" else "#ffffff"  # more contrast with the button's text
    light, dark = shade_on(LIGHT, color), shade_on(DARK, color)
    return _STYLES.format(
        color=color,
        text=text,
        hover=mix(color, away, 0.15),
        light=light,
        light_hover=mix(light, "#000000", 0.25),
        dark=dark,
        dark_hover=mix(dark, "#ffffff", 0.25),
        channels=" ".join(map(str, channels_of(color))),
    )
