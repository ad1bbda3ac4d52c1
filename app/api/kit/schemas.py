"""Bodies, queries and pages that all resources share.

Each resource's own are in its module in app/api. A request with an unknown field is refused, and
the OpenAPI document says so. Answers may gain fields in later releases, so the document leaves them
open.
"""

import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, missing, pre_load, validate

from app.api.kit.fields import Digits, Time, doc, string

_LONGEST = 4096  # characters or items, if the field has no limit of its own


class Strict(Schema):
    class Meta:
        unknown = (
            RAISE  # the default; spelled out because it sets additionalProperties: false in OpenAPI
        )

    @pre_load
    def _within_bounds(self, data: Any, **_: Any) -> Any:
        """Refuse values that are too long before their items are read.

        Reading would cost time for each item.
        """
        if isinstance(data, Mapping):
            problems = dict(
                filter(
                    all, ((name, _too_long(f, data.get(name))) for name, f in self.fields.items())
                )
            )
            if problems:
                raise ValidationError(problems)
        return data


def _too_long(field: Any, value: Any) -> list[str] | None:
    if not isinstance(value, str | list):
        return None
    lengths = (one.max for one in field.validators if isinstance(one, validate.Length))
    most = next(lengths, None) or _LONGEST
    return [f"Must not be longer than {most}."] if len(value) > most else None


class Answer(Schema):
    """The fields of an answer, which are always there and required in OpenAPI.

    The exceptions are the fields in OPTIONAL.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset()

    class Meta:
        unknown = (
            EXCLUDE  # answers are never loaded; this leaves additionalProperties out of OpenAPI
        )

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._members = [
            (name, field, _attribute(name, field)) for name, field in self.dump_fields.items()
        ]

    def dump(self, obj: Any, *, many: bool | None = None) -> Any:
        """Return the fields of an object or a dict.

        Values that orjson writes by itself are not converted. Marshmallow's own `dump` calls five
        functions for each field, which took a third of the time of a list.
        """
        if self.many if many is None else many:
            return [self.dump(one, many=False) for one in obj]
        read = obj.get if isinstance(obj, dict) else partial(getattr, obj)
        answer = {}
        for name, field, attribute in self._members:
            value = read(attribute, missing) if attribute else field.serialize(name, obj)
            if value is not missing:
                answer[field.data_key or name] = value
        return answer

    def on_bind_field(self, name: str, field: fields.Field[Any]) -> None:
        field.required = name not in self.OPTIONAL


_WRITTEN_BY_ORJSON = {fields.String, fields.Integer, fields.Boolean, fields.UUID, fields.Enum, Time}


def _attribute(name: str, field: Any) -> str | None:
    """Return the attribute that is answered as it is stored.

    None if the field makes its own value.
    """
    attribute: str = field.attribute or name
    return attribute if type(field) in _WRITTEN_BY_ORJSON and "." not in attribute else None


class Empty(Strict):
    """A body without fields."""


_CURSOR = "IjAxOWMxZjZlLThhMDAtN2MzYi05ZDQxLTVmMGU3YTJiNmMxOCI.aBcD1234"


class PageQuery(Strict):
    limit = Digits(load_default=50, validate=validate.Range(1, 200), metadata=doc(50))
    cursor = string(_CURSOR, "next_cursor of the page before.", validate=validate.Length(1, 500))


class AsStored(fields.List[Any]):
    """A list that is stored as it is answered, so its items are not serialized again."""

    def _serialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return value


class Rows(fields.List[Any]):
    """The rows of a list. Between some of them the process serves other requests."""

    _AT_ONCE = 10

    def _serialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return super()._serialize(self._with_pauses(value), *args, **kwargs)

    def _with_pauses(self, rows: Any) -> Iterator[Any]:
        for number, row in enumerate(rows, start=1):
            yield row
            if number % self._AT_ONCE == 0:
                time.sleep(0)


def page_of(item: type[Schema]) -> type[Schema]:
    """Return the schema of one page of a list."""
    cursor = string(_CURSOR, "null on the last page.", allow_none=True)
    members = {"items": Rows(fields.Nested(item)), "next_cursor": cursor}
    return type(f"{item.__name__}Page", (Answer,), members)
