"""Additions to flask-smorest's OpenAPI document: refusals, enums by name, and examples.

Each field has an example (`doc` in app/api/kit/schemas.py). The example of a whole body consists of
its fields' examples.
"""

import inspect
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from flask_smorest import Blueprint
from marshmallow import Schema, fields

from app.api.kit.schemas import UUID_EXAMPLE, described
from app.strict_json import JsonObject

View = Callable[..., Any]

NAME_PARAMETER = {"type": "string", "examples": ["inventory"]}  # a permission set's
UUID_PARAMETER = {"type": "string", "format": "uuid", "examples": [UUID_EXAMPLE]}


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
    Converter = _Converter


def document(view: View, method: str, scopes: Sequence[str], refusals: set[int]) -> View:
    """Describe a view: who may call it, and each status with which it may refuse.

    OpenAPI's `default` response would allow any status. Generated clients name the operation after
    the view. No scopes: the view needs no key; tests/test_architecture.py lists these views.
    """
    _, _, explained = (view.__doc__ or "").partition("\n")
    vars(view)["scopes"] = scopes
    facts: JsonObject = {"operationId": view.__name__}
    statuses = refusals | {414, 431, 500, 503}
    if scopes:
        access = f"Scope: `{'` or `'.join(scopes)}`."
        statuses |= {401, 403, 429}  # 429: the tenant's share or its number of refusals is used up
        if method != "GET":
            # PostgreSQL aborts one of two transactions that deadlock
            statuses.add(409)
    else:
        access = "Needs no API key."
        facts["security"] = []
    facts["description"] = f"{inspect.cleandoc(explained)}\n\n{access}".strip()
    facts["responses"] = {status: HTTPStatus(status).name for status in sorted(statuses)}
    return Blueprint.doc(**facts)(view)  # type: ignore[no-any-return]  # flask-smorest has no types
