"""What the OpenAPI document says beyond flask-smorest: every refusal, enums by name, and examples.

Fields have examples (`doc` in app/http/fields.py). The example of a whole body is made of its
fields'.
"""

import inspect
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ParamSpec, TypeVar

from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from flask_smorest import Blueprint
from marshmallow import Schema, fields

from app.http.examples import UUID_EXAMPLE

P = ParamSpec("P")
R = TypeVar("R")

UUID_PARAMETER = {"type": "string", "format": "uuid", "examples": [UUID_EXAMPLE]}
# the name of a view's facts, on it and in its operation until the operation is complete
_FACTS = "facts"
_BY_KIND = {
    fields.UUID: UUID_EXAMPLE,
    fields.DateTime: "2026-01-31T12:00:00+00:00",
    fields.Boolean: True,
}


def example_of(schema: Schema) -> dict[str, Any]:
    """The example of a whole body. A schema whose fields exclude each other has an EXAMPLE of
    its own.
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
    """The field's own example, or the one of its kind."""
    of_kind = [value for kind, value in _BY_KIND.items() if isinstance(field, kind)]
    return list(field.metadata.get("examples", of_kind))


class _Converter(OpenAPIConverter):
    """apispec's, with a schema's OPENAPI, the fields' examples, and enums as references."""

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
        """Lists in a query are separated by commas."""
        return {"style": "form", "explode": False} if isinstance(field, fields.List) else {}


class Plugin(MarshmallowPlugin):
    """For flask-smorest, in place of apispec's own. It completes each operation by the view's
    facts.
    """

    Converter = _Converter

    def operation_helper(self, *args: Any, **context: Any) -> None:
        for method, operation in context["operations"].items():
            _complete(method, operation, operation.pop(_FACTS))
        super().operation_helper(*args, **context)


def _complete(method: str, doc: dict[str, Any], facts: dict[str, Any]) -> None:
    """Complete an operation. It lists each status that it can answer, because `default` would
    allow any status.
    """
    statuses = {414, 431, 500, 503, *facts.get("fails", ())}
    if facts.get("public"):
        doc["security"] = []
    else:
        statuses |= {401, 403, 429}  # of a tenant's share, or of a flood of refusals
        # Where two requests wait for each other's rows, PostgreSQL ends one of them.
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
    """Keep facts for the OpenAPI document. Generated clients name the operation as the view is
    named.

    `scopes`, of which a key needs one, or `public`; and `fails`: the statuses of refusals that not
    every operation has.
    """
    _, _, explained = (view.__doc__ or "").partition("\n")
    scopes = " or ".join(f"`{scope}`" for scope in facts.get("scopes", ()))
    access = f"Scope: {scopes}." if scopes else "Needs no API key."
    description = f"{inspect.cleandoc(explained)}\n\n{access}".strip()
    view.__dict__[_FACTS] = facts
    described = Blueprint.doc(operationId=view.__name__, description=description, **{_FACTS: facts})
    return described(view)  # type: ignore[no-any-return]  # flask-smorest has no types
