"""What goes in and what comes out, field by field.

Unknown fields of a request are refused, and so says the OpenAPI document. Answers may gain fields in later releases:
the document does not close them.
"""

from collections.abc import Mapping
from typing import Any

from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, pre_load, validate

from app.http.fields import like

_LONGEST = 4096  # characters or items of a value whose field says nothing of its length


class Strict(Schema):
    class Meta:
        unknown = RAISE  # the default; spelled out, as it also says additionalProperties: false in OpenAPI

    @pre_load
    def _within_bounds(self, data: Any, **_: Any) -> Any:
        """Count what a value holds before any of it is read: too long a list must not cost what its items do."""
        if isinstance(data, Mapping):
            problems = dict(filter(all, ((name, _too_long(f, data.get(name))) for name, f in self.fields.items())))
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
    """Every field is always there, and required in OpenAPI, unless its metadata says `optional`."""

    class Meta:
        unknown = EXCLUDE  # no answer is ever loaded; said because it leaves additionalProperties out of OpenAPI

    def on_bind_field(self, _name: str, field: fields.Field[Any]) -> None:
        field.required = not field.metadata.get("optional")


class Empty(Strict):
    """A body with nothing in it, for what needs no more than its path."""


_CURSOR = "IjAxOWMxZjZlLThhMDAtN2MzYi05ZDQxLTVmMGU3YTJiNmMxOCI.aBcD1234"


class PageQuery(Strict):
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 200), metadata=like(50))
    cursor = fields.String(validate=validate.Length(1, 500), metadata=like(_CURSOR, "next_cursor of the page before."))


def page_of(item: type[Schema]) -> type[Schema]:
    """The schema of one page of a list."""
    members = {
        "items": fields.List(fields.Nested(item)),
        "next_cursor": fields.String(allow_none=True, metadata=like(_CURSOR, "null after the last page.")),
    }
    return type(f"{item.__name__}Page", (Answer,), members)
