"""The kinds of fields that schemas are made of.

Each takes an example, which the OpenAPI document shows.
"""

import enum
import re
from datetime import datetime
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from app.clock import as_given
from app.settings.checks import is_line


def doc(example: Any, description: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a field's metadata: an example, a description, and further keys of OpenAPI."""
    return {"examples": [example]} | _described(description) | more


def string(example: str | None, description: str | None = None, **options: Any) -> fields.String:
    return fields.String(metadata=doc(example, description), **options)


def number(example: int | None, description: str | None = None, **options: Any) -> fields.Integer:
    return fields.Integer(metadata=doc(example, description), **options)


def _described(description: str | None) -> dict[str, str]:
    return {"description": description} if description else {}


def flag(description: str, **options: Any) -> fields.Boolean:
    return fields.Boolean(metadata=_described(description), **options)


class Truth(fields.Boolean):
    """A boolean: true or false.

    A set of allowed values does not do, because in Python 1 equals True.
    """

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class Digits(fields.Integer):
    """A number in a query, in ASCII digits alone.

    Python's int also accepts "+1", " 1", "1_0" and digits of other scripts.
    """

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> int:
        if not re.fullmatch(r"[0-9]+", value):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


def uuid(description: str, **options: Any) -> fields.UUID:
    return fields.UUID(metadata=_described(description), **options)


def seconds(default: int, least: int, most: int, description: str) -> fields.Integer:
    """Return a field for an optional duration."""
    return number(
        default,
        description,
        strict=True,
        load_default=default,
        validate=validate.Range(least, most),
    )


def nested(schema: type[Schema], description: str | None = None, **options: Any) -> fields.Nested:
    return fields.Nested(schema, metadata=_described(description), **options)


def line(
    maximum: int, example: str, description: str | None = None, **options: Any
) -> fields.String:
    """Return a field for one line of printable text."""
    metadata = doc(example, description, openapi={"pattern": _LINE})
    return fields.String(
        validate=[validate.Length(1, maximum), _printable], metadata=metadata, **options
    )


# The part of `_printable` that every dialect of regular expressions can express: not blank, no line
# breaks, no control characters.
_LINE = r"^ *[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u00a0\u2028\u2029]*$"


def _printable(value: str) -> None:
    if not is_line(value):
        blank = value.isprintable()
        raise ValidationError(
            "Must not be blank." if blank else "Only printable characters, on one line."
        )


class Matches(validate.Regexp):
    """A pattern that the whole text must match.

    marshmallow's own validator uses `match`, where `$` accepts a trailing newline.
    """

    def __init__(self, pattern: str) -> None:
        super().__init__(f"^{pattern}$", re.ASCII)
        self._whole = re.compile(pattern, re.ASCII)

    def __call__(self, value: Any) -> Any:
        if not self._whole.fullmatch(value):
            raise ValidationError(f"Must match {self._whole.pattern}")
        return value


def matching(pattern: str, example: str, description: str | None = None) -> fields.String:
    return string(example, description, validate=Matches(pattern))


class Time(fields.AwareDateTime):
    """An ISO 8601 time with an offset. The service gets it in UTC."""

    def __init__(self, description: str | None = None, **options: Any) -> None:
        super().__init__(format="iso", metadata=_described(description), **options)

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> datetime:
        given: datetime = super()._deserialize(value, attr, data, **kwargs)
        try:
            return as_given(given)
        except ValueError as error:
            raise ValidationError(str(error).capitalize()) from error


class FromSameObject(fields.Nested):
    """A nested object whose values are attributes of the outer object."""

    def get_value(self, obj: Any, *_: Any, **__: Any) -> Any:
        return obj


def status(kind: type[enum.StrEnum], example: str) -> fields.Enum[Any]:
    """Return a field for a status other than `deleted`, which the API never shows."""
    metadata = doc(
        example, openapi={"enum": [member.value for member in kind if member.value != "deleted"]}
    )
    listed = validate.NoneOf(["deleted"], error="Deleted things are not listed.")
    return fields.Enum(kind, by_value=True, validate=listed, metadata=metadata)


class Statuses(fields.List[Any]):
    """Statuses, separated by commas; sorted and without duplicates.

    Cursors are signed with them.
    """

    is_multiple = False  # webargs: the parameter is given once

    def __init__(self, kind: type[enum.StrEnum], *examples: str) -> None:
        self._most = len(kind) - 1  # all but `deleted`
        bounds = {"minItems": 1, "maxItems": self._most}
        described = doc([*examples], "One, or several separated by commas.", openapi=bounds)
        super().__init__(status(kind, examples[0]), metadata=described)

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> list[Any]:
        if not value or value.count(",") >= self._most:
            raise ValidationError(f"Between 1 and {self._most} values, separated by commas.")
        return sorted(set(super()._deserialize(value.split(","), attr, data, **kwargs)))


def one_of(component: str, *values: str, **options: Any) -> fields.String:
    """Return a field for one of a few words.

    `component`: the name of the type in generated clients.
    """
    return fields.String(
        validate=validate.OneOf(values), metadata=doc(values[0], component=component), **options
    )
