"""Additions to flask-smorest's OpenAPI document: refusals, enums by name, and examples.

Each field has an example (`doc` in app/api/kit/schemas.py). The example of a whole body consists of
its fields' examples.
"""

import inspect
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from flask_smorest import Blueprint
from marshmallow import Schema, fields

from app.api.kit.schemas import UUID_EXAMPLE, described
from app.strict_json import JsonObject

View = Callable[..., Any]

UUID_PARAMETER = {"type": "string", "format": "uuid", "examples": [UUID_EXAMPLE]}
# A view keeps its facts in this attribute. An operation has them under this key until it is
# completed.
_FACTS = "facts"


def example_of(schema: Schema) -> Any:
    """Return the example of a whole body.

    A schema whose fields exclude each other has its own EXAMPLE.
    """
    examples = {field.data_key or name: _example(field) for name, field in schema.fields.items()}
    return getattr(schema, "EXAMPLE", examples)


def _example(field: fields.Field[Any]) -> Any:
    if isinstance(field, fields.Nested):
        return example_of(field.schema)
    if isinstance(field, fields.Constant):
        return field.constant
    if "examples" in field.metadata:
        return field.metadata["examples"][0]
    if isinstance(field, fields.List):
        return [_example(field.inner)]
    if isinstance(field, fields.Enum):
        return next(iter(field.enum.__members__.values())).value
    return None


class _Converter(OpenAPIConverter):
    """apispec's converter, which adds OPENAPI and examples, and turns enums into references."""

    def schema2jsonschema(self, schema: Any) -> Any:
        return super().schema2jsonschema(schema) | getattr(schema, "OPENAPI", {})  # type: ignore[no-untyped-call]

    def field2property(self, field: fields.Field[Any]) -> JsonObject:
        property_: JsonObject = super().field2property(field) | field.metadata.get("openapi", {})
        name = field.metadata.get("component")
        if name is None and isinstance(field, fields.Enum):
            name = field.enum.__name__
        if name is None:
            return property_
        self.spec.components.schemas[name] = {"type": "string", "enum": property_["enum"]}
        reference = {"$ref": f"#/components/schemas/{name}"}
        return reference | described(property_.get("description", ""))


class Plugin(MarshmallowPlugin):
    """apispec's plugin for flask-smorest, which also completes operations from views' facts."""

    Converter = _Converter

    def operation_helper(self, *args: Any, **context: Any) -> None:
        for method, operation in context["operations"].items():
            _complete(method, operation, operation.pop(_FACTS))
        super().operation_helper(*args, **context)


def _complete(method: str, operation: JsonObject, facts: JsonObject) -> None:
    """Add each status that an operation can answer.

    OpenAPI's `default` response would allow any status.
    """
    statuses = {414, 431, 500, 503, *facts.get("fails", ())}
    if facts.get("public"):
        operation["security"] = []
    else:
        statuses |= {401, 403, 429}  # 429: the tenant's share or its number of refusals is used up
        if method != "get":
            # PostgreSQL aborts one of two transactions that deadlock
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
    """Add an example beside the schema of a body."""
    for media in body.get("content", {}).values():
        schema = media["schema"]
        if isinstance(schema, type):
            schema = schema()
        if isinstance(schema, Schema):
            media["example"] = example_of(schema)


def document(view: View, **facts: Any) -> View:
    """Keep a view's facts for the OpenAPI document.

    The facts are `scopes` (a key needs one of them) or `public`, and `fails`: the statuses of
    refusals that not every operation has. Generated clients name the operation after the view.
    """
    _, _, explained = (view.__doc__ or "").partition("\n")
    access = "Needs no API key."
    if "scopes" in facts:
        access = f"Scope: `{'` or `'.join(facts['scopes'])}`."
    description = f"{inspect.cleandoc(explained)}\n\n{access}".strip()
    vars(view)[_FACTS] = facts
    keep = Blueprint.doc(operationId=view.__name__, description=description, **{_FACTS: facts})
    return keep(view)  # type: ignore[no-any-return]  # flask-smorest has no types
