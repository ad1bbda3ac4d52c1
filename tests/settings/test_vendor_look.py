"""The vendor's logo and colour: what can't be shown well is refused at start, with the reason."""

import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from app.settings.vendor_look import (
    DARK,
    LIGHT,
    LOGO_KB,
    Logo,
    accent,
    contrast,
    logo,
    readable_on,
    shade_on,
)
from tests.support.png import SIGNATURE, chunk, png

STATIC = Path(__file__).parents[2] / "app" / "web" / "onboarding" / "static"


# --- the colour ---


@pytest.mark.parametrize(
    ("color", "said"),
    [
        ("#ffd60a", "#ffd60a has a contrast of 1.31:1 with the page's light background"),
        ("#0b3d91", "#0b3d91 has a contrast of 1.69:1 with the page's dark background"),
        ("#FFFFFF", "#ffffff has a contrast of 1.07:1 with the page's light background"),
        ("#000000", "#000000 has a contrast of 1.23:1 with the page's dark background"),
        # Refused by a hair, and never shown as 3.00
        ("#f26200", "2.99:1"),
    ],
)
def test_a_colour_with_too_little_contrast_is_refused_with_its_ratio_and_a_shade_that_passes(
    color, said
):
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        accent(color)
    shade = re.search(r"shade that has it is (#[0-9a-f]{6})\.$", str(refused.value))[1]
    assert accent(shade) == shade


@pytest.mark.parametrize(
    ("color", "text"), [("#3366cc", "#ffffff"), ("#E8590C", "#000000"), ("#0172ad", "#ffffff")]
)
def test_a_colour_that_passes_carries_black_or_white_text_and_has_readable_shades(color, text):
    passed = accent(color)
    assert readable_on(passed) == text
    assert contrast(passed, text) >= 4.5
    for background in (LIGHT, DARK):
        assert contrast(passed, background) >= 3
        assert contrast(shade_on(background, passed), background) >= 4.5
    assert passed in {shade_on(LIGHT, passed), shade_on(DARK, passed)}, (
        "no shade darker than needed"
    )


@pytest.mark.parametrize(
    "text", ["", "3366cc", "#36c", "#3366cg", "#3366cc ", "#3366cc\n", "blue", "#3366ccff"]
)
def test_a_text_that_is_no_colour_is_refused(text):
    with pytest.raises(ValueError, match="# and six hex digits"):
        accent(text)


def test_contrast_is_what_wcag_defines():
    """The ratios of white with black, and with the greys around 4.5:1, are well known."""
    assert contrast("#ffffff", "#000000") == 21
    assert f"{contrast('#767676', '#ffffff'):.2f}" == "4.54"
    assert f"{contrast('#777777', '#ffffff'):.2f}" == "4.48"


def test_the_backgrounds_are_those_of_the_pages():
    """The page is the darker one in light, and Pico's card is the lighter one in dark."""
    styles = (STATIC / "onboard.css").read_text()
    assert re.findall(r"--page: (#[0-9a-f]{6});", styles) == [LIGHT, "#13171f"]
    cards = re.findall(
        r"--pico-card-background-color:([^;]+);", (STATIC / "pico.min.css").read_text()
    )
    assert cards == ["var(--pico-background-color)", DARK, DARK]
    assert contrast("#3366cc", "#13171f") > contrast("#3366cc", DARK)


# --- the logo ---


@pytest.fixture
def read_logo(tmp_path) -> Callable[[bytes], Logo]:
    def read(content):
        path = tmp_path / "logo.png"
        path.write_bytes(content)
        return logo(str(path))

    return read


def test_a_png_of_up_to_100_kb_is_read_with_its_size(read_logo):
    most = png(40, 10, size=LOGO_KB * 1000)
    assert read_logo(most) == Logo(most, 40, 10)
    assert "\\x89PNG" not in repr(read_logo(most)), "settings are shown in errors"
    with pytest.raises(ValueError, match="100 KB"):
        read_logo(png(40, 10, size=LOGO_KB * 1000 + 1))
    assert read_logo(png(2000, 1)).width == 2000


WHOLE = png()
HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 2, 0, 0, 0))
END = chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xd8\xff\xe0 a photo",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        SIGNATURE,
        SIGNATURE + END,
        SIGNATURE + HEADER,
        SIGNATURE + HEADER[:-1] + b"\0" + END,
        SIGNATURE + chunk(b"IHDR", b"") + END,
        *(WHOLE[:length] for length in range(8, len(WHOLE))),
        WHOLE + b"<script>",
        WHOLE.replace(b"IDAT", b"IDAX"),
    ],
)
def test_a_file_that_is_no_whole_png_is_refused(read_logo, content):
    with pytest.raises(ValueError, match="PNG"):
        read_logo(content)


def test_a_picture_that_would_fill_memory_and_one_without_pixels_are_refused(read_logo):
    for width, height in ((2001, 1), (1, 2001), (0, 1), (1, 0), (2**31, 2**31)):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        with pytest.raises(ValueError, match=f"This one has {width} by {height}"):
            read_logo(SIGNATURE + header + END)


def test_a_logo_that_can_not_be_read_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.png", "a\0b"):
        with pytest.raises(ValueError, match="a file that can be read"):
            logo(str(path))
