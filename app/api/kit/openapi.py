"""Additions to flask-smorest's OpenAPI document: refusals, enums by name, and examples.

Fields have examples (`doc` in app/api/kit/schemas.py). The example of a whole body consists of its
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

from app.api.kit.schemas import UUID_EXAMPLE, described
from app.strict_json import JsonObject

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


def example_of(schema: Schema) -> Any:
    """Return the example of a whole body.

    A schema whose fields exclude each other has its own EXAMPLE.
    """
    if hasattr(schema, "EXAMPLE"):
        return schema.EXAMPLE
    return {name: _example(field) for name, field in schema.fields.items()}


def _example(field: fields.Field[Any]) -> Any:
    if isinstance(field, fields.Nested):
        return example_of(field.schema)
    if isinstance(field, fields.Constant):
        return field.constant
    if examples := _examples(field):
        return examples[0]
    if isinstance(field, fields.List):
        return [_example(field.inner)]
    if isinstance(field, fields.Enum):
        return next(iter(field.enum.__members__.values())).value
    return None


def _examples(field: fields.Field[Any]) -> Any:
    """Return the field's own examples, or those of its kind."""
    for kind, example in _BY_KIND.items():
        if isinstance(field, kind):
            return field.metadata.get("examples", [example])
    return field.metadata.get("examples", [])


class _Converter(OpenAPIConverter):
    """apispec's converter, with a schema's OPENAPI, fields' examples, and enums as references."""

    def schema2jsonschema(self, schema: Any) -> Any:
        return super().schema2jsonschema(schema) | getattr(schema, "OPENAPI", {})  # type: ignore[no-untyped-call]

    def field2property(self, field: fields.Field[Any]) -> JsonObject:
        property_: JsonObject = super().field2property(field) | field.metadata.get("openapi", {})
        name = field.metadata.get("component")
        if name is None and isinstance(field, fields.Enum):
            name = field.enum.__name__
        if name is None:
            if examples := _examples(field):
                property_["examples"] = examples
            return property_
        self.spec.components.schemas[name] = {"type": "string", "enum": property_["enum"]}
        reference = {"$ref": f"#/components/schemas/{name}"}
        return reference | described(property_.get("description", ""))


class Plugin(MarshmallowPlugin):
    """apispec's plugin for flask-smorest, which also completes operations by their view's facts."""

    Converter = _Converter

    def operation_helper(self, *args: Any, **context: Any) -> None:
        for method, operation in context["operations"].items():
            _complete(method, operation, operation.pop(_FACTS))
        super().operation_helper(*args, **context)


def _complete(method: str, operation: JsonObject, facts: JsonObject) -> None:
    """Complete an operation with each status that it can answer.

    `default` would allow any status.
    """
    statuses = {414, 431, 500, 503, *facts.get("fails", ())}
    if facts.get("public"):
        operation["security"] = []
    else:
        statuses |= {401, 403, 429}  # 429 for a tenant's share, or for a flood of refusals
        if method != "get":
            # If two requests wait for each other's rows, PostgreSQL ends one of them.
            statuses.add(409)
    if body := operation.get("requestBody"):
        statuses |= {400, 413, 415, 422}
        schema = body["content"]["application/json"]["schema"]()
        body["required"] = any(field.required for field in schema.fields.values())
        _exemplify(body)
    if operation.get("parameters"):
        statuses |= {400, 422}
    responses = operation["responses"]
    for response in responses.values():
        if isinstance(response, dict):
            _exemplify(response)
    for status in sorted(statuses):
        responses[status] = HTTPStatus(status).name


def _exemplify(body: JsonObject) -> None:
    """Put an example beside the body's schema."""
    for media in body.get("content", {}).values():
        schema = media["schema"]
        if isinstance(schema, type):
            schema = schema()
        if isinstance(schema, Schema):
            media["example"] = example_of(schema)


def document(view: Callable[P, R], **facts: Any) -> Callable[P, R]:
    """Keep a view's facts for the OpenAPI document.

    Generated clients name the operation after the view. The facts are `scopes`, of which a key
    needs one, or `public`; and `fails`, the statuses of refusals that not every operation has.
    """
    _, _, explained = (view.__doc__ or "").partition("\n")
    access = "Needs no API key."
    if "scopes" in facts:
        access = f"Scope: `{'` or `'.join(facts['scopes'])}`."
    description = f"{inspect.cleandoc(explained)}\n\n{access}".strip()
    vars(view)[_FACTS] = facts
    keep = Blueprint.doc(operationId=view.__name__, description=description, **{_FACTS: facts})
    return keep(view)  # type: ignore[no-any-return]  # flask-smorest has no types
