"""The text of an API key: its form, and what is stored of it.

A key's text is `dpk_<16 hex digits>_<43 characters>`. The digits identify the key's row. The 43
characters are 256 random bits.
"""

import hashlib
import re
import secrets

from app.errors import UnauthenticatedError

BAD_KEY = "This needs a valid API key: Authorization: Bearer dpk_..."
_KEY = re.compile(r"dpk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})", re.ASCII)

_DIFFERENT_CHARACTERS = 16  # the fewest in the secret part of a key that an operator wrote


def lookup_of(text: str) -> str:
    """Return the lookup digits in a key's text.

    Raises UnauthenticatedError if the text does not have the form of a key.
    """
    match = _KEY.fullmatch(text)
    if match is None:
        raise UnauthenticatedError(BAD_KEY)
    return match[1]


def digest_of(text: str) -> bytes:
    """Return the hash under which a key's text or a link's token is stored.

    A secret of 256 random bits needs no slow hash and no salt.
    """
    return hashlib.sha256(text.encode()).digest()


def lookup_of_operators_key(text: str) -> str:
    """Return the lookup digits of a key that an operator wrote, such as the bootstrap key.

    Raises ValueError for a malformed key, and for one with few different characters.
    """
    match = _KEY.fullmatch(text)
    if match is None:
        raise ValueError(
            "A key is dpk_, 16 lowercase hex digits, _, and 43 characters of A-Z a-z 0-9 _ -."
        )
    lookup, secret = match.groups()
    # About one of 2 * 10^13 random keys has fewer
    if len(set(secret)) < _DIFFERENT_CHARACTERS:
        raise ValueError(
            "This key's secret part is not random; make one with: flask --app wsgi keys generate"
        )
    return lookup


def generate_key() -> str:
    """Return the text of a new key: 8 random bytes to find it, and 32 random secret bytes."""
    return f"dpk_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"
