"""Additions to flask-smorest's OpenAPI document: refusals, examples, and names for clients.

Each field has an example (`doc` in app/api/kit/schemas.py). The example of a whole body consists of
its fields' examples. Generated clients name their types after the document's components. A
component has the name of its schema, without the suffix `Out` that tells it from a model's class.
"""

import inspect
import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.common import resolve_schema_cls
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from flask_smorest import Blueprint
from marshmallow import Schema, fields

from app.api.kit.schemas import UUID_EXAMPLE, component_of
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


def body_options(schema: Schema) -> JsonObject:
    """Return what the document says of a request's body. A missing body is read as {}."""
    required = any(field.required for field in schema.fields.values())
    return {"required": required or hasattr(schema, "ALTERNATIVES"), "example": example_of(schema)}


class _Converter(OpenAPIConverter):
    """A converter that adds named types and examples, and removes defaults from bodies.

    A schema with ALTERNATIVES becomes a union. ALTERNATIVES maps fields that exclude each other to
    the names of their components. A field's metadata may have `component`, the name of its type, or
    `one_of`, the kinds of values that it may have.
    """

    def schema2jsonschema(self, schema: Any) -> Any:
        body = super().schema2jsonschema(schema)  # type: ignore[no-untyped-call]
        for property_ in body["properties"].values():
            # openapi-typescript makes a property with a default required
            property_.pop("default", None)
        alternatives = getattr(schema, "ALTERNATIVES", {})
        return self._one_of(body, alternatives) if alternatives else body

    def _one_of(self, body: JsonObject, alternatives: dict[str, str]) -> JsonObject:
        """Return a union of bodies, each with one of the fields that exclude each other."""
        for required, name in alternatives.items():
            excluded = alternatives.keys() - {required}
            properties = {k: v for k, v in body["properties"].items() if k not in excluded}
            own = {"properties": properties, "required": [required]}
            self.spec.components.schemas[name] = body | own
        return {"oneOf": [*map(_reference, alternatives.values())]}

    def field2property(self, field: fields.Field[Any]) -> JsonObject:
        property_: JsonObject = super().field2property(field) | field.metadata.get("openapi", {})
        about = {key: property_[key] for key in ("description", "examples") if key in property_}
        if kinds := field.metadata.get("one_of"):
            return about | {"oneOf": [*map(self._kind, kinds)]}
        name = field.metadata.get("component")
        if name is None and isinstance(field, fields.Enum):
            name = field.enum.__name__
        if name is None:
            return property_
        if values := property_.get("enum"):
            variables = [*map(_variable, values)]
            component = {"type": "string", "enum": values, "x-enum-varnames": variables}
        else:
            component = {"type": "object", "additionalProperties": {}}
        self.spec.components.schemas[name] = component
        reference = _reference(name)
        return about | ({"anyOf": [reference, _NULL]} if field.allow_none else reference)

    def _kind(self, kind: Any) -> Any:
        """Return the JSON schema of a field, a schema or None."""
        if kind is None:
            return _NULL
        if isinstance(kind, fields.Field):
            return self.field2property(kind)
        return self.resolve_nested_schema(kind)  # type: ignore[no-untyped-call]


_NULL = {"type": "null"}


def _reference(component: str) -> JsonObject:
    return {"$ref": f"#/components/schemas/{component}"}


def _variable(value: str) -> str:
    """Return the name of an enum's value in generated clients, such as AUDIT_READ."""
    return "ALL" if value == "*" else re.sub(r"\W", "_", value).upper()


class Plugin(MarshmallowPlugin):
    Converter = _Converter

    def __init__(self) -> None:
        super().__init__(lambda schema: component_of(resolve_schema_cls(schema)))  # type: ignore[arg-type]  # no list is given


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
