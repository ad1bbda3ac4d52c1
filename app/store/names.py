"""Names as they are searched for: the same on every database, whose own ideas of case differ."""

import unicodedata

NAME_MAX = 200  # characters
AFTER_ALL_LETTERS = "\U0010ffff"  # Unicode's last code point, which no text holds


def folded(name: str) -> str:
    """The name without case, and in one form where a letter has several. For comparing, not for showing."""
    once = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", once)[:NAME_MAX]  # a few letters become longer
