"""The kinds of fields, and the bodies and queries that all resources share.

Each resource's own schemas are in its module in app/api. A request with an unknown field is
refused, and the OpenAPI document says so. Answers may gain fields in later releases, so the
document allows further fields. It also shows each field's example.
"""

import enum
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, missing, pre_load, validate

from app.clock import as_given
from app.http.current_request import principal
from app.settings.valid_values import is_line
from app.strict_json import JsonObject

_LONGEST = 4096  # characters or items, if the field has no limit of its own
# Values for examples
ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/deputy-7a2b6c18"
EXTERNAL_ID = "dpy-" + "0123456789abcdef" * 4
NEXT_EXTERNAL_ID = "dpy-" + "fedcba9876543210" * 4
UUID_EXAMPLE = "019c1f6e-8a00-7c3b-9d41-5f0e7a2b6c18"

Kind = TypeVar("Kind", bound=fields.Field[Any])


def doc(example: Any, description: str = "", **more: Any) -> JsonObject:
    """Return a field's metadata: an example, a description, and further keys of OpenAPI."""
    return {"examples": [example]} | described(description) | more


def described(description: str) -> JsonObject:
    """Return the metadata of a field whose example consists of other fields' examples."""
    return {"description": description} if description else {}


def _field(kind: Callable[..., Kind], example: Any, description: str = "", **options: Any) -> Kind:
    return kind(metadata=doc(example, description), **options)


string = partial(_field, fields.String)
nullable_string = partial(string, allow_none=True)
number = partial(_field, fields.Integer)
flag = partial(_field, fields.Boolean, True)
uuid = partial(_field, fields.UUID, UUID_EXAMPLE)
nullable_uuid = partial(uuid, allow_none=True)
mapping = partial(_field, fields.Dict)
choice = partial(fields.Enum, by_value=True)


class Truth(fields.Boolean):
    """A boolean that accepts only JSON's true and false.

    marshmallow's `truthy` and `falsy` also accept 1 and 0, because in Python 1 equals True.
    """

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class Digits(fields.Integer):
    """A number in a query, in ASCII digits alone.

    Python's int also accepts "+1", " 1", "1_0" and digits of other scripts.
    """

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> int:
        if not re.fullmatch(r"[0-9]+", value):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, *args, **kwargs)


digits = partial(_field, Digits)


def seconds(default: int, least: int, most: int, description: str) -> fields.Integer:
    """Return a field for an optional duration. The description says the default."""
    bounds = validate.Range(least, most)
    return number(default, description, strict=True, load_default=default, validate=bounds)


def nested(schema: type[Schema], description: str = "", **options: Any) -> fields.Nested:
    return fields.Nested(schema, metadata=described(description), **options)


def list_of(schema: type[Schema], description: str = "", **options: Any) -> fields.List[Any]:
    return fields.List(fields.Nested(schema), metadata=described(description), **options)


def policy(example: JsonObject, description: str = "", **options: Any) -> fields.Dict:
    """Return a field for an IAM policy document."""
    metadata = doc(example, description, component="PolicyDocument")
    return fields.Dict(metadata=metadata, **options)


def statement() -> fields.Dict:
    """Return a field for a statement of an IAM policy."""
    return fields.Dict(metadata={"component": "PolicyStatement"})


def line(maximum: int, example: str, description: str = "", **options: Any) -> fields.String:
    """Return a field for one line of printable text."""
    metadata = doc(example, description, openapi={"pattern": _LINE})
    return fields.String(
        validate=[validate.Length(1, maximum), _printable], metadata=metadata, **options
    )


# The part of `_printable` that every dialect of regular expressions can express: not blank, no line
# breaks, no control characters
_LINE = r"^ *[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u00a0\u2028\u2029]*$"


def _printable(value: str) -> None:
    if is_line(value):
        return
    if value.isprintable():
        raise ValidationError("Must not be blank.")
    raise ValidationError("Only printable characters, on one line.")


class Matches(validate.Regexp):
    """A pattern that the whole text must match.

    marshmallow's own validator uses `match`, where `$` accepts a trailing newline.
    """

    def __call__(self, value: Any) -> Any:
        if not self.regex.fullmatch(value):
            raise ValidationError(self.error)
        return value


def matching(pattern: str, example: str, description: str = "") -> fields.String:
    whole = Matches(f"^{pattern}$", re.ASCII, error=f"Must match {pattern}")
    return string(example, description, validate=whole)


class Time(fields.AwareDateTime):
    """An ISO 8601 time with an offset. The service gets it in UTC."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> datetime:
        given: datetime = super()._deserialize(value, *args, **kwargs)
        try:
            return as_given(given)
        except ValueError as error:
            raise ValidationError(str(error).capitalize()) from error


date_time = partial(_field, Time, "2026-01-31T12:00:00+00:00")
nullable_date_time = partial(date_time, allow_none=True)


def status(kind: type[enum.StrEnum], example: str) -> fields.Enum[Any]:
    """Return a field for a status other than `deleted`, which the API never shows."""
    listed = list(kind)
    listed.remove(kind("deleted"))
    return choice(
        kind,
        validate=validate.NoneOf(["deleted"], error="Deleted things are not listed."),
        metadata=doc(example, openapi={"enum": listed}),
    )


class Statuses(fields.List[Any]):
    """Statuses of a query, repeated or separated by commas; sorted and without duplicates.

    Generated clients repeat the parameter. The statuses are sorted because the signature of a
    cursor covers them.
    """

    def __init__(self, kind: type[enum.StrEnum], *examples: str, **options: Any) -> None:
        self._most = len(kind) - 1  # all but `deleted`
        bounds = {"minItems": 1, "maxItems": self._most}
        metadata = doc(
            [*examples], "One, or several, repeated or separated by commas.", openapi=bounds
        )
        super().__init__(status(kind, examples[0]), metadata=metadata, **options)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> list[Any]:
        text = ",".join(value)
        if not text or text.count(",") >= self._most:
            raise ValidationError(f"Between 1 and {self._most} values, separated by commas.")
        return sorted(set(super()._deserialize(text.split(","), *args, **kwargs)))


def one_of(component: str, *values: str, **options: Any) -> fields.String:
    """Return a field for one of a few words.

    `component`: the name of the type in generated clients.
    """
    return fields.String(
        validate=validate.OneOf(values), metadata=doc(values[0], component=component), **options
    )


class Strict(Schema):
    class Meta:
        # The default; spelled out because it sets additionalProperties: false in OpenAPI
        unknown = RAISE

    @pre_load
    def _within_bounds(self, data: Any, **_: Any) -> Any:
        """Refuse values that are too long, before each of their items costs time."""
        problems = {}
        if isinstance(data, Mapping):
            for attribute, field in self.fields.items():
                name = field.data_key or attribute
                value = data.get(name)
                is_no_list = isinstance(value, str) and isinstance(field, fields.List)
                most = _LONGEST if is_no_list else _longest(field)
                if isinstance(value, str | list) and len(value) > most:
                    problems[name] = [f"Must not be longer than {most}."]
        if problems:
            raise ValidationError(problems)
        return data


def _longest(field: fields.Field[Any]) -> int:
    for validator in field.validators:
        if isinstance(validator, validate.Length) and validator.max:
            return validator.max
    return _LONGEST


class AsStored(fields.List[Any]):
    """A list whose stored items are answered unchanged, so they are not serialized again."""


_WRITTEN_BY_ORJSON = {
    fields.String,
    fields.Integer,
    fields.Boolean,
    fields.UUID,
    fields.Enum,
    Time,
    AsStored,
}


class Answer(Schema):
    """The fields of an answer.

    OpenAPI lists all of them as required, except those in OPTIONAL. If a schema has a method
    `read_<field>`, that computes the field's value from the object.
    """

    OPTIONAL: frozenset[str] = frozenset()

    class Meta:
        # Answers are never loaded; this leaves additionalProperties out of OpenAPI
        unknown = EXCLUDE

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._sources = {
            field.data_key or name: self._source(name, field)
            for name, field in self.dump_fields.items()
        }

    def _source(self, name: str, field: Any) -> Any:
        """Return the attribute whose value is answered unchanged, or a function for the value."""
        attribute = field.attribute or name
        if type(field) in _WRITTEN_BY_ORJSON and "." not in attribute:
            source = attribute
        else:
            source = partial(field.serialize, name)
        return getattr(self, f"read_{name}", source)

    def dump(self, obj: Any, **_: Any) -> Any:
        """Return the fields of an object or a dict.

        Values that orjson can write are not converted. Marshmallow's own `dump` calls five
        functions for each field, which took a third of the time of a list.
        """
        read = obj.get if isinstance(obj, dict) else partial(getattr, obj)
        answer = {}
        for name, source in self._sources.items():
            value = read(source, missing) if isinstance(source, str) else source(obj)
            if value is not missing:
                answer[name] = value
        return answer

    def on_bind_field(self, name: str, field: fields.Field[Any]) -> None:
        field.required = name not in self.OPTIONAL


class Empty(Strict):
    """A body without fields."""


def component_of(schema: type[Schema]) -> str:
    """Return the schema's name in the document and in generated clients."""
    return schema.__name__.removesuffix("Out")


class Reason(Strict):
    reason = line(200, "Ticket 4711", "For the audit log.", required=True)


class SuspensionOut(Answer):
    at = date_time()
    by = string("api_key", "The kind of actor.")
    reason = nullable_string("Ticket 4711")

    def read_reason(self, suspension: JsonObject) -> Any:
        """Return the reason. The vendor's is internal: a key bound to a tenant gets null."""
        if principal().is_vendor or suspension["bound"]:
            return suspension["reason"]
        return None


_SUSPENDED = (
    "Since when, by whom and why; null: not suspended. A bound key does not see the vendor's"
    " reason."
)
SUSPENDED = nested(SuspensionOut, _SUSPENDED, allow_none=True, attribute="suspension")
