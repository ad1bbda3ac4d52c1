"""A strict parser for JSON from outside.

Python's parser keeps the last of two equal keys, and accepts NaN, Infinity and lone surrogates.
Another program might read such text differently. PostgreSQL accepts no NUL, so a transaction with
one would fail in the middle.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any, Never

JsonObject = dict[str, Any]

MAX_DEPTH = 32
# Maximums for accepted JSON. The longest list that a request may contain has 10,000 items.
MAX_VALUES = 20_000
MAX_KEYS = 1_000  # per object
MAX_KEY = 256  # characters; the longest keys in valid requests are IAM's condition keys
MAX_DIGITS = 100  # per number

_HALF = re.compile("[\ud800-\udfff]")  # half of a surrogate pair


def parse(text: str | bytes) -> Any:
    """Parse strict JSON in UTF-8, and return its value.

    Raises ValueError, with the reason, for any other text. A text that may contain too many values
    is refused before it is parsed. The cost is proportional to the text's length.
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        if sum(map(decoded.count, ",[{")) > MAX_VALUES:
            raise ValueError(f"JSON of more than {MAX_VALUES} values is not accepted.")
        value = json.loads(
            decoded,
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except UnicodeDecodeError:
        raise ValueError("This is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"This is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    # json.loads refuses raw control characters, and valid UTF-8 has no surrogates. So only an
    # escape makes NUL or half of a surrogate pair, and each level has a bracket. Most bodies have
    # no escape and few brackets. Their strings are not checked, which would be three quarters of
    # the work.
    may_be_deep = decoded.count("[") + decoded.count("{") > MAX_DEPTH
    if may_be_deep or "\\u" in decoded or not isinstance(text, bytes):
        _ensure_acceptable(value)
    return value


def parse_accepted(text: str) -> Any:
    """Parse JSON that another service has accepted, such as a role's trust policy.

    Keys, numbers and strings that `parse` refuses are kept or replaced here. Otherwise the author
    of one such value could hide the rest of the document. Keys that become equal by a replacement
    get a suffix. Raises ValueError if the text can't be parsed, or has the same key twice.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_number,
            parse_int=_number,
        )
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    return _with_strings(value, _storable, MAX_DEPTH)


_TOO_DEEP = f"JSON nested deeper than {MAX_DEPTH} is not accepted."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if not pairs:  # a body may have a thousand of them
        return {}
    if len(pairs) > MAX_KEYS:
        raise ValueError(f"An object has more than {MAX_KEYS} keys.")
    value = _unique(pairs)
    if len(max(value, key=len)) > MAX_KEY:
        raise ValueError(f"An object has a key of more than {MAX_KEY} characters.")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("An object has the same key twice.")
    return value


def _no_constant(_name: str) -> Never:
    raise ValueError("NaN and Infinity are not JSON.")


def _finite(text: str) -> float:
    number = float(_short(text))
    if not math.isfinite(number):
        raise ValueError("A number is too large.")
    return number


def _whole(text: str) -> int:
    return int(_short(text))


def _short(text: str) -> str:
    # Python refuses integers of more than 4,300 digits, but its message is for programmers.
    if len(text) > MAX_DIGITS:
        raise ValueError(f"A number has more than {MAX_DIGITS} digits.")
    return text


def _ensure_acceptable(value: Any) -> None:
    """Raise ValueError if the value is nested too deep, or a string has NUL or half of a pair.

    It goes level by level, because a call for each value would take ten times as long.
    """
    texts, level = list[str](), [value]
    for depth in range(MAX_DEPTH + 1):
        texts += [item for item in level if isinstance(item, str)]
        objects = [item for item in level if isinstance(item, dict)]
        lists = [item for item in level if isinstance(item, list)]
        if not (objects or lists):
            break
        if depth == MAX_DEPTH:
            raise ValueError(_TOO_DEEP)
        texts += [key for item in objects for key in item]
        level = [inner for item in objects for inner in item.values()]
        level += [inner for item in lists for inner in item]
    text = "".join(texts)
    if "\0" in text:
        raise ValueError("A string holds the character NUL.")
    if _HALF.search(text):
        raise ValueError("A string holds half of a surrogate pair.")


def _number(text: str) -> int | float | str:
    """Return the number; return its text if it is too long or too large."""
    try:
        return _whole(text) if text.lstrip("-").isdigit() else _finite(text)
    except ValueError:
        return text


def _storable(text: str) -> str:
    return _HALF.sub("\ufffd", text.replace("\0", "\ufffd"))


def _with_strings(value: Any, convert: Callable[[str], str], depth: int) -> Any:
    """Return a copy of the value, in which all keys and strings are converted."""
    if isinstance(value, str):
        return convert(value)
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        raise ValueError(_TOO_DEEP)
    if isinstance(value, list):
        return [_with_strings(item, convert, depth - 1) for item in value]
    copy: JsonObject = {}
    for key, item in value.items():
        name = convert(key)
        while name in copy:  # two keys differed only in characters that were replaced
            name += str(len(copy))
        copy[name] = _with_strings(item, convert, depth - 1)
    return copy
