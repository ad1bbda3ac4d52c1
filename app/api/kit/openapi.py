"""Additions to flask-smorest's OpenAPI document: refusals, enums by name, and examples.

Fields have examples (`doc` in app/api/kit/fields.py). The example of a whole body consists of its
fields' examples.
"""

import inspect
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ParamSpec, TypeVar

from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from flask_smorest import Blueprint
from marshmallow import Schema, fields

from app.api.kit.examples import UUID_EXAMPLE

P = ParamSpec("P")
R = TypeVar("R")

UUID_PARAMETER = {"type": "string", "format": "uuid", "examples": [UUID_EXAMPLE]}
# The attribute of a view that holds its facts, and the key in its operation until that is complete.
_FACTS = "facts"
_BY_KIND = {
    fields.UUID: UUID_EXAMPLE,
    fields.DateTime: "2026-01-31T12:00:00+00:00",
    fields.Boolean: True,
}


def example_of(schema: Schema) -> dict[str, Any]:
    """Return the example of a whole body.

    A schema whose fields exclude each other has its own EXAMPLE.
    """
    own: dict[str, Any] | None = getattr(schema, "EXAMPLE", None)
    return own or {name: _example(field) for name, field in schema.fields.items()}


def _example(field: fields.Field[Any]) -> Any:
    found = next(iter(_given(field)), None)
    if isinstance(field, fields.Nested):
        return example_of(field.schema)
    if isinstance(field, fields.List) and found is None:
        return [_example(field.inner)]
    if isinstance(field, fields.Enum) and found is None:
        return next(iter(field.enum.__members__.values())).value
    return field.constant if isinstance(field, fields.Constant) else found


def _given(field: fields.Field[Any]) -> list[Any]:
    """Return the field's own examples, or those of its kind."""
    of_kind = [value for kind, value in _BY_KIND.items() if isinstance(field, kind)]
    return list(field.metadata.get("examples", of_kind))


class _Converter(OpenAPIConverter):
    """apispec's converter, with a schema's OPENAPI, fields' examples, and enums as references."""

    def schema2jsonschema(self, schema: Any) -> dict[str, Any]:
        described: dict[str, Any] = super().schema2jsonschema(schema)  # type: ignore[no-untyped-call]
        return described | getattr(schema, "OPENAPI", {})

    def field2property(self, field: fields.Field[Any]) -> dict[str, Any]:
        described: dict[str, Any] = super().field2property(field) | field.metadata.get(
            "openapi", {}
        )
        of_enum = field.enum.__name__ if isinstance(field, fields.Enum) else None
        name = field.metadata.get("component", of_enum)
        if name is None:
            return described | ({"examples": found} if (found := _given(field)) else {})
        values = [value for value in described.pop("enum") if value is not None]
        self.spec.components.schemas[name] = {"type": "string", "enum": values}
        reference = {"$ref": f"#/components/schemas/{name}"}
        words = {key: value for key, value in described.items() if key == "description"}
        return words | ({"anyOf": [reference, {"type": "null"}]} if field.allow_none else reference)

    def list2param(self, field: fields.Field[Any], **_: Any) -> dict[str, Any]:
        """Return the style of a list in a query: values are separated by commas."""
        return {"style": "form", "explode": False} if isinstance(field, fields.List) else {}


class Plugin(MarshmallowPlugin):
    """apispec's plugin for flask-smorest, which also completes operations by their view's facts."""

    Converter = _Converter

    def operation_helper(self, *args: Any, **context: Any) -> None:
        for method, operation in context["operations"].items():
            _complete(method, operation, operation.pop(_FACTS))
        super().operation_helper(*args, **context)


def _complete(method: str, doc: dict[str, Any], facts: dict[str, Any]) -> None:
    """Complete an operation with each status that it can answer.

    `default` would allow any status.
    """
    statuses = {414, 431, 500, 503, *facts.get("fails", ())}
    if facts.get("public"):
        doc["security"] = []
    else:
        statuses |= {401, 403, 429}  # 429 for a tenant's share, or for a flood of refusals
        # If two requests wait for each other's rows, PostgreSQL ends one of them.
        statuses |= {409} if method != "get" else set()
    if body := doc.get("requestBody"):
        statuses |= {400, 413, 415, 422}
        schema = body["content"]["application/json"]["schema"]()
        body["required"] = any(field.required for field in schema.fields.values())
    if doc.get("parameters"):
        statuses |= {400, 422}
    _exemplify(doc)
    doc.setdefault("responses", {}).update(
        {status: HTTPStatus(status).name for status in sorted(statuses)}
    )


def _exemplify(doc: dict[str, Any]) -> None:
    """Put an example beside the schema of each body."""
    for part in (doc.get("requestBody", {}), *doc.get("responses", {}).values()):
        for media in part.get("content", {}).values() if isinstance(part, dict) else ():
            schema = media.get("schema")
            if isinstance(schema, type) and issubclass(schema, Schema):
                schema = schema()
            if isinstance(schema, Schema):
                media["example"] = example_of(schema)


def document(view: Callable[P, R], **facts: Any) -> Callable[P, R]:
    """Keep a view's facts for the OpenAPI document.

    Generated clients name the operation after the view. The facts are `scopes`, of which a key
    needs one, or `public`; and `fails`, the statuses of refusals that not every operation has.
    """
    _, _, explained = (view.__doc__ or "").partition("\n")
    scopes = " or ".join(f"`{scope}`" for scope in facts.get("scopes", ()))
    access = f"Scope: {scopes}." if scopes else "Needs no API key."
    description = f"{inspect.cleandoc(explained)}\n\n{access}".strip()
    view.__dict__[_FACTS] = facts
    described = Blueprint.doc(operationId=view.__name__, description=description, **{_FACTS: facts})
    return described(view)  # type: ignore[no-any-return]  # flask-smorest has no types
