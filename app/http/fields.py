"""The kinds of fields that schemas are made of. Each has an example, for the OpenAPI document."""

import enum
import re
from datetime import UTC, datetime
from typing import Any

from marshmallow import ValidationError, fields, validate

# What examples name.
ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/deputy-7a2b6c18"
EXTERNAL_ID = "dpy-" + "0123456789abcdef" * 4


def like(example: Any, description: str | None = None, **more: Any) -> dict[str, Any]:
    """A field's metadata: what it may look like, and what it is."""
    return {"examples": [example]} | ({"description": description} if description else {}) | more


def string(
    example: str | None, description: str | None = None, *, optional: bool = False, **more: Any
) -> fields.String:
    return fields.String(metadata=like(example, description, optional=optional), **more)


def text(maximum: int, example: str, description: str | None = None, **options: Any) -> fields.String:
    """One line of printable text: databases, logs and CloudTrail all show it as it was meant."""
    metadata = like(example, description, openapi={"pattern": _LINE})
    return fields.String(validate=[validate.Length(1, maximum), _printable], metadata=metadata, **options)


# What of `_printable` every dialect of regular expressions can say: no line break or control character, not blank.
_LINE = r"^ *[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u00a0\u2028\u2029]*$"


def _printable(value: str) -> None:
    if not value.isprintable():
        raise ValidationError("Only printable characters, on one line.")
    if not value.strip():
        raise ValidationError("Must not be blank.")


class Matches(validate.Regexp):
    """The whole text matches: `match` with `$`, as marshmallow does it, lets a trailing newline pass."""

    def __init__(self, pattern: str) -> None:
        super().__init__(f"^{pattern}$", re.ASCII)
        self._whole = re.compile(pattern, re.ASCII)

    def __call__(self, value: Any) -> Any:
        if not self._whole.fullmatch(value):
            raise ValidationError(f"Must match {self._whole.pattern}")
        return value


class Time(fields.AwareDateTime):
    """An ISO 8601 time with its offset, in UTC from here on."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> datetime:
        given: datetime = super()._deserialize(value, attr, data, **kwargs)
        if not 1970 <= given.year <= 9998:  # outside, turning it into UTC may overflow
            raise ValidationError("Must be between the years 1970 and 9998.")
        return given.astimezone(UTC)


def time(**options: Any) -> Time:
    return Time(format="iso", **options)


class Whole(fields.Nested):
    """A nested object that is made of the very object it is nested in."""

    def get_value(self, obj: Any, *_: Any, **__: Any) -> Any:
        return obj


def status(kind: type[enum.StrEnum], example: str, **options: Any) -> fields.Enum[Any]:
    """A status as it is shown: what is deleted is shown to nobody."""
    metadata = like(example, openapi={"enum": [member.value for member in kind if member.value != "deleted"]})
    return fields.Enum(kind, by_value=True, validate=_not_deleted, metadata=metadata, **options)


def _not_deleted(value: enum.StrEnum) -> None:
    if value.value == "deleted":
        raise ValidationError("What is deleted is not shown.")


class Statuses(fields.List[Any]):
    """Some statuses, separated by commas; each once and in the alphabet's order, as cursors name them."""

    is_multiple = False  # webargs: the parameter is given once

    def __init__(self, kind: type[enum.StrEnum], *examples: str) -> None:
        self._most = len(kind) - 1  # all but what is deleted
        bounds = {"minItems": 1, "maxItems": self._most}
        described = like([*examples], "One, or several separated by commas.", openapi=bounds)
        super().__init__(status(kind, examples[0]), metadata=described)

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> list[Any]:
        if not value or value.count(",") >= self._most:
            raise ValidationError(f"Between 1 and {self._most} of them, separated by commas.")
        return sorted(set(super()._deserialize(value.split(","), attr, data, **kwargs)))


def one_of(component: str, *values: str) -> fields.String:
    """One of a few words, in an answer. `component`: what generated clients call the type."""
    return fields.String(validate=validate.OneOf(values), metadata=like(values[0], component=component))
