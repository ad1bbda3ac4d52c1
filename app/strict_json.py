"""JSON from outside, read without Python's leniencies.

Python keeps the last of two equal keys, and accepts NaN, Infinity and lone surrogates; PostgreSQL accepts no NUL.
Each of them would be read differently by the next program, or fail in the middle of a transaction.
"""

import json
import math
from typing import Any, Never

MAX_DEPTH = 32


def parse(text: str | bytes) -> Any:
    """The value. Raises ValueError, saying what is wrong, for anything that is not strictly JSON in UTF-8."""
    try:
        value = json.loads(
            text.decode("utf-8") if isinstance(text, bytes) else text,
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_short,
        )
    except UnicodeDecodeError:
        raise ValueError("This is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"This is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check(value, MAX_DEPTH)
    return value


_TOO_DEEP = f"JSON nested deeper than {MAX_DEPTH} is not accepted."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("An object has the same key twice.")
    return found


def _no_constant(_name: str) -> Never:
    raise ValueError("NaN and Infinity are not JSON.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("A number is too large.")
    return number


def _short(text: str) -> int:
    if (
        len(text) > 100
    ):  # Python itself refuses more than 4,300, in words that only its programmers understand
        raise ValueError("A number has too many digits.")
    return int(text)


def _check(value: Any, depth: int) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("A string holds the character NUL.")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("A string holds half of a surrogate pair.")
        return
    if not isinstance(value, dict | list):
        return
    if depth == 0:
        raise ValueError(_TOO_DEEP)
    for item in (*value, *value.values()) if isinstance(value, dict) else value:
        _check(item, depth - 1)
